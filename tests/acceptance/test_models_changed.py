"""A model is changed, and changed back, while others write, search and delete, and workers die."""

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from support.databases import assert_ledger_is_true
from support.processes import PLANTED, WorkerFactory, eventually

from pgclip import Client, ModelMismatch
from pgclip.local import LocalServices

Sql = Callable[..., list[Any]]
NEW = {"PGCLIP_MODEL_NAME": "new", "PLANTED_TURN": "near", "PGCLIP_KEEP_QUERIES": "100"}
LACKING = """
    SELECT count(*) FROM pgclip.item i, pgclip.model m WHERE m.state <> 'retired'
    AND NOT EXISTS (SELECT FROM pgclip.embedding_set e WHERE e.item_id = i.id
                    AND e.model_id = m.id AND e.generation = i.generation)
"""


class Load:
    """Others, until they are told to stop. `keys`: what they have submitted and not deleted."""

    def __init__(self, url: str, redis_url: str) -> None:
        self.keys: set[str] = set()
        self.searches = 0
        self._given = {"database_url": url, "redis_url": redis_url}
        self._stopping = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        with ThreadPoolExecutor() as pool:
            at_work: list[Future[None]] = [
                pool.submit(work, n)
                for n, work in enumerate((self._write, self._search, self._search, self._search))
            ]
            try:
                yield
            finally:
                self._stopping.set()
            for each in at_work:
                each.result()

    def _write(self, number: int) -> None:
        chance = random.Random(number)
        with Client(**self._given) as client:
            for n in count():
                if self._stopping.wait(0.01):
                    return
                key = f"load {n}"
                client.submit_text(f"text of {key}", key=key)
                self.keys.add(key)
                other = chance.choice(sorted(self.keys))
                if n % 3 == 0:
                    client.submit_text(f"text {n} of {other}", key=other)
                elif n % 3 == 1:
                    client.delete(other)
                    self.keys.discard(other)

    def _search(self, number: int) -> None:
        chance = random.Random(number)
        with Client(**self._given) as client:
            for n in count():
                if self._stopping.is_set():
                    return
                asked = f"query {n} of {number}" if n % 5 == 0 else f"query {chance.randrange(20)}"
                assert client.search(asked, k=5, timeout=60)
                self.searches += 1


def test_changed_and_back_under_load(
    client: Client, sql: Sql, database_url: str, services: LocalServices,
    start_worker: WorkerFactory,
) -> None:  # fmt: skip
    old = start_worker(database_url, PGCLIP_KEEP_QUERIES="100")
    client.submit_many({"text": f"text {n}", "key": f"{n}"} for n in range(3000)).wait(60)
    user = psycopg2.connect(database_url)
    user.cursor().execute("SELECT pgclip.submit_text('of an open transaction', key => 'open')")
    load = Load(database_url, services.redis_url)
    with load.running():
        client.add_model("new", map_sample=300, map_bound=0.5)
        new = start_worker(database_url, **NEW)
        _promote_when_ready(client, "new")
        user.commit()  # since before it was added, until after it was promoted
        before = load.searches
        eventually(lambda: load.searches > before + 20)
        assert client.rollback_model().model == "planted"
        before = load.searches
        eventually(lambda: load.searches > before + 20)
        _promote_when_ready(client, "new")
        client.retire_model("planted", anyway=True)
        assert old.wait(30) == 75
        eventually(lambda: [m.state for m in client.models() if m.name == "planted"]
                   == ["retired"])  # fmt: skip
        before = load.searches
        eventually(lambda: load.searches > before + 20)
    user.close()
    eventually(lambda: sql(LACKING) == [(0,)])
    here = {key for (key,) in sql("SELECT key FROM pgclip.item")}
    assert here == load.keys | {f"{n}" for n in range(3000)} | {"open"}
    assert_ledger_is_true(database_url)
    assert sql("SELECT count(*) FROM pgclip.job") == [(0,)]
    assert "Traceback" not in new.log.read_text()
    client.drop_model("planted")
    eventually(lambda: sql("SELECT name FROM pgclip.model") == [("new",)])


def _promote_when_ready(client: Client, name: str) -> None:
    lacking: list[str] = []

    def ready() -> bool:
        lacking[:] = [each.detail for each in client.model_readiness(name) if not each.is_ready]
        return not lacking

    try:
        eventually(ready, 90)
    except AssertionError:
        raise AssertionError(lacking) from None
    client.promote_model(name)


