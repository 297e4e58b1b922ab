"""Input that makes no sense or means harm, and filters against an oracle; on planted vectors."""

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import psycopg2
import pytest

from pgclip import Client, InvalidItem, NotFound, PgclipError, QueryFailed
from pgclip.local import LocalServices
from pgclip.searching import Like

Sql = Callable[..., list[Any]]
ERRORS = {"PC001": InvalidItem, "PC002": NotFound, "PC003": QueryFailed, "PC005": QueryFailed}
UNIT = [1.0] + [0.0] * 7
# Each is a key, a collection, a field of the metadata, a value and a label.
NASTY = [
    "a'); DROP TABLE pgclip.item; --", '"; DROP TABLE pgclip.item; --', "'", "''", '"', "\\", "\\'",
    "\\\\'; --", "it's", "100%", "%s %I %L %%", "%1$s", "100$", "a $1 $2 $3 b", "a $$ b",
    "a $q$ b", "E'\\x41'", "{}", "{a,b}", "[1]", "null", "NULL", "a::jsonb", ":name", "%(name)s",
    "?| @> #>", "/* a */", "-- a", " ", "a\tb\nc", "ünïcödé 🐘", "ﷺ", "a' OR '1' = '1",
]  # fmt: skip


@dataclass(frozen=True)
class Planted:
    sql: Sql
    client: Client


def in_autocommit(connection: Any) -> Sql:
    connection.autocommit = True

    def sql(statement: str, *arguments: Any) -> list[Any]:
        with connection.cursor() as cursor:
            cursor.execute(statement, arguments or None)
            return cursor.fetchall() if cursor.description else []

    return sql


def plant(sql: Sql, items: Sequence[Mapping[str, Any]]) -> None:
    """Items with their vectors, stored as a worker would; texts unless kind says otherwise."""
    sql("SELECT pgclip.register_model('m', 8, 10, '{\"fatal\": {}}')")
    for item in items:
        about = (item.get("collection", "default"), json.dumps(item.get("metadata", {})))
        if item.get("kind") == "image":
            data = item["key"].encode()
            sql("SELECT pgclip.submit_image(%s, %s, NULL, %s, %s)", item["key"], data, *about)
        else:
            body = item.get("text", item["key"].strip() or "blank")
            sql("SELECT pgclip.submit_text(%s, %s, %s, %s)", body, item["key"], *about)
    (worker,) = sql("SELECT pgclip.sign_on(1::smallint, 'h', 1, 'cpu', 'f', 64, 60)")[0]
    lease = "00000000-0000-0000-0000-000000000001"
    jobs = sql("SELECT * FROM pgclip.claim(%s, %s, 5000, 100000000)", worker, lease)
    assert len(jobs) == len(items)
    vectors = {(item.get("collection", "default"), item["key"]): item["vector"] for item in items}
    named = {
        job: (collection, key)
        for job, collection, key in sql(
            "SELECT j.id, c.name, i.key FROM pgclip.job j JOIN pgclip.item i ON i.id = j.item_id"
            " JOIN pgclip.collection c ON c.id = i.collection_id"
        )
    }
    sql("SELECT pgclip.open_results()")
    sql(
        "BEGIN; INSERT INTO pg_temp.staged_vector SELECT unnest(%s), unnest(%s)::halfvec;"
        "SELECT pgclip.store(%s, (SELECT epoch FROM pgclip.label_epoch), %s, %s, '[]'); COMMIT",
        [job[0] for job in jobs], [str(list(vectors[named[job[0]]])) for job in jobs], lease,
        [job[0] for job in jobs], [bytes(job[5]) for job in jobs],
    )  # fmt: skip


def nested(path: str, value: Any) -> dict[str, Any]:
    for part in reversed(path.split(".")):
        value = {part: value}
    return dict(value)


def random_units(count: int, seed: int = 1) -> list[list[float]]:
    values = np.random.default_rng(seed).standard_normal((count, 8))
    return [[float(x) for x in row] for row in values / np.linalg.norm(values, axis=1)[:, None]]


