"""Items with planted vectors, to search among without a model."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg2
import pytest

from pgclip import Client
from pgclip.local import LocalServices

Sql = Callable[..., list[Any]]
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


@pytest.fixture(scope="session")
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


# --- The language of filters against an oracle --------------------------------------------------

MISSING = object()


def at(metadata: Any, path: str) -> Any:
    for part in path.split("."):
        if not isinstance(metadata, dict) or part not in metadata:
            return MISSING
        metadata = metadata[part]
    return metadata
