"""Databases of a test's own, and what must hold in them."""

from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg2

TALLIED = """
    SELECT what, model_id, collection_id, detail, sum(rows)::bigint FROM pgclip._tallies
    WHERE collection_id <> 0 GROUP BY 1, 2, 3, 4 HAVING sum(rows) <> 0
"""
THERE = "SELECT what, model_id, collection_id, detail, rows FROM pgclip._rows_there"
IN_ALL = """
    SELECT what, model_id, detail, sum(rows)::bigint FROM pgclip._tallies
    WHERE collection_id {} 0 GROUP BY 1, 2, 3 HAVING sum(rows) <> 0
"""
STATES = """
    SELECT c.name, v.state, v.items
    FROM pgclip.collections c CROSS JOIN LATERAL (VALUES
         ('queued', c.queued), ('leased', c.leased), ('done', c.done), ('failed', c.failed)
    ) v(state, items) WHERE v.items > 0
"""
COUNTED = "SELECT collection, state, count(*) FROM pgclip.items GROUP BY 1, 2"


def with_database(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def run_sql(url: str, statement: str, *arguments: Any) -> list[Any]:
    connection = psycopg2.connect(url)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement, arguments or None)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def assert_ledger_is_true(url: str) -> None:
    """The invariants of the promise: one current set of vectors per item, and nothing else."""
    (model,) = run_sql(url, "SELECT id FROM pgclip.model WHERE state = 'live'")[0]
    assert run_sql(url, "SELECT count(*) FROM pgclip.job") == [(0,)]
    (vectors,) = run_sql(url, "SELECT pgclip._vectors(%s::smallint)", model)[0]
    current = f"SELECT unnest(vector_ids) FROM pgclip.embedding_set WHERE model_id = {model}"
    assert run_sql(url, f"SELECT id FROM {vectors} v EXCEPT ALL {current}") == []
    assert run_sql(url, f"{current} EXCEPT ALL SELECT id FROM {vectors} v") == []
    unsettled = "SELECT key, state FROM pgclip.items WHERE state NOT IN ('done', 'failed')"
    assert run_sql(url, unsettled) == []
    assert_tallies_are_true(url)


def assert_tallies_are_true(url: str) -> None:
    """Of rows in each collection and in all, and of items in each state."""
    pairs = (TALLIED, THERE), (IN_ALL.format("="), IN_ALL.format("<>")), (STATES, COUNTED)
    for told, true in pairs:
        for one, other in (told, true), (true, told):
            assert run_sql(url, f"({one}) EXCEPT ({other})") == [], one
