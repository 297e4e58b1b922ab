"""Filters and exactness on real vectors."""

from typing import Any

import pytest
from support.zoo import (
    ANIMALS,
    PICTURE_KEYS,
    PICTURES,
    THINGS,
    keys,
    label_score,
    legs,
    picture,
)


def tagged(tag: str) -> set[str]:
    return {name for name, (_, tags) in ANIMALS.items() if tag in tags}


FILTERS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "value": ({"animal": True}, set(ANIMALS)),
    "eq": ({"legs": {"eq": 8}}, {"spider"}),
    "eq of a list": ({"tags": {"eq": ["pet", "fur"]}}, tagged("pet") - {"parrot"}),
    "eq of an object": ({"about": {"eq": {"title": "guitar"}}}, {"guitar"}),
    "ne": ({"legs": {"ne": 4}}, PICTURE_KEYS - legs(lambda n: n == 4)),
    "lt": ({"legs": {"lt": 4}}, legs(lambda n: n < 4)),
    "le": ({"legs": {"le": 4}}, legs(lambda n: n <= 4)),
    "gt": ({"legs": {"gt": 4}}, {"spider", "ant"}),
    "ge": ({"legs": {"ge": 8}}, {"spider"}),
    "both ends": ({"legs": {"gt": 0, "lt": 4}}, legs(lambda n: n == 2)),
    "lt of strings": ({"about.title": {"lt": "b"}}, {"ant", "airplane", "automobile"}),
    "le of strings": (
        {"about.title": {"le": "banana"}}, {"ant", "airplane", "automobile", "banana"},
    ),
    "gt of strings": ({"about.title": {"gt": "violin"}}, {"whale", "yellow-heart"}),
    "ge of strings": ({"about.title": {"ge": "violin"}}, {"violin", "whale", "yellow-heart"}),
    "in": ({"legs": {"in": [6, 8, 100]}}, {"ant", "spider"}),
    "not_in": ({"legs": {"not_in": [0, 2, 4]}}, {"ant", "spider", *THINGS}),
    "contains": ({"tags": {"contains": "pet"}}, tagged("pet")),
    "contains all": ({"tags": {"contains": ["pet", "bird"]}}, {"parrot"}),
    "exists": ({"legs": {"exists": True}}, set(ANIMALS)),
    "exists not": ({"legs": {"exists": False}}, set(THINGS)),
    "path": ({"about.title": "guitar"}, {"guitar"}),
    "$key": ({"$key": "guitar"}, {"guitar"}),
    "$key in": ({"$key": {"in": ["guitar", "dog", "nix"]}}, {"guitar", "dog"}),
    "$key ne": ({"$key": {"ne": "guitar"}}, PICTURE_KEYS - {"guitar"}),
    "$key not_in": ({"$key": {"not_in": ["guitar", "dog"]}}, PICTURE_KEYS - {"guitar", "dog"}),
    "$key starts_with": (
        {"$key": {"starts_with": "b"}}, {key for key in PICTURE_KEYS if key.startswith("b")},
    ),
    "$source": ({"$source": picture("dog").as_uri()}, {"dog"}),
    "$source starts_with": ({"$source": {"starts_with": PICTURES.as_uri()}}, set(ANIMALS)),
    "$created_at": ({"$created_at": {"lt": "2020-01-01"}}, set()),
    "$created_at ge": ({"$created_at": {"ge": "2020-01-01T00:00:00Z"}}, PICTURE_KEYS),
    "$created_at within": ({"$created_at": {"within": "1 day"}}, PICTURE_KEYS),
    "$updated_at within": ({"$updated_at": {"within": "1 day"}}, PICTURE_KEYS),
    "$and": ({"$and": [{"animal": True}, {"legs": {"gt": 4}}]}, {"ant", "spider"}),
    "$or": ({"$or": [{"legs": 6}, {"about.title": "guitar"}]}, {"ant", "guitar"}),
    "$not": ({"$not": {"animal": True}}, set(THINGS)),
    "$not of what is missing": ({"$not": {"legs": {"ge": 4}}},
                                PICTURE_KEYS - legs(lambda n: n >= 4)),
    "together": (
        {"animal": True, "$or": [{"tags": {"contains": "bird"}}, {"legs": 0}],
         "$not": {"tags": {"contains": "pet"}}},
        {"duck", "penguin", "eagle", "owl", "snake", "whale", "shark"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("exact", [False, True], ids=["default", "exact"])
@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_lets_through_what_it_says(ask: Any, name: str, exact: bool) -> None:
    filter, expected = FILTERS[name]
    hits = ask.search("an animal", kind="image", filter=filter, k=1000, exact=exact)
    assert {hit.key for hit in hits if hit.collection in ("animals", "things")} == expected
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_the_best_of_those_that_the_filter_lets_through_come_first(ask: Any) -> None:
    assert keys(ask.search("a bird", filter={"tags": {"contains": "pet"}}, k=1)) == ["parrot"]
    assert keys(ask.search("a banana", filter={"legs": {"gt": 6}}, k=1)) == ["spider"]


def test_a_filter_on_labels(ask: Any) -> None:
    wanted = {"name": "musical instrument", "set": "general", "min_score": 0.5}
    hits = ask.search("a guitar", kind="image", filter={"$label": wanted}, k=100)
    found = set(keys(hits))
    assert {"guitar", "violin"} <= found
    assert not found & {"banana", "dog", "pizza"}
    everything = ask.search("a guitar", kind="image", k=1000)
    assert found == {hit.key for hit in everything if label_score(hit, "musical instrument") >= 0.5}
    by_name = ask.search("a guitar", kind="image", filter={"$label": "musical instrument"}, k=1000)
    assert found <= set(keys(by_name))
    without = ask.search(
        "a guitar", kind="image", filter={"$not": {"$label": "musical instrument"}}, k=1000
    )
    assert set(keys(without)) == set(keys(everything)) - set(keys(by_name))


@pytest.mark.parametrize("query", ["a penguin", "something to eat", "red", "wood and metal"])
def test_exact_search_gives_the_same_answer(ask: Any, query: str) -> None:
    for options in ({}, {"kind": "text"}, {"collection": "animals"}, {"filter": {"legs": 4}}):
        usual = ask.search(query, k=30, **options)
        exact = ask.search(query, k=30, exact=True, **options)
        assert [(hit.key, hit.score) for hit in usual] == [(hit.key, hit.score) for hit in exact]
        assert usual
