"""Whether a worker is at work, told truthfully: health, status, and the watchdog within it."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from support.places import TESTS
from support.processes import WorkerFactory, eventually

from pgclip import Client
from pgclip.local import LocalServices
from pgclip.settings import Settings
from pgclip_workers.upkeep.watchdog import Watchdog

Sql = Callable[..., list[Any]]
CHAOS = TESTS / "chaos"


def health(database_url: str, *arguments: str) -> tuple[int, str]:
    """The command's exit status, and all that it says."""
    environ = {**os.environ, "PGCLIP_DATABASE_URL": database_url}
    command = [sys.executable, "-m", "pgclip", "health", *arguments]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def test_health_is_the_heartbeat(database_url: str, start_worker: WorkerFactory, sql: Sql) -> None:
    assert health(database_url) == (1, f"no worker runs on {socket.gethostname()}\n")
    worker = start_worker(database_url)
    assert health(database_url)[0] == health(database_url, "--restart")[0] == 0
    assert health(database_url.replace("postgresql://", "postgresql+psycopg2://"))[0] == 0
    # Frozen, its process runs and it is not alive all the same.
    worker.kill(signal.SIGSTOP)
    eventually(lambda: health(database_url)[0] == 1)
    code, told = health(database_url, "--restart")
    assert code == 1
    assert "lease has run out" in told or "no worker runs" in told
    worker.kill(signal.SIGCONT)
    eventually(lambda: health(database_url)[0] == 0)
    # Other containers' workers don't count, unless they are named.
    sql("UPDATE pgclip.worker SET host = 'elsewhere'")
    assert health(database_url)[0] == 1
    assert health(database_url, "--host", "elsewhere")[0] == 0
    assert health(database_url, "--host", "elsewhere", "--pid", str(worker.process.pid))[0] == 0
    assert health(database_url, "--host", "elsewhere", "--pid", "1")[0] == 1
    worker.kill(signal.SIGKILL)
    worker.wait()
    eventually(lambda: health(database_url, "--host", "elsewhere")[0] == 1)


def test_health_without_postgres_or_schema(services: LocalServices) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nowhere = f"postgresql://u:p@127.0.0.1:{taken.getsockname()[1]}/d"
        code, told = health(nowhere)
        assert code == 2
        assert "can't tell" in told
        assert health(nowhere, "--restart")[0] == 0
    code, told = health(services.database_url)
    assert code == 1
    assert "pgclip migrate" in told


def test_health_is_asked_under_a_newer_schema_too(
    database_url: str, start_worker: WorkerFactory, sql: Sql
) -> None:
    """Else a rolling upgrade's migration would end all workers of the version before."""
    start_worker(database_url)
    sql("UPDATE pgclip.schema_version SET version_num = '9999'")
    assert health(database_url)[0] == health(database_url, "--restart")[0] == 0


def test_a_postgres_that_does_not_answer_in_time_restarts_nobody(
    database_url: str, start_worker: WorkerFactory
) -> None:
    start_worker(database_url)
    with psycopg2.connect(database_url) as connection, connection.cursor() as cursor:
        cursor.execute("LOCK TABLE pgclip.worker IN ACCESS EXCLUSIVE MODE")
        assert health(database_url, "--restart")[0] == 0
        assert health(database_url)[0] == 2


def test_a_row_of_the_process_before_is_not_taken_for_this_one(
    database_url: str, start_worker: WorkerFactory, sql: Sql
) -> None:
    """In a container that starts again the new process has the number of the old."""
    start_worker(database_url)
    assert health(database_url)[0] == 0
    sql("UPDATE pgclip.worker SET started_at = started_at - interval '1 hour'")
    assert health(database_url)[0] == 1


