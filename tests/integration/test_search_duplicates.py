"""Duplicates in tiers, and groups of them."""

from typing import Any

import psycopg2
import psycopg2.extras
import pytest
from support.processes import Live
from support.zoo import keys

from pgclip import NotFound

TIERS = {
    "lion-a": "identical", "lion-b": "identical", "lion-saved": "near", "lion-png": "near",
    "lion-smaller": "near", "lion-turned": "similar",
}  # fmt: skip


def test_duplicates_of_an_item(ask: Any, lions: None) -> None:
    found = ask.duplicates_of("lion-a", collection="lions", within="lions")
    assert {hit.key: hit.tier for hit in found} == {
        key: tier for key, tier in TIERS.items() if key != "lion-a"
    }
    assert found[0].key == "lion-b"
    assert [hit.score for hit in found[1:]] == sorted((h.score for h in found[1:]), reverse=True)
    near = ask.duplicates_of("lion-a", collection="lions", within="lions", min_score=0.97)
    assert "lion-turned" not in keys(near)
    everywhere = ask.duplicates_of("lion-a", collection="lions")
    assert {hit.key for hit in everywhere} == {*TIERS, "lion"} - {"lion-a"}
    assert {hit.tier for hit in everywhere if hit.key == "lion"} == {"identical"}
    assert ask.duplicates_of("candle", collection="lions", within="lions") == []
    assert len(ask.duplicates_of("lion-a", collection="lions", k=1)) == 1


def test_groups_of_duplicates(ask: Any, lions: None) -> None:
    groups = ask.duplicate_groups(collection="lions", min_score=0.9)
    assert [{hit.key: hit.tier for hit in group} for group in groups] == [
        TIERS,
        {"dog-a": "identical", "dog-b": "identical"},
    ]
    groups = ask.duplicate_groups(collection="lions", kind="image", min_score=0.97)
    assert [len(group) for group in groups] == [5, 2]
    assert ask.duplicate_groups(collection="lions", kind="text") == []
    everywhere = ask.duplicate_groups(min_score=0.97)
    (group,) = ({hit.key for hit in group} for group in everywhere if "lion-a" in str(group))
    assert group == {*TIERS, "lion"} - {"lion-turned"}
    for group in everywhere:
        assert [hit.score for hit in group] == sorted((h.score for h in group), reverse=True)


def test_a_copy_of_a_long_text_is_its_duplicate(ask: Any, zoo: Live) -> None:
    about = [
        *("a penguin on the ice", "a red car in front of a house", "sushi for two", "a king"),
        *("blue jeans and a t-shirt", "a castle on a mountain", "she plays the violin"),
    ]
    body = ", ".join(f"{thing} " * 12 for thing in about)
    zoo.client.submit_many(
        {"text": body, "key": f"many-{n}", "collection": "many"} for n in (1, 2)
    ).wait(timeout=60)
    assert len(zoo.client.get("many-1", collection="many").vectors) > 2
    (group,) = ask.duplicate_groups(collection="many")
    assert {hit.key: hit.tier for hit in group} == {"many-1": "identical", "many-2": "identical"}
    (hit,) = ask.duplicates_of("many-1", collection="many", within="many")
    assert (hit.key, hit.tier) == ("many-2", "identical")


def test_duplicates_of_what_is_not_there(ask: Any) -> None:
    with pytest.raises((NotFound, psycopg2.Error), match="no item nix in collection animals"):
        ask.duplicates_of("nix", collection="animals")
