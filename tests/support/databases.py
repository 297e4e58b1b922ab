"""Databases of a test's own, and what must hold in them."""

from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg2


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
