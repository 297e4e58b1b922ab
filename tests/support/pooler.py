"""PgBouncer before the tests' Postgres, in transaction mode, with two sessions for everybody."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg2
import pytest
from support.processes import eventually, free_port

from pgclip.local import LocalServices

_SETTINGS = """
[databases]
* = host={host} port={port} user={user} password={password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own}
auth_type = any
admin_users = pgclip
pool_mode = transaction
default_pool_size = {size}
max_client_conn = 500
server_idle_timeout = 600
logfile = {folder}/pgbouncer.log
pidfile =
unix_socket_dir =
"""


@dataclass
class Pooler:
    """A running PgBouncer; `through` gives a database's URL by way of it."""

    port: int
    process: "subprocess.Popen[bytes]"

    def through(self, url: str) -> str:
        parts = urlsplit(url)
        login = parts.netloc.rpartition("@")[0]
        return urlunsplit(parts._replace(netloc=f"{login}@127.0.0.1:{self.port}"))

    def client_behind(self, port: int) -> int:
        """The port of the client that has the session which Postgres sees as from this port; 0."""
        console = psycopg2.connect(f"postgresql://pgclip@127.0.0.1:{self.port}/pgbouncer")
        try:
            console.autocommit = True
            with console.cursor() as cursor:
                cursor.execute("SHOW SERVERS")
                servers = _rows(cursor)
                cursor.execute("SHOW CLIENTS")
                clients = {row["ptr"]: row["port"] for row in _rows(cursor)}
        finally:
            console.close()
        linked = (row["link"] for row in servers if row["local_port"] == port)
        return int(clients.get(next(linked, ""), 0))

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)


def _rows(cursor: Any) -> list[dict[str, Any]]:
    names = [column.name for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def start_pooler(url: str, folder: Path, size: int = 2) -> Pooler:
    """Starts PgBouncer before the server of a URL, and returns once it answers."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        if os.environ.get("CI"):
            raise AssertionError("PgBouncer is missing: apt-get install pgbouncer")
        pytest.skip("PgBouncer is missing: apt-get install pgbouncer")
    parts = urlsplit(url)
    own = free_port()
    file = folder / "pgbouncer.ini"
    file.write_text(
        _SETTINGS.format(
            host=parts.hostname,
            port=parts.port,
            user=parts.username,
            password=parts.password,
            own=own,
            size=size,
            folder=folder,
        )
    )
    as_nobody = {}
    if os.geteuid() == 0:  # which it refuses to run as
        nobody = pwd.getpwnam("nobody")
        as_nobody = {"user": nobody.pw_uid, "group": nobody.pw_gid}
        for each in (folder, file):
            os.chown(each, nobody.pw_uid, nobody.pw_gid)
    with file.open("rb"):
        process = subprocess.Popen(
            [program, "-q", str(file)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **as_nobody,  # type: ignore[arg-type]
        )
    pooler = Pooler(own, process)
    eventually(lambda: _answers(pooler.through(url)), 20)
    return pooler


def _answers(url: str) -> bool:
    try:
        psycopg2.connect(url, connect_timeout=2).close()
    except psycopg2.OperationalError:
        return False
    return True


@contextmanager
def open_folder() -> Iterator[Path]:
    """One that the pooler's account may read, which the tests' own are not."""
    with tempfile.TemporaryDirectory(prefix="pgclip-pooler-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="session")
def pooler(services: LocalServices) -> Iterator[Pooler]:
    """One for all tests."""
    with open_folder() as folder:
        running = start_pooler(services.database_url, folder)
        yield running
        running.stop()


@pytest.fixture
def pooled_url(pooler: Pooler, database_url: str) -> str:
    """A database of the test's own, through the pooler."""
    return pooler.through(database_url)