def test_killed_at_whatever_it_was(
    client: Client, sql: Sql, database_url: str, start_worker: WorkerFactory
) -> None:
    start_worker(database_url)
    client.submit_many({"text": f"text {n}", "key": f"{n}"} for n in range(600)).wait(60)
    client.add_model("new", map_sample=200, map_bound=0.5)
    slow = {**NEW, "PLANTED_PACE": "0.003", "PGCLIP_BATCH_SIZE": "8"}
    chance = random.Random(1)
    for _ in range(5):
        worker = start_worker(database_url, **slow)
        threading.Event().wait(chance.uniform(0, 2))
        worker.kill()
        worker.wait()
    client.submit_text("meanwhile", key="meanwhile")
    start_worker(database_url, **slow)
    eventually(lambda: sql(LACKING) == [(0,)], 90)
    _promote_when_ready(client, "new")
    assert client.search("text 7", k=1)[0].key == "7"
    assert_ledger_is_true(database_url)


def test_whichever_is_live(
    client: Client, sql: Sql, database_url: str, start_worker: WorkerFactory
) -> None:
    refused = start_worker(database_url, ready=False, PGCLIP_MODEL="live")
    assert refused.wait(60) != 0
    assert "no live model yet" in refused.log.read_text()
    start_worker(database_url, PGCLIP_MODEL_NAME="first")
    follower = start_worker(database_url, PGCLIP_MODEL="live")
    assert "model first on" in follower.log.read_text()
    client.submit_text("a", key="a").wait(30)
    client.add_model("second")
    start_worker(database_url, PGCLIP_MODEL_NAME="second")
    _promote_when_ready(client, "second")
    client.retire_model("first")
    assert follower.wait(30) == 75
    assert "retired or gone" in follower.log.read_text()
    again = start_worker(database_url, PLANTED, PGCLIP_MODEL="live")
    assert "model second on" in again.log.read_text()


def test_what_a_person_sees(
    client: Client, database_url: str, services: LocalServices, start_worker: WorkerFactory
) -> None:
    from support.commands import pgclip

    given = {"PGCLIP_DATABASE_URL": database_url, "PGCLIP_REDIS_URL": services.redis_url}

    def told(*arguments: str, status: int = 0) -> str:
        run = pgclip("models", *arguments, **given)
        assert run.returncode == status, (run.stdout, run.stderr)
        return run.stdout + run.stderr

    assert "No model is there yet" in told()
    start_worker(database_url, PGCLIP_KEEP_QUERIES="10")
    client.submit_many({"text": f"text {n}", "key": f"{n}"} for n in range(50)).wait(60)
    client.search("a query")
    client.judge("general", "animal", "1")
    added = told("add", "new", "--yes", "--dimension", "24")
    assert "50 items: 0 images, 50 texts" in added
    assert "disk: about" in added
    assert "PGCLIP_MODEL=new pgclip worker" in added
    assert "no worker has brought it" in told()
    start_worker(database_url, **NEW)
    told("pause", "new")
    assert "filling, paused" in told()
    told("resume", "new")
    assert "100 a second" in told("pace", "new", "100")
    assert "all its workers can" in told("pace", "new", "0")
    eventually(lambda: all(each.is_ready for each in client.model_readiness("new")))
    asked = "1 queries that were asked, 19 stored items asked like"
    # Readiness waits for no query of the last minute.
    eventually(lambda: asked in told("compare", "new", "--queries", "20"))
    compared = told("compare", "new", "--queries", "20")
    assert "answers that stay" in compared
    assert "general: recall" in compared
    assert "is live" in told("promote", "new", "--keep", "1")
    assert "standby until" in told()
    assert "planted is live again" in told("rollback")
    assert "new is live" in told("promote", "new")
    assert "not standby or retired" in told("retire", "new", "--yes", status=1)
    told("retire", "planted", "--yes")
    eventually(lambda: "retired" in told())
    told("drop", "planted", "--yes")
    eventually(lambda: "planted" not in told())
    assert "is not there" in told("cancel", "planted", "--yes", status=1)
    assert '"seconds_left": null' in told("--json")


def test_a_disk_that_is_too_small_is_warned_of(
    client: Client, database_url: str, services: LocalServices, start_worker: WorkerFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    import shutil

    from support.commands import pgclip

    given = {"PGCLIP_DATABASE_URL": database_url, "PGCLIP_REDIS_URL": services.redis_url}
    start_worker(database_url)
    client.submit_many({"text": f"text {n}", "key": f"{n}"} for n in range(50)).wait(60)
    unseen = pgclip("models", "add", "new", "--yes", **given).stdout
    assert "can't be seen from here" in unseen
    assert "WARNING" not in unseen
    monkeypatch.setattr("pgclip.cli.models.disk._data_folder", lambda settings: Path("/"))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(9, 8, 1))
    assert "WARNING: 1 B are free there" in pgclip("models", "add", "b", "--yes", **given).stdout
    assert "WARNING: 1 B are free on the disk" in pgclip("models", **given).stdout


def test_nobody_is_found_where_nothing_is(client: Client, sql: Sql, model: None) -> None:
    for call in (client.promote_model, client.retire_model, client.cancel_model,
                 client.pause_model, client.model_readiness):  # fmt: skip
        with pytest.raises(ModelMismatch, match="model nobody is not there"):
            call("nobody")
    assert client.model_maps("nobody") == []
