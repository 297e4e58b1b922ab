"""Words and vectors together."""

from typing import Any

import pytest
from support.zoo import (
    THINGS,
    keys,
)


def test_a_rare_word_is_found_by_words(ask: Any) -> None:
    hits = ask.hybrid("quillbrook", k=5)
    (hit,) = [hit for hit in hits[:2] if hit.key == "quillbrook"]
    assert hit.text_rank == 1
    assert {hit.text_rank for hit in hits if hit.key != "quillbrook"} == {None}


def test_a_hybrid_search_finds_pictures_by_their_vectors(ask: Any) -> None:
    hits = ask.hybrid("a stethoscope", k=2)
    text, image = hits
    assert (text.key, text.vector_rank, text.text_rank) == ("doctor-stethoscope", 1, 1)
    assert text.fused == pytest.approx(2 / 61)
    assert (image.key, image.vector_rank, image.text_rank) == ("stethoscope", 2, None)
    assert image.fused == pytest.approx(1 / 62)
    scores = {hit.key: hit.score for hit in ask.search("a stethoscope", k=2)}
    assert {hit.key: hit.score for hit in hits} == pytest.approx(scores)


def test_an_item_beyond_the_depth_has_no_rank_there(ask: Any) -> None:
    deep = {hit.key: hit for hit in ask.hybrid("holiday", k=2000, depth=2000)}
    shallow = {hit.key: hit for hit in ask.hybrid("holiday", k=10, depth=10)}
    for key in ("airplane-holiday", "camera-holiday"):
        assert deep[key].vector_rank > 10
        assert shallow[key].vector_rank is None
        assert shallow[key].text_rank == deep[key].text_rank
        assert shallow[key].fused < deep[key].fused


def with_words(hits: list[Any]) -> set[str]:
    return {hit.key for hit in hits if hit.text_rank is not None}


def test_quotes_and_exclusions_in_words(ask: Any) -> None:
    options = {"k": 100, "collection": "texts"}
    holiday = {"airplane-holiday", "camera-holiday"}
    assert with_words(ask.hybrid("holiday", **options)) == holiday
    assert with_words(ask.hybrid("holiday -camera", **options)) == {"airplane-holiday"}
    assert with_words(ask.hybrid('"blue jeans"', **options)) == {"blue-jeans-t-shirt"}
    assert with_words(ask.hybrid('"jeans blue"', **options)) == set()
    anything = with_words(ask.hybrid("jeans pizza", **options))
    assert anything == {"blue-jeans-t-shirt", "slice-pizza-dinner"}


def test_a_hyphen_within_a_word_changes_nothing(ask: Any) -> None:
    """As without one, any of the words will do."""
    found = with_words(ask.hybrid("a t-shirt or pizza", k=100, collection="texts"))
    assert found == {"blue-jeans-t-shirt", "slice-pizza-dinner"}
    found = with_words(ask.hybrid("t-shirt pizza", k=100, collection="texts"))
    assert found == {"blue-jeans-t-shirt", "slice-pizza-dinner"}


def test_hybrid_search_is_narrowed(ask: Any) -> None:
    hits = ask.hybrid("holiday", k=100, kind="image", filter={"animal": False}, collection="things")
    assert sorted(keys(hits)) == sorted(THINGS)
    assert with_words(hits) == set()


def test_words_of_chosen_metadata_are_found(ask: Any) -> None:
    assert with_words(ask.hybrid("zx0013", k=5)) == set()
    ask.configure_text_search(fields=["about.inventory"])
    try:
        hits = ask.hybrid("zx0013", k=5)
        assert with_words(hits) == {"penguin"}
        assert "penguin" in keys(hits)[:2]
        # Texts are found by their words as before.
        assert "quillbrook" in with_words(ask.hybrid("quillbrook", k=5))
    finally:
        ask.configure_text_search(fields=[])
    assert with_words(ask.hybrid("zx0013", k=5)) == set()


def test_the_language_of_words_is_chosen(ask: Any) -> None:
    assert with_words(ask.hybrid("strawberry", k=5, kind="text")) == {"fresh-strawberries"}
    ask.configure_text_search(language="simple")
    try:
        assert with_words(ask.hybrid("strawberry", k=5, kind="text")) == set()
    finally:
        ask.configure_text_search(language="english")
