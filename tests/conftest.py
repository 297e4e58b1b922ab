"""Real services for every test: given by PGCLIP_TEST_*_URL, else embedded ones.

Where they can't be had, tests are skipped at a desk and fail in CI.
"""

import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg2
import pytest
from checkpoints import make_clip

from pgclip import Client
from pgclip.local import LocalServices, LocalServicesError
from pgclip.migrate import migrate

ROOT = Path(__file__).parents[1]
DEMO_MODEL = ROOT / "demo" / "model"
PLANTED = [sys.executable, str(ROOT / "tests" / "planted_worker.py")]
REAL = [sys.executable, "-m", "pgclip", "worker"]
# Quick enough for tests; the product's defaults are several times longer.
QUICK = {
    "PGCLIP_HEARTBEAT": "0.3",
    "PGCLIP_LEASE": "2",
    "PGCLIP_STEWARD_INTERVAL": "0.5",
    "PGCLIP_IDLE_POLL": "0.5",
    "PGCLIP_DECODERS": "1",
}
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServices]:
    local = LocalServices(
        tmp_path_factory.mktemp("services"),
        database_url=os.environ.get("PGCLIP_TEST_DATABASE_URL"),
        redis_url=os.environ.get("PGCLIP_TEST_REDIS_URL"),
        # Many small databases are made; what they hold need not survive the machine.
        postgres_settings={"fsync": "off", "full_page_writes": "off"},
    )
    try:
        local.start()
    except LocalServicesError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    yield local
    local.stop()


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


@pytest.fixture(scope="session")
def template(services: LocalServices) -> str:
    """The name of a migrated database that each test gets a copy of."""
    name = f"pgclip_template_{os.getpid()}"
    run_sql(services.database_url, f"CREATE DATABASE {name}")
    migrate(with_database(services.database_url, name))
    return name


@pytest.fixture(scope="session")
def new_database(services: LocalServices, template: str) -> Callable[[], str]:
    """Makes an empty database with schema pgclip and returns its URL."""

    def make() -> str:
        name = f"pgclip_test_{os.getpid()}_{next(_numbers)}"
        run_sql(services.database_url, f"CREATE DATABASE {name} TEMPLATE {template}")
        url = with_database(services.database_url, name)
        run_sql(url, "UPDATE pgclip.installation SET id = gen_random_uuid()")
        return url

    return make


@pytest.fixture
def database_url(new_database: Callable[[], str]) -> str:
    return new_database()


@pytest.fixture
def sql(database_url: str) -> Iterator[Callable[..., list[Any]]]:
    """Runs a statement in autocommit and returns its rows."""
    connection = psycopg2.connect(database_url)
    connection.autocommit = True

    def run(statement: str, *arguments: Any) -> list[Any]:
        with connection.cursor() as cursor:
            cursor.execute(statement, arguments or None)
            return cursor.fetchall() if cursor.description else []

    yield run
    connection.close()


@pytest.fixture
def client(database_url: str, services: LocalServices) -> Iterator[Client]:
    with Client(database_url=database_url, redis_url=services.redis_url) as client:
        yield client


@dataclass
class WorkerProcess:
    """A worker as a process, with its log."""

    process: "subprocess.Popen[bytes]"
    log: Path

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = 30) -> int:
        return self.process.wait(timeout)


class WorkerFactory:
    """Starts workers, waits until they are ready, and ends them afterwards."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        self._folder = folder
        self._redis_url = redis_url
        self._started: list[WorkerProcess] = []

    def __call__(
        self, database_url: str, command: list[str] = PLANTED, ready: bool = True, **environ: str
    ) -> WorkerProcess:
        log = self._folder / f"worker-{next(_numbers)}.log"
        environment = {
            **os.environ,
            **QUICK,
            "PGCLIP_DATABASE_URL": database_url,
            "PGCLIP_REDIS_URL": self._redis_url,
            **environ,
        }
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, env=environment, stdout=output, stderr=subprocess.STDOUT
            )
        worker = WorkerProcess(process, log)
        self._started.append(worker)
        if ready:
            try:
                eventually(lambda: " ready: model" in log.read_text(errors="replace"), 120)
            except AssertionError:
                raise AssertionError(log.read_text(errors="replace")) from None
        return worker

    def stop(self) -> None:
        for worker in self._started:
            if worker.process.poll() is None:
                worker.kill(signal.SIGCONT)
                worker.kill(signal.SIGTERM)
        for worker in self._started:
            try:
                worker.wait(20)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()


@pytest.fixture
def start_worker(tmp_path: Path, services: LocalServices) -> Iterator[WorkerFactory]:
    factory = WorkerFactory(tmp_path, services.redis_url)
    yield factory
    factory.stop()


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def eventually(condition: Callable[[], object], timeout: float = 60) -> None:
    """Waits until the condition holds. The limit only keeps a broken test from hanging."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture(scope="session")
def random_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small CLIP of random weights."""
    return make_clip(tmp_path_factory.mktemp("models") / "random-clip")


@dataclass
class Live:
    """A database with the demo model's worker at work, and a folder that it may read."""

    client: Client
    database_url: str
    folder: Path


@pytest.fixture(scope="session")
def live(
    services: LocalServices,
    new_database: Callable[[], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Live]:
    """One real worker with the demo model for all tests that only want things to work."""
    folder = tmp_path_factory.mktemp("live")
    (folder / "pictures").mkdir()
    url = new_database()
    factory = WorkerFactory(folder, services.redis_url)
    roots = f"{folder / 'pictures'}:{ROOT / 'demo' / 'pictures'}"
    factory(url, REAL, PGCLIP_MODEL=str(DEMO_MODEL), PGCLIP_ROOTS=roots)
    with Client(database_url=url, redis_url=services.redis_url) as client:
        yield Live(client, url, folder / "pictures")
    factory.stop()


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
