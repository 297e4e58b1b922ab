"""Searches, filters, vectors and weights that make no sense are refused in words."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import psycopg2
import pytest
from support.planted_items import (
    NASTY,
    UNIT,
    Planted,
    random_units,
)

from pgclip import InvalidItem, NotFound, PgclipError, QueryFailed
from pgclip.searching.queries import Like

ERRORS = {"PC001": InvalidItem, "PC002": NotFound, "PC003": QueryFailed, "PC005": QueryFailed}
DEEP: dict[str, Any] = {"a": 1}


for _ in range(30):
    DEEP = {"$not": DEEP}


BROAD_AND_DEEP: dict[str, Any] = {"a": 1}


for _ in range(30):
    BROAD_AND_DEEP = {"$or": [{"b": 2}, {"$and": [BROAD_AND_DEEP]}]}


TIME = "can't be read"
BAD_FILTERS: list[tuple[Any, str]] = [
    ({"a": {"like": 1}}, 'unknown operator "like" of "a"'),
    ({"a": {"EQ": 1}}, 'unknown operator "EQ" of "a"'),
    ({"a": {"eq": 1, "width": 2}}, 'unknown operator "width" of "a"'),
    ({"$key": {"lt": "a"}}, 'unknown operator "lt" of $key'),
    ({"$source": {"contains": "a"}}, 'unknown operator "contains" of $source'),
    ({"$created_at": {"eq": "2024-01-01"}}, 'unknown operator "eq" of $created_at'),
    ({"$created_at": "2024-01-01"}, 'unknown operator "eq" of $created_at'),
    ({"$updated_at": {"in": ["2024-01-01"]}}, 'unknown operator "in" of $updated_at'),
    ({"$nix": 1}, "unknown field $nix"),
    ({"$id": {"eq": 1}}, "unknown field $id"),
    ({"$or ": [{"a": 1}]}, '"$or " is given a list'),
    ({"a": {}}, '"a" has no operator'),
    ({"$key": {}}, '"$key" has no operator'),
    ({"a": [1, 2]}, '"a" is given a list'),
    ({"$key": ["a"]}, '"$key" is given a list'),
    ({"$or": []}, "$or takes a list of 1 to 1000 values"),
    ({"$and": []}, "$and takes a list of 1 to 1000 values"),
    ({"$or": {"a": 1}}, "$or takes a list"),
    ({"$or": None}, "$or takes a list"),
    ({"$and": "a"}, "$and takes a list"),
    ({"$or": [{"a": 1}] * 1001}, "$or takes a list of 1 to 1000 values"),
    ({"$or": [1]}, "a JSON object is needed, not 1"),
    ({"$and": [{"a": 1}, None]}, "a JSON object is needed, not null"),
    ({"$not": [{"a": 1}]}, "a JSON object is needed, not [{"),
    ({"$not": 5}, "a JSON object is needed, not 5"),
    ({"$not": {"$not": {"a": {"like": 1}}}}, 'unknown operator "like" of "a"'),
    (DEEP, "nested more than 20 deep"),
    (BROAD_AND_DEEP, "nested more than 20 deep"),
    ({"a": {"in": list(range(1001))}}, "in takes a list of 1 to 1000 values"),
    ({"a": {"in": []}}, "in takes a list of 1 to 1000 values"),
    ({"a": {"in": 5}}, "in takes a list of 1 to 1000 values"),
    ({"a": {"in": {"x": 1}}}, "in takes a list of 1 to 1000 values"),
    ({"a": {"not_in": []}}, "not_in takes a list of 1 to 1000 values"),
    ({"$key": {"in": "abc"}}, "in takes a list of 1 to 1000 values"),
    ({"$key": {"not_in": []}}, "not_in takes a list of 1 to 1000 values"),
    ({"a": {"exists": "true"}}, "exists takes true or false"),
    ({"a": {"exists": 1}}, "exists takes true or false"),
    ({"a": {"exists": None}}, "exists takes true or false"),
    ({"a": {"lt": None}}, "lt compares with a number or a string, not null"),
    ({"a": {"le": True}}, "le compares with a number or a string, not true"),
    ({"a": {"gt": [1]}}, "gt compares with a number or a string, not [1]"),
    ({"a": {"ge": {"x": 1}}}, "ge compares with a number or a string"),
    ({"$created_at": {"lt": "soonish"}}, f"lt of $created_at {TIME}"),
    ({"$created_at": {"lt": "2024-13-45"}}, f"lt of $created_at {TIME}"),
    ({"$created_at": {"lt": "2024-01-01 10:00 Mars/Base"}}, f"lt of $created_at {TIME}"),
    ({"$created_at": {"ge": 5}}, "ge of $created_at takes a string"),
    ({"$created_at": {"ge": True}}, "ge of $created_at takes a string"),
    ({"$created_at": {"ge": ["2024-01-01"]}}, "ge of $created_at takes a string"),
    ({"$created_at": {"lt": None}}, "lt of $created_at takes a string"),
    ({"$created_at": {"within": None}}, "within of $created_at takes a string"),
    ({"$created_at": {"within": "a while"}}, f"within of $created_at {TIME}"),
    ({"$created_at": {"within": "1000000000 years"}}, f"within of $created_at {TIME}"),
    ({"$updated_at": {"within": {"days": 7}}}, "within of $updated_at takes a string"),
    ({"$key": 5}, "eq of $key takes a string"),
    ({"$key": None}, "eq of $key takes a string"),
    ({"$source": {"ne": True}}, "ne of $source takes a string"),
    ({"$key": {"starts_with": 5}}, "starts_with of $key takes a string"),
    ({"$label": 5}, "$label takes"),
    ({"$label": None}, "$label takes"),
    ({"$label": {}}, "$label takes"),
    ({"$label": ["animal"]}, "$label takes"),
    ({"$label": {"name": 5}}, "$label takes"),
    ({"$label": {"set": "general"}}, "$label takes"),
    ({"$label": {"name": "animal", "set": 5}}, "$label takes"),
    ({"$label": {"name": "animal", "score": 1}}, "$label takes"),
    ({"$label": {"name": "animal", "min_score": "0.5"}}, "$label takes"),
    ({"$label": {"name": "animal", "min_score": 1.5}}, "min_score is from 0 to 1, not 1.5"),
    ({"$label": {"name": "animal", "min_score": -1}}, "min_score is from 0 to 1, not -1"),
    ({"$label": {"name": "animal", "min_score": None}}, "$label takes"),
    ({"": 1}, '"" is not a path'),
    ({"a..b": 1}, '"a..b" is not a path'),
    ({".": {"exists": True}}, '"." is not a path'),
    ({"a.": {"ge": 1}}, '"a." is not a path'),
]


@pytest.mark.parametrize(("filter", "message"), BAD_FILTERS)
def test_filters_that_make_no_sense(planted: Planted, filter: Any, message: str) -> None:
    with pytest.raises(psycopg2.Error) as in_sql:
        planted.sql(
            "SELECT * FROM pgclip.search_vector(%s::halfvec, filter => %s)",
            str(UNIT), json.dumps(filter),
        )  # fmt: skip
    assert in_sql.value.pgcode == "PC001"
    assert message in str(in_sql.value)
    with pytest.raises(InvalidItem) as by_client:
        planted.client.search_vector(UNIT, filter=filter)
    assert message in str(by_client.value)


@pytest.mark.parametrize("filter", ["[]", '[{"a": 1}]', "5", '"a"', "true", "null"])
def test_a_filter_is_an_object(planted: Planted, filter: str) -> None:
    with pytest.raises(psycopg2.Error, match="filter: a JSON object is needed") as caught:
        planted.sql("SELECT * FROM pgclip.search_vector(%s::halfvec, filter => %s)",
                    str(UNIT), filter)  # fmt: skip
    assert caught.value.pgcode == "PC001"
    if filter != "null":  # of the client, None is no filter
        with pytest.raises(InvalidItem, match="filter"):
            planted.client.search_vector(UNIT, filter=json.loads(filter))


def test_a_filter_of_the_client_is_json(planted: Planted) -> None:
    endless: dict[str, Any] = {}
    endless["$not"] = endless
    for value in ({1, 2}, float("nan"), float("inf"), b"x", "a\0b", "\ud800"):
        with pytest.raises(InvalidItem, match="filter"):
            planted.client.search_vector(UNIT, filter={"a": value})
    with pytest.raises(InvalidItem, match="filter"):
        planted.client.search_vector(UNIT, filter=endless)


def test_filters_that_narrow_nothing(planted: Planted) -> None:
    everything = planted.client.search_vector(UNIT, k=100)
    assert len(everything) == len(NASTY)
    for filter in ({}, {"$and": [{}]}, {"$not": {"$not": {}}}, {"a": {"exists": False}}):
        assert planted.client.search_vector(UNIT, k=100, filter=filter) == everything


@pytest.mark.parametrize(
    ("options", "state", "message"),
    [
        ({"collection": "nix"}, "PC002", "there is no collection named nix"),
        ({"filter": {"$label": "nix"}}, "PC002", "there is no label nix"),
        ({"filter": {"$label": {"name": "nix"}}}, "PC002", "there is no label nix"),
        ({"filter": {"$label": {"name": "animal", "set": "nix"}}}, "PC002", "no label animal"),
        ({"filter": {"$not": {"$label": "nix"}}}, "PC002", "there is no label nix"),
        ({"k": 0}, "PC001", "k must be from 1 to 10000, not 0"),
        ({"k": -1}, "PC001", "k must be from 1 to 10000, not -1"),
        ({"k": None}, "PC001", "k must be from 1 to 10000"),
        ({"k": 10_001}, "PC001", "k must be from 1 to 10000, not 10001"),
        ({"k": 1_000_000}, "PC001", "k must be from 1 to 10000, not 1000000"),
        ({"min_relevance": 0.5}, "PC005", "there is no calibration"),
        ({"min_relevance": 0.0}, "PC001", "min_relevance must be between 0 and 1"),
        ({"min_relevance": 1.0}, "PC001", "min_relevance must be between 0 and 1"),
        ({"min_relevance": -0.5}, "PC001", "min_relevance must be between 0 and 1"),
    ],
)
def test_searches_that_make_no_sense(
    planted: Planted, options: dict[str, Any], state: str, message: str
) -> None:
    named = "".join(f", {name} => %s" for name in options)
    values = [json.dumps(v) if isinstance(v, dict) else v for v in options.values()]
    with pytest.raises(psycopg2.Error, match=message) as caught:
        planted.sql(f"SELECT * FROM pgclip.search_vector(%s::halfvec{named})", str(UNIT), *values)
    assert caught.value.pgcode == state
    with pytest.raises(ERRORS[state], match=message):
        planted.client.search_vector(UNIT, **options)
    with pytest.raises(ERRORS[state], match=message):
        planted.client.search(like=Like(NASTY[0], NASTY[0]), **options)


@pytest.mark.parametrize("k", [2**31, 10**10, 10**30, 1.5, "many"])
def test_a_k_that_is_no_int_of_postgres_is_refused_as_such(planted: Planted, k: Any) -> None:
    with pytest.raises(InvalidItem):
        planted.client.search_vector(UNIT, k=k)


@pytest.mark.parametrize("name", ["min_score", "min_relevance"])
def test_a_minimum_that_is_not_a_number(planted: Planted, name: str) -> None:
    with pytest.raises(psycopg2.Error, match="a minimum must be a number") as caught:
        planted.sql(f"SELECT * FROM pgclip.search_vector(%s::halfvec, {name} => 'NaN')", str(UNIT))
    assert caught.value.pgcode == "PC001"
    with pytest.raises(InvalidItem, match="a minimum must be a number"):
        planted.client.search_vector(UNIT, **{name: float("nan")})


def test_infinite_minima(planted: Planted) -> None:
    search = "SELECT key FROM pgclip.search_vector(%s::halfvec, 100, min_score => %s)"
    assert planted.sql(search, str(UNIT), "Infinity") == []
    assert len(planted.sql(search, str(UNIT), "-Infinity")) == len(NASTY)
    assert planted.client.search_vector(UNIT, min_score=float("inf")) == []
    with pytest.raises(psycopg2.Error, match="min_relevance must be between 0 and 1") as caught:
        planted.sql("SELECT * FROM pgclip.search_vector(%s::halfvec, min_relevance => 'Infinity')",
                    str(UNIT))  # fmt: skip
    assert caught.value.pgcode == "PC001"
    with pytest.raises(InvalidItem, match="min_relevance must be between 0 and 1"):
        planted.client.search_vector(UNIT, min_relevance=float("inf"))


def test_a_minimum_from_numpy(planted: Planted) -> None:
    plain = planted.client.search_vector(UNIT, min_score=0.25)
    assert plain
    assert planted.client.search_vector(UNIT, min_score=np.float64(0.25)) == plain


@pytest.mark.parametrize("query", ["NULL", "pgclip.as_vector(NULL)"])
def test_no_vector_is_no_query(planted: Planted, query: str) -> None:
    with pytest.raises(psycopg2.Error) as caught:
        planted.sql(f"SELECT * FROM pgclip.search_vector({query})")
    assert caught.value.pgcode == "PC001"


@pytest.mark.parametrize(
    ("query", "states", "message"),
    [
        ("'[1,0]'", {"PC001"}, "the query has 2 dimensions, model m has 8"),
        ("'[1,0,0,0,0,0,0,0,0]'", {"PC001"}, "the query has 9 dimensions, model m has 8"),
        ("'[0,0,0,0,0,0,0,0]'", {"PC001"}, "the query vector is zero"),
        ("'[NaN,0,0,0,0,0,0,0]'", {"22000"}, "NaN not allowed in halfvec"),
        ("'[Infinity,0,0,0,0,0,0,0]'", {"22000"}, "infinite value not allowed in halfvec"),
        ("'[1e9,0,0,0,0,0,0,0]'", {"22000", "22003"}, "out of range for type halfvec"),
        ("'[]'", {"22000"}, "at least 1 dimension"),
        ("'one'", {"22P02"}, "invalid input syntax for type halfvec"),
        ("pgclip.as_vector(ARRAY['NaN', 0]::float8[])", {"PC001"}, "finite numbers"),
        ("pgclip.as_vector(ARRAY['Infinity', 0]::float8[])", {"PC001"}, "finite numbers"),
        ("pgclip.as_vector(ARRAY['-Infinity', 1]::float8[])", {"PC001"}, "finite numbers"),
        ("pgclip.as_vector(ARRAY[0, 0]::float8[])", {"PC001"}, "finite numbers"),
        ("pgclip.as_vector(ARRAY[1, NULL]::float8[])", {"PC001"}, "finite numbers"),
        ("pgclip.as_vector('{}')", {"PC001"}, "finite numbers"),
        ("pgclip.as_vector(array_fill(1.0::float8, '{20000}'))", {"PC001"}, "finite numbers"),
    ],
)
def test_vectors_that_make_no_sense(
    planted: Planted, query: str, states: set[str], message: str
) -> None:
    with pytest.raises(psycopg2.Error, match=message) as caught:
        planted.sql(f"SELECT * FROM pgclip.search_vector({query})")
    assert caught.value.pgcode in states


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        ([1.0, 0.0], "the query has 2 dimensions, model m has 8"),
        ([0.0] * 8, "finite numbers that are not all 0"),
        ([float("nan")] + [0.0] * 7, "finite numbers"),
        ([float("inf")] + [0.0] * 7, "finite numbers"),
        ([float("-inf")] + [1.0] * 7, "finite numbers"),
        ([], "finite numbers"),
        (np.full(8, np.nan, np.float32), "finite numbers"),
        (np.ones((2, 8)), "a vector is a sequence of numbers"),
        (["a"] * 8, "a vector is a sequence of numbers"),
        ([None] * 8, "a vector is a sequence of numbers"),
        (None, "a vector is a sequence of numbers"),
        (5, "a vector is a sequence of numbers"),
    ],
)
def test_vectors_of_the_client_that_make_no_sense(
    planted: Planted, vector: Any, message: str
) -> None:
    with pytest.raises(InvalidItem, match=message):
        planted.client.search_vector(vector)


@pytest.mark.parametrize("length", [1e-200, 1e-5, 1, 7e4, 1e200])
def test_the_length_of_a_vector_does_not_matter(planted: Planted, length: float) -> None:
    vector = random_units(1, seed=5)[0]
    hits = planted.client.search_vector([length * value for value in vector], k=5)
    assert hits == planted.client.search_vector(vector, k=5)


@pytest.mark.parametrize(
    ("vectors", "weights", "message"),
    [
        ("ARRAY['[1,0]','[1,0]']", "ARRAY[1,-1]", "cancel each other out"),
        ("ARRAY['[1,0]','[1,0.001]']", "ARRAY[1,-1]", "cancel each other out"),
        ("ARRAY['[1,0]','[-1,0]']", "ARRAY[2,2]", "cancel each other out"),
        ("ARRAY['[1,0]','[0,1]']", "ARRAY[0,0]", "finite, and not all 0"),
        ("ARRAY['[1,0]']", "ARRAY['NaN']", "finite, and not all 0"),
        ("ARRAY['[1,0]','[0,1]']", "ARRAY[1,'NaN']", "finite, and not all 0"),
        ("ARRAY['[1,0]','[0,1]']", "ARRAY[1,'Infinity']", "finite, and not all 0"),
        ("ARRAY['[1,0]','[0,1]']", "ARRAY['Infinity','-Infinity']", "finite, and not all 0"),
        ("ARRAY['[1,0]','[0,1]']", "ARRAY[1]", "vectors and as many weights"),
        ("ARRAY['[1,0]']", "ARRAY[1,2]", "vectors and as many weights"),
        ("ARRAY['[1,0]',NULL]", "ARRAY[1,1]", "vectors and as many weights"),
        ("ARRAY['[1,0]','[0,1]']", "ARRAY[1,NULL]", "vectors and as many weights"),
        ("'{}'", "'{}'", "vectors and as many weights"),
        ("NULL", "ARRAY[1]", "vectors and as many weights"),
        ("ARRAY['[1,0]']", "NULL", "vectors and as many weights"),
        ("ARRAY['[1,0]','[0,1,0]']", "ARRAY[1,1]", "different dimensions"),
        ("ARRAY['[0,0]']", "ARRAY[1]", "cancel each other out"),
    ],
)
def test_weights_that_make_no_sense(
    planted: Planted, vectors: str, weights: str, message: str
) -> None:
    with pytest.raises(psycopg2.Error, match=message) as caught:
        planted.sql(f"SELECT pgclip.weigh({vectors}::halfvec[], {weights}::float8[])")
    assert caught.value.pgcode == "PC001"


def test_weights_add_unit_vectors(planted: Planted) -> None:
    (row,) = planted.sql(
        "SELECT pgclip.weigh(ARRAY['[3,0]','[0,5]']::halfvec[], ARRAY[2,-1])::real[]"
    )
    np.testing.assert_allclose(row[0], np.array([2, -1]) / np.sqrt(5), atol=1e-3)
    (row,) = planted.sql("SELECT pgclip.weigh(ARRAY['[3,4]']::halfvec[], ARRAY[-1e20])::real[]")
    np.testing.assert_allclose(row[0], [-0.6, -0.8], atol=1e-3)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ([("asked", float("nan"))], "finite, and not all 0"),
        ([("asked", 1.0), (Like(NASTY[0], NASTY[0]), float("inf"))], "finite, and not all 0"),
        ([("asked", 0.0)], "finite, and not all 0"),
        ([("asked", 1.0), ("asked", -1.0)], "cancel each other out"),
        ([("asked", None)], "weighted queries are pairs"),
        ([("asked", "much")], "weighted queries are pairs"),
        ([("asked",)], "weighted queries are pairs"),
        (["asked"], "weighted queries are pairs"),
        (["a1"], "weighted queries are pairs"),
        ([], "there is no query"),
        ({"asked": 1.0}, "a query is a str, not dict"),
        (b"asked", "a query is a str, not bytes; a picture goes as image="),
        ([(5, 1.0)], "a query is a str, not int"),
        ([("", 1.0)], "the query is blank"),
    ],
)
def test_weighted_queries_that_make_no_sense(planted: Planted, query: Any, message: str) -> None:
    with pytest.raises(InvalidItem, match=message):
        planted.client.search(query, timeout=0.1)


@pytest.mark.parametrize(
    ("call", "state", "message"),
    [
        ("similar('nix')", "PC002", "there is no item nix in collection default"),
        ("similar('nix', of_collection => 'nix')", "PC002", "no item nix in collection nix"),
        ("similar(NULL)", "PC002", "there is no item"),
        ("duplicates_of('nix')", "PC002", "there is no item nix in collection default"),
        ("search_vector(pgclip.item_embedding('nix', 'x'))", "PC002", "no item nix in collection"),
        ("search(NULL)", "PC001", "a query is either a text or an image"),
        ("search('')", "PC001", "the query is blank"),
        ("search('never')", "PC003", "not there yet"),
        ("search_image('')", "PC001", "the query is blank"),
        ("hybrid('asked', k => 0)", "PC001", "k must be at least 1"),
        ("hybrid('asked', k => -1)", "PC001", "k must be at least 1"),
        ("hybrid('asked', k => NULL)", "PC001", "k must be at least 1"),
        ("hybrid('asked', k => 10001)", "PC001", "depth"),
        ("hybrid('asked', depth => 5)", "PC001", "depth"),
        ("hybrid('asked', depth => 10001)", "PC001", "depth"),
        ("hybrid('asked', collection => 'nix')", "PC002", "no collection named nix"),
        ("hybrid('asked', filter => '[]')", "PC001", "a JSON object is needed"),
        ("hybrid('never')", "PC003", "not there yet"),
        ("search_vector('{0}', after_score => 0.5)", "PC001", "go together"),
        ("search_vector('{0}', after_item => 5)", "PC001", "go together"),
        ("search_vector('{0}', kind => 'video')", "22P02", "video"),
        ("duplicate_groups(neighbours => 0)", "PC001", "neighbours must be from 1 to 500"),
        ("duplicate_groups(neighbours => NULL)", "PC001", "neighbours must be from 1 to 500"),
        ("duplicate_groups(min_score => 0)", "PC001", "must hold"),
        ("duplicate_groups(min_score => 0.99, near => 0.97)", "PC001", "must hold"),
        ("duplicate_groups(min_score => 'NaN')", "PC001", "must hold"),
        ("duplicate_groups(near => 'NaN')", "PC001", "must hold"),
        ("duplicate_groups(near => 1.5)", "PC001", "must hold"),
        ("duplicate_groups('nix')", "PC002", "no collection named nix"),
        ("calibrate(29)", "PC001", "sample must be from 30 to 2000, not 29"),
        ("calibrate(NULL)", "PC001", "sample must be from 30 to 2000"),
        ("set_calibration('text', 'image', 'NaN', 10)", "PC001", "midpoint must be"),
        ("set_calibration('text', 'image', 0.3, 0)", "PC001", "slope positive"),
        ("set_calibration('text', 'image', 0.3, 'NaN')", "PC001", "slope positive"),
        ("index_metadata('$key')", "PC001", "only a field of the metadata"),
        ("index_metadata('')", "PC001", "is not a path"),
        ("index_metadata('a..b')", "PC001", "is not a path"),
        ("configure_text_search(fields => ARRAY['a..b'])", "PC001", "is not a path"),
        ("configure_text_search('nix')", "42704", "nix"),
    ],
)
def test_calls_that_make_no_sense(planted: Planted, call: str, state: str, message: str) -> None:
    call = call.replace("{0}", str(UNIT))
    with pytest.raises(psycopg2.Error, match=message) as caught:
        planted.sql(f"SELECT * FROM pgclip.{call}")
    assert caught.value.pgcode == state


def test_calls_of_the_client_that_make_no_sense(planted: Planted) -> None:
    client = planted.client
    cases: list[tuple[type[PgclipError], str, Callable[[], object]]] = [
        (NotFound, "no item nix in collection default", lambda: client.search(like="nix")),
        (NotFound, "no item nix", lambda: client.search(like=Like("nix", NASTY[0]))),
        (NotFound, "no item nix", lambda: client.search([(Like("nix"), 1.0)])),
        (NotFound, "no item nix", lambda: client.duplicates_of("nix")),
        (NotFound, "no collection", lambda: client.hybrid("asked", collection="nix")),
        (NotFound, "no collection", lambda: client.duplicate_groups(collection="nix")),
        (InvalidItem, "NUL", lambda: client.search(like="a\0")),
        (InvalidItem, "NUL", lambda: client.search_vector(UNIT, collection="a\0")),
        (InvalidItem, "must be at least 1", lambda: client.hybrid("asked", k=0)),
        (InvalidItem, "blank", lambda: client.hybrid("\u3000")),
        (InvalidItem, "must hold", lambda: client.duplicate_groups(min_score=float("nan"))),
        (InvalidItem, "neighbours", lambda: client.duplicate_groups(neighbours=501)),
        (InvalidItem, "sample", lambda: client.calibrate(sample=1)),
        (InvalidItem, "only a field", lambda: client.index_metadata("$created_at")),
        (InvalidItem, "not a path", lambda: client.configure_text_search(fields=["."])),
        (InvalidItem, "video", lambda: client.search_vector(UNIT, kind="video")),  # type: ignore[arg-type]
        (InvalidItem, "midpoint", lambda: client.set_calibration(
            "text", "image", midpoint=2.0, slope=1.0)),
    ]  # fmt: skip
    for error, message, call in cases:
        with pytest.raises(error, match=message):
            call()


def test_an_unknown_language_of_words_is_invalid(planted: Planted) -> None:
    with pytest.raises(InvalidItem, match="klingon"):
        planted.client.configure_text_search(language="klingon")
