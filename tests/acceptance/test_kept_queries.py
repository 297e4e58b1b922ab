"""What is kept of queries: their vectors; what was asked only where that is wanted."""

from collections.abc import Callable
from typing import Any

from support.processes import WorkerFactory, eventually

from pgclip import Client

Sql = Callable[..., list[Any]]
KEPT = "SELECT convert_from(data, 'UTF8') FROM pgclip.kept_query ORDER BY 1"
VECTORS = "SELECT count(*) FROM pgclip.query_vector"


def test_texts_are_not_kept_unless_that_is_wanted(
    client: Client, sql: Sql, database_url: str, start_worker: WorkerFactory
) -> None:
    worker = start_worker(database_url)
    client.submit_text("one", key="a").wait(30)
    client.search("what somebody asks")
    assert sql(VECTORS) == [(1,)]
    assert sql(KEPT) == []
    worker.process.terminate()
    worker.wait()
    worker = start_worker(database_url, PGCLIP_KEEP_QUERIES="2")
    for text in ("first", "second", "third"):
        client.search(text)
    eventually(lambda: sql(KEPT) == [("second",), ("third",)])
    assert sql(VECTORS) == [(4,)]
    sql("UPDATE pgclip.kept_query SET asked_at = asked_at - interval '31 days'"
        " WHERE data = 'second'")  # fmt: skip
    eventually(lambda: sql(KEPT) == [("third",)])
    assert client.forget_queries() == 4
    assert sql(KEPT) == []
    assert sql(VECTORS) == [(0,)]
    client.search("third")
    assert sql(KEPT) == [("third",)]
    worker.process.terminate()
    worker.wait()
    start_worker(database_url)  # one that keeps nothing
    eventually(lambda: sql(KEPT) == [])