@pytest.fixture(scope="module")
def planted(services: LocalServices, new_database: Callable[[], str]) -> Iterator[Planted]:
    """An item for each nasty string, in a collection of that name. Tests leave it as it is."""
    url = new_database()
    connection = psycopg2.connect(url)
    sql = in_autocommit(connection)
    items = [
        {
            "key": nasty,
            "collection": nasty,
            "vector": vector,
            "metadata": {
                "value": nasty,
                "list": ["x", nasty],
                "deep": {"value": {"in": nasty}},
                "of": nested(nasty, 1),
            },
        }
        for nasty, vector in zip(NASTY, random_units(len(NASTY)), strict=True)
    ]
    plant(sql, items)
    sql("SELECT pgclip.define_label_set(%s, %s)", NASTY[0], NASTY)
    sql("INSERT INTO pgclip.item_label (item_id, model_id, label_id, version, score)"
        " SELECT i.id, 1, l.id, 1, 0.5 FROM pgclip.item i JOIN pgclip.label l ON l.name = i.key"
        " WHERE i.key = ANY(%s)", NASTY)  # fmt: skip
    sql("SELECT pgclip.request_embedding('asked')")
    sql("SELECT pgclip.answer_query(1::smallint, 'text', sha256('asked'), %s)", UNIT)
    with Client(database_url=url, redis_url=services.redis_url) as client:
        yield Planted(sql, client)
    connection.close()


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
    for value in ({1, 2}, float("nan"), float("inf"), datetime.now(), b"x", "a\0b", "\ud800"):
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
        (b"asked", "weighted queries are pairs|a query is a str"),
        ([(5, 1.0)], "an image is bytes|a query is a str"),
        ([("", 1.0)], "the query is empty"),
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
        ("search('')", "PC001", "the query is empty"),
        ("search('never')", "PC003", "not there yet"),
        ("search_image('')", "PC001", "the query is empty"),
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
        (InvalidItem, "empty", lambda: client.hybrid(" ")),
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


# --- The language of filters against an oracle --------------------------------------------------

MISSING = object()
NOW = datetime(2026, 3, 1, tzinfo=UTC)
# Their order is the same in every collation.
STRINGS = ["a", "b", "c", "d'e", "f\\g", "h%i", "k $1 l", "m $$ n", "x", "ж", "10"]
FIELDS = ["p", "q", "r.s", "r.t.u", "it's", "odd \\ % field"]
LABELS = ["one", "two", "it's three"]


@dataclass(frozen=True)
class Item:
    """An item as the oracle sees it."""

    id: int
    key: str
    source: str | None
    metadata: dict[str, Any]
    created_at: datetime
    labels: dict[str, float]


def same(a: Any, b: Any) -> bool:
    """Equality of JSON: 1 is 1.0 but not true."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return (type(a) is type(b) or (is_number(a) and is_number(b))) and bool(a == b)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def holds(a: Any, b: Any) -> bool:
    """Containment in Postgres' sense."""
    if isinstance(a, dict) and isinstance(b, dict):
        return all(key in a and holds(a[key], b[key]) for key in b)
    if isinstance(a, list) and isinstance(b, list):
        return all(any(holds(x, y) for x in a) for y in b)
    return not isinstance(b, list | dict) and same(a, b)


def at(metadata: Any, path: str) -> Any:
    for part in path.split("."):
        if not isinstance(metadata, dict) or part not in metadata:
            return MISSING
        metadata = metadata[part]
    return metadata


def compares(operator: str, a: Any, b: Any) -> bool:
    return {"lt": a < b, "le": a <= b, "gt": a > b, "ge": a >= b}[operator]


