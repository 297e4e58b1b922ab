"""An upgrade of the schema while everything runs: the version before goes on, and gives way."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.databases import assert_ledger_is_true, run_sql, with_database
from support.places import TESTS
from support.processes import PLANTED, WorkerFactory, eventually
from upgrades import filled

from pgclip import Client
from pgclip.database import SCHEMA_VERSION
from pgclip.local import LocalServices
from pgclip.migrate import migrate

BEFORE = f"{int(SCHEMA_VERSION) - 1:04}"
OLDER = [sys.executable, str(TESTS / "support" / "older.py"), BEFORE]


@pytest.fixture
def of_before(services: LocalServices) -> Iterator[str]:
    """A database with the schema of the version before, and nothing in it."""
    (name,) = run_sql(services.database_url, "SELECT 'before_' || left(md5(random()::text), 8)")[0]
    run_sql(services.database_url, f"CREATE DATABASE {name}")
    url = with_database(services.database_url, name)
    run_sql(url, "CREATE EXTENSION vector")
    filled.restore(url, BEFORE)
    segments = "SELECT tablename FROM pg_tables WHERE tablename ~ '^embedding_[0-9]'"
    for (table,) in run_sql(url, segments):
        run_sql(url, f"DROP TABLE pgclip.{table}")
    run_sql(url, "TRUNCATE pgclip.item, pgclip.model, pgclip.content, pgclip.segment,"
                 " pgclip.content_release, pgclip.item_label, pgclip.access CASCADE")  # fmt: skip
    return url


def test_nothing_is_refused_or_lost_while_the_schema_is_upgraded(
    of_before: str, services: LocalServices, start_worker: WorkerFactory, tmp_path: Path
) -> None:
    environ = {
        "PGCLIP_DATABASE_URL": of_before,
        "PGCLIP_REDIS_URL": services.redis_url,
        "PYTHONPATH": str(TESTS),
    }
    old = start_worker(of_before, [*OLDER, "worker"], PYTHONPATH=str(TESTS))
    stop, told = tmp_path / "stop", tmp_path / "told.jsonl"
    with told.open("ab") as output:
        loads = [
            subprocess.Popen(
                [*OLDER, "load", name, str(stop)],
                env={**os.environ, **environ},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            for name in ("a", "b")
        ]
    try:
        eventually(lambda: told.read_text().count("\n") > 60)
        before = told.read_text().count("\n")
        assert migrate(of_before)
        eventually(lambda: told.read_text().count("\n") > before + 60)
        assert old.process.poll() is None
        new = start_worker(of_before, PLANTED)
        old.process.terminate()
        assert old.wait() == 0
        between = told.read_text().count("\n")
        eventually(lambda: told.read_text().count("\n") > between + 60)
    finally:
        stop.touch()
        for load in loads:
            load.wait(60)
    lines: list[dict[str, Any]] = [json.loads(line) for line in told.read_text().splitlines()]
    assert [line for line in lines if "error" in line] == []
    with Client(database_url=of_before, redis_url=services.redis_url) as client:
        eventually(lambda: client.count()["queued"] + client.count()["leased"] == 0)
        keys = {line["key"] for line in lines if line["what"] == "delete"}
        assert client.count()["done"] >= 10 * len(keys)
        assert client.count()["failed"] == 0
        for key in keys:
            assert client.content(key) == f"text {key} anew".encode()
    assert_ledger_is_true(of_before)
    assert new.process.poll() is None


def test_a_worker_that_the_schema_answers_no_longer_gives_way(
    database_url: str, start_worker: WorkerFactory, client: Client
) -> None:
    worker = start_worker(database_url)
    batch = client.submit_many({"text": "sleep 1", "key": f"k{n}"} for n in range(3))
    client.submit_text("sleep 2", key="late")
    run_sql(database_url, "UPDATE pgclip.schema_version SET version_num = '9999'")
    run_sql(database_url, "CREATE OR REPLACE FUNCTION pgclip.serves() RETURNS text LANGUAGE sql"
                          " IMMUTABLE AS $$ SELECT '9999' $$")  # fmt: skip
    assert worker.wait() == 75
    log = worker.log.read_text()
    assert "newer than this package's" in log
    assert "Work goes back, and this worker ends" in log
    assert run_sql(database_url, "SELECT count(*) FROM pgclip.job WHERE lease IS NOT NULL") == [
        (0,)
    ]
    assert run_sql(database_url, "SELECT count(*) FROM pgclip.worker") == [(0,)]
    # Whoever starts it again is told so at once.
    again = start_worker(database_url, ready=False)
    assert again.wait() == 1
    assert "Upgrade the package" in again.log.read_text()
    del batch
