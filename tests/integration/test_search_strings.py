"""Harmful strings are only strings, and words are found as they are."""

import random
from typing import Any

import numpy as np
import pytest
from support.planted_items import NASTY, UNIT, Planted, Sql, plant, random_units

from pgclip import Client, InvalidItem, NotFound, QueryFailed
from pgclip.searching.queries import Like


def test_a_harmful_string_is_only_a_string(planted: Planted) -> None:
    """Each is found where it is, and nowhere else."""

    def found(**options: Any) -> set[str]:
        hits = planted.client.search_vector(UNIT, k=100, **options)
        exact = planted.client.search_vector(UNIT, k=100, exact=True, **options)
        assert hits == exact
        return {hit.key for hit in hits}

    for nasty in NASTY:
        assert found(collection=nasty) == {nasty}
        assert found(filter={"value": nasty}) == {nasty}
        assert found(filter={"value": {"ge": nasty, "le": nasty}}) == {nasty}
        assert found(filter={"value": {"in": [nasty, "nix"]}}) == {nasty}
        assert found(filter={"value": {"ne": nasty}}) == set(NASTY) - {nasty}
        assert found(filter={"list": {"contains": nasty}}) == {nasty}
        assert found(filter={"list": {"eq": ["x", nasty]}}) == {nasty}
        assert found(filter={"deep.value": {"eq": {"in": nasty}}}) == {nasty}
        assert found(filter={"$key": nasty}) == {nasty}
        assert found(filter={"$key": {"in": [nasty, "nix"]}}) == {nasty}
        assert found(filter={"$key": {"not_in": [nasty]}}) == set(NASTY) - {nasty}
        assert found(filter={"$source": nasty}) == set()
        assert found(filter={"$label": nasty}) == {nasty}
        assert found(filter={"$label": {"name": nasty, "set": NASTY[0]}}) == {nasty}
        starting = {key for key in NASTY if key.startswith(nasty)}
        assert found(filter={"$key": {"starts_with": nasty}}) == starting
        within = {key for key in NASTY if key == nasty}
        assert found(filter={f"of.{nasty}": 1}) == within
        assert found(filter={f"of.{nasty}": {"gt": 0, "lt": 2}}) == within
        assert found(filter={f"of.{nasty}": {"exists": True}}) == within
        assert found(filter={f"of.{nasty}": {"ne": 1}}) == set(NASTY) - within
        (hit,) = planted.client.search_vector(UNIT, collection=nasty)
        assert planted.client.search(like=Like(nasty, nasty), k=1)[0].key != nasty
        assert (hit.key, hit.collection) == (nasty, nasty)


def test_a_harmful_string_names_nothing(planted: Planted) -> None:
    before = planted.sql("SELECT count(*) FROM pgclip.item")
    for nasty in NASTY:
        other = nasty + "'x"
        with pytest.raises(NotFound, match="no collection named"):
            planted.client.search_vector(UNIT, collection=other)
        with pytest.raises(NotFound, match="no item"):
            planted.client.search(like=Like(other, nasty))
        with pytest.raises(NotFound, match="no label"):
            planted.client.search_vector(UNIT, filter={"$label": other})
        with pytest.raises(InvalidItem, match="unknown operator"):
            planted.client.search_vector(UNIT, filter={"a": {nasty: 1}})
        with pytest.raises(InvalidItem, match="unknown field"):
            planted.client.search_vector(UNIT, filter={"$" + nasty: 1})
        with pytest.raises(InvalidItem, match="can't be read"):
            planted.client.search_vector(UNIT, filter={"$created_at": {"lt": nasty}})
    assert planted.sql("SELECT count(*) FROM pgclip.item") == before


def test_harmful_paths_can_be_indexed(planted: Planted) -> None:
    for nasty in NASTY:
        path = f"of.{nasty}"
        planted.client.index_metadata(path)
        found = planted.client.search_vector(UNIT, k=100, filter={path: {"ge": 1}})
        assert [hit.key for hit in found] == [nasty]
        assert planted.client.drop_metadata_index(path) is True
    assert planted.sql("SELECT count(*) FROM pgclip.metadata_index") == [(0,)]