def of_value(value: Any, operator: str, given: Any) -> bool:
    """Whether a value of the metadata, or MISSING, is what an operator asks for."""
    if operator == "exists":
        return (value is not MISSING) == given
    if operator in ("ne", "not_in"):
        return not of_value(value, {"ne": "eq", "not_in": "in"}[operator], given)
    if value is MISSING:
        return False
    if operator == "eq":
        return same(value, given)
    if operator == "in":
        return any(same(value, one) for one in given)
    if operator == "contains":
        return isinstance(value, list) and holds(
            value, given if isinstance(given, list) else [given]
        )
    if is_number(given):
        return is_number(value) and compares(operator, value, given)
    return isinstance(value, str) and compares(operator, value, given)


def of_text(value: str | None, operator: str, given: Any) -> bool:
    if operator in ("ne", "not_in"):
        return not of_text(value, {"ne": "eq", "not_in": "in"}[operator], given)
    if value is None:
        return False
    if operator == "starts_with":
        return value.startswith(given)
    return value == given if operator == "eq" else value in given


def of_time(value: datetime, operator: str, given: str) -> bool:
    return compares(operator, value, datetime.fromisoformat(given))


def matches(item: Item, filter: dict[str, Any]) -> bool:
    return all(member_matches(item, field, value) for field, value in filter.items())


def member_matches(item: Item, field: str, value: Any) -> bool:
    if field == "$not":
        return not matches(item, value)
    if field in ("$and", "$or"):
        return (all if field == "$and" else any)(matches(item, one) for one in value)
    if field == "$label":
        wanted = value if isinstance(value, dict) else {"name": value}
        score = item.labels.get(wanted["name"])
        return score is not None and score >= wanted.get("min_score", 0)
    operators = value if isinstance(value, dict) else {"eq": value}
    for operator, given in operators.items():
        if field == "$created_at":
            fits = of_time(item.created_at, operator, given)
        elif field in ("$key", "$source"):
            fits = of_text(item.key if field == "$key" else item.source, operator, given)
        else:
            fits = of_value(at(item.metadata, field), operator, given)
        if not fits:
            return False
    return True


def random_scalar(chance: random.Random) -> Any:
    return chance.choice([
        None, True, False, chance.randint(-3, 5), chance.randint(-3, 5), chance.randint(-6, 10) / 2,
        chance.choice(STRINGS), chance.choice(STRINGS),
    ])  # fmt: skip


def random_value(chance: random.Random, depth: int = 2) -> Any:
    kind = chance.random()
    if depth and kind < 0.2:
        return [random_value(chance, depth - 1) for _ in range(chance.randint(0, 3))]
    if depth and kind < 0.3:
        names = chance.sample(["s", "t", "u", "it's"], chance.randint(0, 2))
        return {name: random_value(chance, depth - 1) for name in names}
    return random_scalar(chance)


