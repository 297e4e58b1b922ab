"""Everything works behind a pooler in transaction mode, and leaves nothing in its sessions."""

import json
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from support.clusters import Cluster, place
from support.commands import pgclip, urls
from support.databases import assert_ledger_is_true, run_sql
from support.planted_worker import vector_of
from support.pooler import Pooler, open_folder, start_pooler
from support.processes import WorkerFactory, eventually

from pgclip import Client
from pgclip.local import LocalServices
from pgclip.migrate import migrate

Sql = Callable[..., list[Any]]
# But for who is connected, and for those of the extension, which are there once it is used.
SETTINGS = """
    SELECT name, setting FROM pg_settings
    WHERE name <> 'application_name' AND (name NOT LIKE '%.%' OR source <> 'default') ORDER BY 1
"""


def foreign_settings(pooler: Pooler, url: str, count: int = 6) -> list[Any]:
    """What sessions of the pool say to another application, several at once."""
    connections = [psycopg2.connect(pooler.through(url)) for _ in range(2)]
    found = []
    try:
        for _ in range(count):
            for connection in connections:  # both in a transaction: both sessions of the pool
                with connection.cursor() as cursor:
                    cursor.execute(SETTINGS)
                    found.append(cursor.fetchall())
            for connection in connections:
                connection.rollback()
    finally:
        for connection in connections:
            connection.close()
    return found


@pytest.fixture
def pooled(pooled_url: str, services: LocalServices, start_worker: WorkerFactory) -> Any:
    """A client and a worker, both through the pooler."""
    start_worker(pooled_url)
    with Client(database_url=pooled_url, redis_url=services.redis_url) as client:
        yield client


@pytest.mark.parametrize(
    "transactions", [200, pytest.param(10_000, marks=[pytest.mark.long, pytest.mark.timeout(600)])]
)
def test_nothing_of_ours_stays_in_a_session(
    pooled: Client, pooler: Pooler, database_url: str, transactions: int
) -> None:
    before = foreign_settings(pooler, database_url)
    assert [set(each) ^ set(before[0]) for each in before if each != before[0]] == []
    batch = pooled.submit_many({"text": f"text {n}", "key": f"k{n}"} for n in range(2000))
    for number in range(transactions):
        pooled.submit_text(f"text {number} anew", key=f"k{number}")
    batch.wait(60)
    pooled.search("text 7", k=3)
    pooled.search(like="k9", k=3)
    pooled.hybrid("text 8", k=3)
    pooled.delete_items(keys=["k1", "k2"])
    eventually(lambda: pooled.count()["queued"] == 0)
    for each in foreign_settings(pooler, database_url):
        assert set(each) ^ set(before[0]) == set()
    listening = "SELECT count(*) FROM pg_listening_channels()"
    with psycopg2.connect(pooler.through(database_url)) as other, other.cursor() as cursor:
        cursor.execute(listening)
        assert cursor.fetchall() == [(0,)]


def test_a_crash_of_postgres_loses_nothing_that_was_accepted(
    services: LocalServices, tmp_path: Path
) -> None:
    """Though others have left synchronous_commit off, in the sessions and for the database."""
    folder = place(tmp_path / "crash")
    # Nothing reaches the disk by itself.
    lazy = ("wal_writer_delay=10s", "wal_writer_flush_after=1GB", "synchronous_commit=off")
    server = Cluster(folder / "data").create().start(*lazy)
    with open_folder() as readable:
        pooler = start_pooler(server.url(), readable)
        try:
            migrate(server.url())
            run_sql(server.url(), "SELECT pgclip.register_model('m', 4, 10, '{\"fatal\": {}}')")
            run_sql(server.url(), "CREATE TABLE public.others (n int)")
            run_sql(server.url(), "SET synchronous_commit = on; CHECKPOINT")
            with Client(database_url=pooler.through(server.url()),
                        redis_url=services.redis_url) as client:  # fmt: skip
                accepted = [client.submit_text(f"text {n}", key=f"k{n}").key for n in range(800)]
                batch = [{"text": f"more {n}", "key": f"m{n}"} for n in range(200)]
                client.submit_many(batch)
                client.delete("k0")
            run_sql(server.url(), "INSERT INTO public.others VALUES (1)")
            server.stop(signal.SIGQUIT)
            server.start()
            there = {key for (key,) in run_sql(server.url(), "SELECT key FROM pgclip.item")}
            assert {*accepted[1:], *(each["key"] for each in batch)} - there == set()
            assert "k0" not in there
            # So that it is known that something could have been lost.
            assert run_sql(server.url(), "SELECT n FROM public.others") == []
        finally:
            pooler.stop()
            server.stop()


def test_it_is_known_that_sessions_are_shared(pooled: Client, client: Client) -> None:
    assert pooled._database.shares_sessions()
    assert not client._database.shares_sessions()