def test_a_worker_that_can_not_reach_redis_says_so_and_recovers(
    database_url: str, services: LocalServices, start_worker: WorkerFactory, tmp_path: Path
) -> None:
    with LocalServices(tmp_path / "another") as another:
        start_worker(database_url, PGCLIP_REDIS_URL=another.redis_url)
        assert health(database_url)[0] == 0
        assert another.redis_pid is not None
        os.kill(another.redis_pid, signal.SIGKILL)
        eventually(lambda: "Redis does not answer" in health(database_url)[1])
        assert health(database_url)[0] == 1
        assert health(database_url, "--restart")[0] == 0  # which would not help
        assert health(database_url, "--heartbeat")[0] == 0
        command = [sys.executable, "-m", "pgclip", "status", "--database-url", database_url]
        told = subprocess.run(
            [*command, "--redis-url", services.redis_url], capture_output=True, text=True
        )
        assert "Redis does not answer" in told.stdout
        another.start()
        eventually(lambda: health(database_url)[0] == 0)


def test_a_worker_cut_off_from_postgres_is_unhealthy_and_recovers(
    database_url: str, start_worker: WorkerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(CHAOS)
    from proxy import Proxy
    from stage import host_of, port_of, through

    proxy = Proxy((host_of(database_url), port_of(database_url)))
    try:
        start_worker(through(database_url, proxy))
        assert health(database_url)[0] == 0
        proxy.cut()
        eventually(lambda: health(database_url)[0] == 1)
        proxy.heal()
        eventually(lambda: health(database_url)[0] == 0)
    finally:
        proxy.close()


def test_a_worker_whose_model_thread_died_ends_and_others_do_its_work(
    client: Client, database_url: str, start_worker: WorkerFactory, tmp_path: Path
) -> None:
    worker = start_worker(database_url)
    job = client.submit_text(f"end the thread {tmp_path / 'ended'}")
    assert worker.wait() == 70
    assert "the thread 'encode' is gone" in worker.log.read_text()
    assert health(database_url)[0] == 1
    start_worker(database_url)
    job.wait(60)


class Ended(BaseException):
    """In place of the process's end."""


@pytest.fixture
def watchdog(monkeypatch: pytest.MonkeyPatch) -> Watchdog:
    def end(status: int) -> None:
        assert status == 70
        raise Ended

    monkeypatch.setattr(os, "_exit", end)
    return Watchdog(Settings.load({}, encode_timeout=5.0, decode_timeout=5.0), lambda: 0.0)


class TestWatchdog:
    @pytest.fixture(autouse=True)
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        now = [1000.0]
        monkeypatch.setattr("pgclip_workers.upkeep.watchdog.time.monotonic", lambda: now[0])
        return now

    def test_a_forward_pass_that_does_not_return(
        self, clock: list[float], watchdog: Watchdog
    ) -> None:
        with watchdog.encoding():
            clock[0] += 4.9
            watchdog.look(1)
            clock[0] += 0.2
            with pytest.raises(Ended):
                watchdog.look(1)
        watchdog.look(1)

    def test_leases_that_nobody_works_on(self, clock: list[float], watchdog: Watchdog) -> None:
        clock[0] += 1000
        watchdog.look(0)  # with nothing to do it may do nothing
        clock[0] += 64
        watchdog.look(2)
        watchdog.progressed()
        clock[0] += 64
        watchdog.look(2)
        clock[0] += 2
        with pytest.raises(Ended):
            watchdog.look(2)

    def test_pictures_that_take_long_are_progress(
        self, clock: list[float], watchdog: Watchdog
    ) -> None:
        for _ in range(5):
            clock[0] += 60
            watchdog._moved = lambda: clock[0]
            watchdog.look(1)

    def test_threads_may_end_when_the_worker_stops(self, watchdog: Watchdog) -> None:
        stopping = threading.Event()
        thread = threading.Thread(target=lambda: None, name="store")
        thread.start()
        thread.join()
        watchdog.guard(stopping, thread)
        with pytest.raises(Ended):
            watchdog.look(0)
        stopping.set()
        watchdog.look(0)