def merged(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    out = dict(a)
    for key, value in b.items():
        old = out.get(key)
        out[key] = (
            merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
        )
    return out


def random_metadata(chance: random.Random) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for field in FIELDS:
        if chance.random() < 0.7:
            metadata = merged(metadata, nested(field, random_value(chance)))
    return metadata


def random_operator(chance: random.Random) -> tuple[str, Any]:
    operator = chance.choice(
        ["eq", "ne", "lt", "le", "gt", "ge", "in", "not_in", "contains", "exists"]
    )
    if operator in ("lt", "le", "gt", "ge"):
        return operator, chance.choice([chance.randint(-3, 5), 1.5, chance.choice(STRINGS)])
    if operator in ("in", "not_in"):
        return operator, [random_value(chance) for _ in range(chance.randint(1, 5))]
    if operator == "exists":
        return operator, chance.random() < 0.5
    return operator, random_value(chance)


def random_member(chance: random.Random, depth: int) -> tuple[str, Any]:
    kind = chance.random()
    if depth and kind < 0.3:
        name = chance.choice(["$and", "$or", "$not"])
        if name == "$not":
            return name, random_filter(chance, depth - 1)
        return name, [random_filter(chance, depth - 1) for _ in range(chance.randint(1, 3))]
    if kind < 0.4:
        operator = chance.choice(["eq", "ne", "in", "not_in", "starts_with"])
        text = chance.choice(STRINGS)
        given = [text, chance.choice(STRINGS)] if operator in ("in", "not_in") else text
        if chance.random() < 0.5:
            return "$key", {operator: given}
        files = (
            [f"file:///{one}" for one in given] if isinstance(given, list) else f"file:///{given}"
        )
        return "$source", {operator: files}
    if kind < 0.5:
        name = chance.choice(LABELS)
        scored = {"name": name, "set": "mine", "min_score": chance.randint(0, 8) / 8}
        return "$label", chance.choice([name, scored])
    if kind < 0.6:
        when = NOW - timedelta(days=chance.randint(0, 100), hours=chance.choice([0, 1]))
        return "$created_at", {chance.choice(["lt", "le", "gt", "ge"]): when.isoformat()}
    field = chance.choice(FIELDS)
    if chance.random() < 0.3:
        return field, random_scalar(chance)
    return field, dict(random_operator(chance) for _ in range(chance.choice([1, 1, 1, 2])))


def random_filter(chance: random.Random, depth: int = 3) -> dict[str, Any]:
    return dict(random_member(chance, depth) for _ in range(chance.choice([1, 1, 2, 3])))


@pytest.fixture(scope="module")
def stock(new_database: Callable[[], str]) -> Iterator[tuple[Any, list[Item]]]:
    """Two hundred items with random metadata, times, sources and labels."""
    connection = psycopg2.connect(new_database())
    sql = in_autocommit(connection)
    chance = random.Random(7)
    sql("SELECT pgclip.register_model('m', 8, 10, '{\"fatal\": {}}')")
    sql("SELECT pgclip.define_label_set('mine', %s)", LABELS)
    items = []
    for n in range(200):
        key = f"{chance.choice(STRINGS)}{n if n >= len(STRINGS) else ''}"
        key = STRINGS[n] if n < len(STRINGS) else key
        source = f"file:///{chance.choice(STRINGS)}" if chance.random() < 0.5 else None
        data = None if source else key.encode()
        metadata = random_metadata(chance)
        ((item,),) = sql(
            "SELECT item_id FROM pgclip.submit_image(%s, %s, %s, metadata => %s)",
            key, data, source, json.dumps(metadata),
        )  # fmt: skip
        created = NOW - timedelta(days=chance.randint(0, 100))
        sql("UPDATE pgclip.item SET created_at = %s WHERE id = %s", created, item)
        labels = {name: chance.randint(0, 8) / 8 for name in LABELS if chance.random() < 0.4}
        sql(
            "INSERT INTO pgclip.item_label (item_id, model_id, label_id, version, score)"
            " SELECT %s, 1, l.id, 1, s.score FROM unnest(%s::text[], %s::real[]) s(name, score)"
            " JOIN pgclip.label l USING (name) JOIN pgclip.label_set t ON t.id = l.set_id"
            " WHERE t.name = 'mine'",
            item, list(labels), list(labels.values()),
        )  # fmt: skip
        items.append(Item(item, key, source, metadata, created, labels))
    for field in ("p", "r.s"):
        sql("SELECT pgclip.index_metadata(%s)", field)
    yield connection, items
    connection.close()


@pytest.mark.parametrize("seed", range(20))
def test_random_filters_agree_with_the_oracle(stock: tuple[Any, list[Item]], seed: int) -> None:
    connection, items = stock
    chance = random.Random(seed)
    telling = 0
    with connection.cursor() as cursor:
        for number in range(60):
            filter = random_filter(chance)
            expected = {item.id for item in items if matches(item, filter)}
            telling += 0 < len(expected) < len(items)
            for each in (False, True):
                given = (json.dumps(filter), each)
                cursor.execute("SELECT pgclip._condition(%s, 1::smallint, %s)", given)
                ((condition,),) = cursor.fetchall()
                # With and without the indexes.
                cursor.execute(f"SET enable_seqscan = {'off' if number % 2 else 'on'}")
                cursor.execute(f"SELECT i.id FROM pgclip.item i WHERE {condition}")
                assert {item for (item,) in cursor.fetchall()} == expected, (filter, each)
    assert telling > 10
