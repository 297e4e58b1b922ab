"""A model is added, filled, promoted and the one before dropped, with real workers at work."""

from collections.abc import Callable
from typing import Any

import psycopg2
import redis
from support.databases import assert_ledger_is_true
from support.processes import WorkerFactory, eventually

from pgclip import Client
from pgclip.local import LocalServices

Sql = Callable[..., list[Any]]


def test_a_model_comes_and_another_goes(
    client: Client, sql: Sql, database_url: str, services: LocalServices,
    start_worker: WorkerFactory,
) -> None:  # fmt: skip
    first = start_worker(database_url)
    client.submit_many({"text": f"text {n}", "key": f"k{n}"} for n in range(200)).wait(60)
    ((queue,),) = sql("SELECT unnest(pgclip.ticket_queues())")
    user = psycopg2.connect(database_url)
    user.cursor().execute("SELECT pgclip.submit_text('of an open transaction', key => 'open')")
    sql("SELECT pgclip.add_model('other')")
    second = start_worker(database_url, PGCLIP_MODEL_NAME="other")
    client.submit_text("meanwhile", key="meanwhile").wait(30)
    filled = "SELECT items FROM pgclip.models WHERE name = 'other'"
    eventually(lambda: sql(filled) == [(201,)])
    assert sql("SELECT count(*) FROM pgclip.model_walk") == [(1,)]  # it waits for that one
    user.commit()
    user.close()
    eventually(lambda: sql(filled) == [(202,)])
    eventually(lambda: sql("SELECT count(*) FROM pgclip.model_walk") == [(0,)])
    eventually(lambda: client.count()["done"] == 202)
    server = redis.Redis.from_url(services.redis_url)
    assert server.keys(f"pgclip:*{queue}*")
    sql("SELECT pgclip.promote_model('other')")  # from now on that queue may go
    assert client.search("text 7", k=1)[0].key == "k7"
    sql("SELECT pgclip.drop_model('planted')")
    assert first.wait(30) == 75
    assert "retired or gone" in first.log.read_text()
    eventually(lambda: sql("SELECT name, state FROM pgclip.models") == [("other", "live")])
    assert sql("SELECT DISTINCT model_id FROM pgclip.embedding_set") == [(2,)]
    assert server.keys(f"pgclip:*{queue}*") == []
    # What a worker gives back that ended later than its model goes as well.
    server.rpush(f"pgclip:{queue}", "a ticket", "another")
    eventually(lambda: server.keys(f"pgclip:*{queue}*") == [])
    client.submit_text("after", key="after").wait(30)
    assert second.process.poll() is None
    assert_ledger_is_true(database_url)