def test_harmful_words_are_only_words(planted: Planted) -> None:
    operators = [
        "& | ! ( ) <-> :* ",
        "'",
        '"',
        '""',
        "a & ! b",
        "-",
        "- -a",
        "or",
        "a or",
        '"a',
        "!",
    ]
    for words in [*NASTY, *operators]:
        assert len(planted.sql("SELECT (pgclip._words_wanted(%s)).ranking", words)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "see example.org/page today",
        "mail someone@example.org",
        "AT&T and R&D",
        "it's a cat's life",
        "C:\\temp\\new",
        "50% off, 20 < 30 > 10 & more",
        "a:b|c!d",
        "ünïcödé 🐘",
    ],
)
def test_a_text_is_found_by_its_own_words(planted: Planted, text: str) -> None:
    found = "SELECT to_tsvector('english', %s) @@ (pgclip._words_wanted(%s)).ranking"
    for query in (text, *(word for word in text.split() if len(word) > 4)):
        assert planted.sql(found, text, query) == [(True,)], query


@pytest.mark.parametrize(
    "query",
    ["t-shirt pizza", "pizza someone@example.org", "example.org/a pizza", "well-known, pizza"],
)
def test_any_of_the_words_will_do_unless_quotes_or_a_minus_say_otherwise(
    planted: Planted, query: str
) -> None:
    found = (
        "SELECT to_tsvector('english', 'a slice of pizza') @@ (pgclip._words_wanted(%s)).ranking"
    )
    assert planted.sql(found, query) == [(True,)]
    assert planted.sql(found, f"{query} -slice") == [(False,)]
    assert planted.sql(found, f'{query} "pizza slice"') == [(False,)]


def test_relevance_is_unknown_without_a_calibration(planted: Planted) -> None:
    hits = planted.client.search_vector(UNIT, query_kind="text", k=5)
    assert [hit.relevance for hit in hits] == [None] * 5
    hits = planted.client.search(like=Like(NASTY[0], NASTY[0]), k=5)
    assert [hit.relevance for hit in hits] == [None] * 5


def test_directions_with_few_vectors_are_not_calibrated(client: Client, sql: Sql) -> None:
    vectors = random_units(310)
    plant(sql, [
        {"key": f"i{n}", "kind": "image" if n < 300 else "text", "vector": vector}
        for n, vector in enumerate(vectors)
    ])  # fmt: skip
    assert client.calibrate() == 1
    (one,) = client.calibrations()
    assert (one.query_kind, one.item_kind) == ("image", "image")
    with pytest.raises(QueryFailed, match="no calibration from text to image"):
        client.search_vector(UNIT, query_kind="text", kind="image", min_relevance=0.5)
    with pytest.raises(QueryFailed, match="no calibration from image to text"):
        client.search_vector(UNIT, query_kind="image", min_relevance=0.5)
    with pytest.raises(QueryFailed, match="no calibration from this query to image"):
        client.search_vector(UNIT, min_relevance=0.5)
    client.set_calibration("text", "image", midpoint=0.5, slope=10.0)
    hits = client.search_vector(UNIT, query_kind="text", kind="image", min_relevance=0.5, k=300)
    assert hits
    assert min(hit.score for hit in hits) >= 0.5
    for hit in hits:
        assert hit.relevance == pytest.approx(1 / (1 + np.exp(10 * (0.5 - hit.score))), abs=1e-4)


def test_an_indexed_field_may_have_a_long_value(client: Client, sql: Sql) -> None:
    sql("SELECT pgclip.index_metadata('about.text')")
    long = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=9000))
    client.submit_text("a text", key="long", metadata={"about": {"text": long}})
    client.submit_text("a text", key="short", metadata={"about": {"text": "b"}})
    condition = """pgclip._condition('{"about.text": {"ge": "a"}}', 1::smallint, false)"""
    ((where,),) = sql(f"SELECT {condition}")
    found = {key for (key,) in sql(f"SELECT i.key FROM pgclip.item i WHERE {where}")}
    assert "short" in found