def test_the_doctor_names_it(pooled: Client, client: Client, database_url: str) -> None:
    def pooler_of(given: Client, **environ: str) -> str | None:
        found = json.loads(pgclip("doctor", "--json", **urls(given), **environ).stdout)
        return next((each["state"] for each in found if each["what"] == "pooler"), None)

    assert pooler_of(pooled) == "warning"
    assert pooler_of(pooled, PGCLIP_DIRECT_URL=database_url) == "ok"
    assert pooler_of(client) is None


def test_the_whole_story(pooled: Client, database_url: str) -> None:
    pooled.submit_text("one", key="a").wait(30)
    assert pooled.search("one", k=1)[0].key == "a"
    pooled.submit_image(b"no picture", key="broken")
    eventually(lambda: pooled.get("broken").state == "failed")
    large = b"\xff" * 200_000
    pooled.submit_image(large, key="large")
    eventually(lambda: pooled.get("large").state == "failed")
    assert pooled.retry(reason="not_an_image") == 2
    eventually(lambda: pooled.count()["failed"] == 2)
    assert [hit.key for hit in pooled.search_vector(vector_of(b"one"), k=1)] == ["a"]
    assert_ledger_is_true(database_url)


def test_waiting_ends_soon_after_the_work(pooled: Client, sql: Sql) -> None:
    """`wait` looks rather than listens; where nobody can listen, it used to take three seconds."""
    waited = []
    for number in range(5):
        job = pooled.submit_text(f"soon {number}", key=f"soon-{number}")
        job.wait(30)
        ended = sql("SELECT extract(epoch FROM clock_timestamp() - stored_at)::float"
                    " FROM pgclip.items WHERE key = %s", f"soon-{number}")  # fmt: skip
        waited.append(ended[0][0])
    assert min(waited) < 0.5
    assert sorted(waited)[len(waited) // 2] < 1.5


def test_eight_new_queries_at_once(pooled: Client) -> None:
    pooled.submit_text("one", key="a").wait(30)
    failures: list[Exception] = []

    def ask(number: int) -> None:
        try:
            assert pooled.search(f"a new query {number}", k=1)[0].key == "a"
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []


def test_a_frozen_worker_lets_go_of_its_locks(
    pooled_url: str, database_url: str, client: Client, start_worker: WorkerFactory, sql: Sql
) -> None:
    worker = start_worker(pooled_url, PLANTED_PACE="0.005")
    client.submit_many({"text": f"text {n}", "key": f"k{n}"} for n in range(500))
    eventually(lambda: sql("SELECT count(*) FROM pgclip.job WHERE lease IS NOT NULL") > [(0,)])
    worker.kill(signal.SIGSTOP)
    start_worker(pooled_url)
    eventually(lambda: client.count()["done"] == 500, 60)
    worker.kill(signal.SIGCONT)
    assert_ledger_is_true(database_url)


def test_acceptance_is_durable_in_a_session_that_is_not(sql: Sql) -> None:
    """Whoever had the session before may have left synchronous_commit off."""
    for statement in (
        "SELECT pgclip.submit_text('a', key => 'a')",
        "SELECT * FROM pgclip.submit_batch(ARRAY['text'], ARRAY['b'], ARRAY['b'::bytea],"
        " ARRAY[NULL], ARRAY['default'], ARRAY['{}'], ARRAY[1], ARRAY[true])",
        "SELECT pgclip.delete('a')",
        "SELECT pgclip.delete_items(keys => ARRAY['b'])",
        "SELECT pgclip.retry()",
        "SELECT pgclip.cancel()",
    ):
        for before, after in (("off", "on"), ("local", "local"), ("remote_apply", "remote_apply")):
            sql("BEGIN")
            sql("SELECT set_config('synchronous_commit', %s, true)", before)
            sql(statement)
            assert sql("SHOW synchronous_commit") == [(after,)], (statement, before)
            sql("COMMIT")


def test_an_idle_worker_asks_little(
    pooled_url: str, start_worker: WorkerFactory, database_url: str
) -> None:
    start_worker(pooled_url, PGCLIP_HEARTBEAT="3", PGCLIP_LEASE="20", PGCLIP_STEWARD_INTERVAL="5",
                 PGCLIP_IDLE_POLL="1")  # fmt: skip
    count = (
        "SELECT xact_commit + xact_rollback FROM pg_stat_database"
        " WHERE datname = current_database()"
    )
    time.sleep(5)  # what it asked for at its start is counted with a delay
    before, begin = run_sql(database_url, count)[0][0], time.monotonic()
    time.sleep(10)
    rate = (run_sql(database_url, count)[0][0] - before) / (time.monotonic() - begin)
    assert rate < 20, rate
