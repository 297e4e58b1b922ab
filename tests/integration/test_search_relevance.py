"""What a score means, once it is calibrated."""

from typing import Any

import numpy as np
import pytest
from support.processes import Live
from support.zoo import keys, picture


@pytest.fixture(scope="module")
def calibrated(zoo: Live) -> None:
    assert zoo.client.calibrate() == 4


def test_calibration_covers_every_direction(ask: Any, zoo: Live) -> None:
    assert ask.calibrate() == 4
    found = {(c.query_kind, c.item_kind) for c in zoo.client.calibrations()}
    assert found == {(a, b) for a in ("image", "text") for b in ("image", "text")}
    for one in zoo.client.calibrations():
        assert one.mean is not None
        assert one.mean < one.midpoint < 1


@pytest.mark.parametrize("thing", ["penguin", "guitar", "banana", "airplane"])
def test_a_right_hit_is_relevant_and_a_wrong_one_is_not(
    ask: Any, calibrated: None, thing: str
) -> None:
    wrong = {"penguin", "guitar", "banana", "airplane", "pizza", "castle"} - {thing}
    by_text = {hit.key: hit.relevance for hit in ask.search(thing, k=1000)}
    assert by_text[thing] > max(by_text[key] for key in wrong) + 0.1
    by_image = {hit.key: hit.relevance for hit in ask.search(image=picture(thing), k=1000)}
    assert by_image[thing] > 0.9
    assert max(by_image[key] for key in wrong) < 0.2


def test_the_midpoint_has_relevance_one_half(ask: Any, zoo: Live, calibrated: None) -> None:
    (one,) = [
        c for c in zoo.client.calibrations() if (c.query_kind, c.item_kind) == ("text", "image")
    ]
    for hit in ask.search("a penguin", kind="image", k=100):
        expected = 1 / (1 + np.exp(-one.slope * (hit.score - one.midpoint)))
        assert hit.relevance == pytest.approx(expected, abs=1e-4)


def test_relevance_is_not_known_for_a_query_of_text_and_picture(ask: Any, calibrated: None) -> None:
    parts = [("a guitar", 1.0), (picture("violin"), 1.0)]
    assert {hit.relevance for hit in ask.search(parts, k=5)} == {None}


def test_least_scores_leave_out_what_does_not_fit(ask: Any, calibrated: None) -> None:
    penguin = {"collection": "animals", "k": 100}
    everything = ask.search("a penguin", **penguin)
    second = everything[1].score
    assert keys(ask.search("a penguin", **penguin, min_score=second + 0.01)) == ["penguin"]
    assert len(ask.search("a penguin", **penguin, min_score=second)) == 2
    middle = (everything[0].relevance + everything[1].relevance) / 2
    assert keys(ask.search("a penguin", **penguin, min_relevance=middle)) == ["penguin"]
    some = ask.search("a penguin", **penguin, min_relevance=everything[5].relevance * 0.999)
    assert keys(some) == keys(everything)[:6]


def test_nothing_is_found_above_a_minimum_that_nothing_reaches(ask: Any, calibrated: None) -> None:
    assert ask.search("a penguin", collection="animals", min_score=0.99) == []
    assert ask.search("a penguin", collection="animals", min_relevance=0.9999) == []
    assert ask.search("a penguin", collection="animals", filter={"legs": 4711}) == []
