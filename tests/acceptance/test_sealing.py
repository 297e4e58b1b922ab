"""Workers seal what they store, one of them at a time."""

import signal

from support.databases import assert_ledger_is_true
from support.processes import WorkerFactory, eventually
from support.shelf import Sql

from pgclip import Client

SLEEPING = """
    SELECT count(*) FROM pg_stat_activity
    WHERE wait_event = 'PgSleep' AND datname = current_database()
"""


WORKER = {"PGCLIP_SEGMENT_ROWS": "200", "PGCLIP_STEWARD_INTERVAL": "0.2"}


def test_workers_seal_what_they_store_and_measure_what_is_found(
    client: Client, database_url: str, sql: Sql, start_worker: WorkerFactory
) -> None:
    for _ in range(2):
        start_worker(database_url, **WORKER)
    client.submit_many({"text": f"text {n}", "key": f"k{n}"} for n in range(1000)).wait(120)
    eventually(lambda: sql("SELECT count(*) FROM pgclip.segment WHERE state = 'sealed'") > [(0,)])
    assert client.search("text 77", k=1)[0].key == "k77"
    sql("UPDATE pgclip.segment SET created_at = now() - interval '20 s'")  # no burst any more
    measured = "SELECT count(*) FROM pgclip.recall WHERE queries > 0 AND recall > 0.9"
    eventually(lambda: sql(measured) > [(0,)])
    assert_ledger_is_true(database_url)


def test_a_frozen_worker_does_not_keep_others_from_building(
    client: Client, database_url: str, sql: Sql, start_worker: WorkerFactory
) -> None:
    frozen = start_worker(database_url, **WORKER)
    # It is frozen within a step, while its transaction holds the lock.
    sql("CREATE FUNCTION slowly() RETURNS event_trigger LANGUAGE plpgsql AS "
        "'BEGIN PERFORM pg_sleep(1); END'")  # fmt: skip
    sql("CREATE EVENT TRIGGER slowly ON ddl_command_end WHEN TAG IN ('CREATE INDEX') "
        "EXECUTE FUNCTION slowly()")  # fmt: skip
    batch = client.submit_many({"text": f"text {n}"} for n in range(300))
    eventually(lambda: sql(SLEEPING) == [(1,)])
    frozen.kill(signal.SIGSTOP)
    try:
        sql("DROP EVENT TRIGGER slowly")
        start_worker(database_url, **WORKER)
        sealed = "SELECT count(*) FROM pgclip.segment WHERE state = 'sealed'"
        eventually(lambda: sql(sealed) > [(0,)])
        batch.wait(60)
    finally:
        frozen.kill(signal.SIGCONT)
    assert_ledger_is_true(database_url)


def test_storing_waits_while_too_many_vectors_have_no_index(
    client: Client, database_url: str, sql: Sql, start_worker: WorkerFactory
) -> None:
    sql("SELECT pg_advisory_lock(731199448, 1)")  # nobody builds
    worker = start_worker(database_url, **WORKER, PGCLIP_MAX_UNINDEXED="400")
    batch = client.submit_many({"text": f"sleep 0.004 {n}"} for n in range(1500))
    eventually(lambda: "storing waits" in worker.log.read_text())
    client.submit_text("accepted all the same")
    assert client.count()["done"] < 1500
    sql("SELECT pg_advisory_unlock(731199448, 1)")
    batch.wait(120)
    assert_ledger_is_true(database_url)


def test_a_worker_stops_while_it_builds(
    client: Client, database_url: str, sql: Sql, start_worker: WorkerFactory
) -> None:
    worker = start_worker(database_url, **WORKER)
    sql("CREATE FUNCTION slowly() RETURNS event_trigger LANGUAGE plpgsql AS "
        "'BEGIN PERFORM pg_sleep(600); END'")  # fmt: skip
    sql("CREATE EVENT TRIGGER slowly ON ddl_command_end WHEN TAG IN ('CREATE INDEX') "
        "EXECUTE FUNCTION slowly()")  # fmt: skip
    client.submit_many({"text": f"text {n}"} for n in range(300)).wait(60)
    eventually(lambda: sql(SLEEPING) == [(1,)])
    worker.kill(signal.SIGTERM)
    assert worker.wait(20) == 0
    assert sql("SELECT count(*) FROM pgclip.segment WHERE state IN ('copied', 'built')") == [(0,)]
