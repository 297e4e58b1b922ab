"""What an embedded Postgres and an embedded Redis have in common: start, adopt, watch, stop.

Every method but `pid` and `url` is called under the start-up lock of the data folder, so only one
process at a time decides about a server.
"""

import json
import os
import secrets
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from pgclip.local.errors import LocalServicesError
from pgclip.local.locks import FileLock
from pgclip.local.programs import Account, required, run_as, server_account

HOST = "127.0.0.1"
# A port can be taken between its choice and its use; a third death has another cause.
_LAUNCHES = 3
# Below the range that Linux and macOS give to outgoing connections: one of those could sit on a
# server's port while it restarts, and a client that retries could even connect to itself.
_PORTS = range(20_000, 32_000)
_PORT_TRIES = 200
_LOG_TAIL_LINES = 20
# Kept so that Python reaps a server which dies while the process that launched it lives on.
_launched: list["subprocess.Popen[bytes]"] = []


@dataclass(frozen=True)
class Endpoint:
    """Where a server listens on the loopback interface, and its password."""

    port: int
    password: str


class Server(ABC):
    """One server with its data in `data_dir/kind` and its log, lock and endpoint beside it."""

    kind: ClassVar[str]
    process_names: ClassVar[tuple[str, ...]]
    child_titles: ClassVar[tuple[str, ...]]
    keeps_password: ClassVar[bool]
    stop_signals: ClassVar[tuple[tuple[signal.Signals, float], ...]]

    def __init__(self, data_dir: Path) -> None:
        self.folder = data_dir / self.kind
        self.log = data_dir / f"{self.kind}.log"
        self._lock = data_dir / f"{self.kind}.lock"
        self._endpoint = data_dir / f"{self.kind}.json"

    @property
    @abstractmethod
    def url(self) -> str:
        """The URL for clients, password included."""

    @abstractmethod
    def probe(self) -> str | None:
        """Say why the server cannot be used yet; None when it can."""

    @abstractmethod
    def prepare(self, account: Account | None, endpoint: Endpoint, lock: FileLock) -> None:
        """Make the folder ready for a start, knowing that no server runs in it.

        A program that works there inherits the lock: it may outlive us, and nobody must start then.
        """

    @abstractmethod
    def spawn(self, account: Account | None, endpoint: Endpoint, lock: FileLock) -> None:
        """Launch the server; it inherits the lock and so holds it for as long as it lives."""

    def ensure(self, seconds: float) -> None:
        """Adopt the running server or launch one, and wait up to `seconds` until it answers."""
        deadline = time.monotonic() + seconds
        launches = 0
        while True:
            with closing(FileLock(self._lock)) as lock:
                if lock.exclusive():
                    if launches == _LAUNCHES:
                        raise LocalServicesError(f"{self.kind} does not start.{self._log_tail()}")
                    self._launch(lock)
                    launches += 1
                    deadline = time.monotonic() + seconds  # making a cluster may have taken long
            trouble = self.probe()
            if trouble is None:
                return
            if time.monotonic() > deadline:
                raise LocalServicesError(
                    f"{self.kind} (process {self.pid}) runs but did not answer in {seconds:g} s: "
                    f"{trouble}. If it is recovering, try again later; if it hangs, kill it and "
                    f"try again.{self._log_tail()}"
                )
            if not launches:
                self._end_orphans()
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop the server, gently first; harmless when none runs."""
        with FileLock(self._lock) as lock:
            for number, seconds in self.stop_signals:
                if lock.exclusive():
                    break
                main, children = self._processes()
                if main is not None:
                    _send(main, number)
                if main is None or number == signal.SIGKILL:
                    _kill(children)
                if lock.exclusive(seconds):
                    break
            else:
                raise LocalServicesError(
                    f"{self.kind} (process {self.pid}) in {self.folder} cannot be stopped. Is it "
                    "another user's, or in another container? Stop it there."
                )
        _reap()

    @property
    def pid(self) -> int | None:
        """The process id of the server; None when none is running in our sight."""
        main, _ = self._processes()
        return None if main is None else int(main.pid)

    def endpoint(self) -> Endpoint:
        """Return where the server listens. Raises LocalServicesError when that is not known."""
        endpoint = self._recall()
        if endpoint is None:
            raise LocalServicesError(
                f"{self._endpoint} (port and password of {self.kind}) is missing. Restore it, or "
                f"stop process {self.pid} and move {self.folder} away to begin with an empty one."
            )
        return endpoint

    def _launch(self, lock: FileLock) -> None:
        main, _ = self._processes()
        if main is not None:
            raise LocalServicesError(
                f"Process {main.pid} runs in {self.folder}, but was not started by pgclip. Stop it."
            )
        account = server_account(self.folder)
        endpoint = self._choose_endpoint()
        self.prepare(account, endpoint, lock)
        self.spawn(account, endpoint, lock)

    def _recall(self) -> Endpoint | None:
        try:
            return Endpoint(**json.loads(self._endpoint.read_text()))
        except (FileNotFoundError, TypeError, ValueError):
            return None

    def _choose_endpoint(self) -> Endpoint:
        """Keep port and password where possible, so that URLs given out earlier work again."""
        known = self._recall()
        if known is None and self.keeps_password and self.folder.exists():
            known = self.endpoint()
        if known is not None and _is_free(known.port):
            return known
        password = secrets.token_urlsafe(24) if known is None else known.password
        endpoint = Endpoint(_free_port(), password)
        fd, name = tempfile.mkstemp(dir=self._endpoint.parent, prefix=self._endpoint.name)
        with os.fdopen(fd, "w") as file:
            json.dump(asdict(endpoint), file)
            file.flush()
            os.fsync(fd)
        os.replace(name, self._endpoint)
        return endpoint

    def _run(
        self,
        command: list[str],
        account: Account | None,
        lock: FileLock,
        stdin: str = "",
        pass_fds: tuple[int, ...] = (),
    ) -> None:
        with tempfile.TemporaryFile() as given, open(self.log, "ab", opener=_private) as log:
            given.write(stdin.encode())
            given.seek(0)
            child = subprocess.Popen(
                command,
                cwd=self.folder,
                stdin=given,
                stdout=log,
                stderr=log,
                pass_fds=(lock.fd, *pass_fds),
                **run_as(account),
            )
        _launched.append(child)

    def _processes(self) -> tuple[Any, list[Any]]:
        """Find this server's main process (or None) and its children, by name and work folder."""
        psutil = required("psutil")
        main, children = None, []
        for process in psutil.process_iter(["name", "cmdline"]):
            if process.info["name"] in self.process_names and _works_in(process, self.folder):
                title = (process.info["cmdline"] or [""])[0]
                if main is None and not title.startswith(self.child_titles):
                    main = process
                else:
                    children.append(process)
        return main, children

    def _end_orphans(self) -> None:
        """Kill children that outlived a killed main process and would keep the lock."""
        main, children = self._processes()
        if main is None:
            _kill(children)

    def _log_tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return f"\nThe end of {self.log}:\n" + "\n".join(lines[-_LOG_TAIL_LINES:])


def _works_in(process: Any, folder: Path) -> bool:
    """Whether the process works in `folder`: the same folder, not only the same name for it."""
    link = f"/proc/{process.pid}/cwd"
    psutil = required("psutil")
    try:
        return os.path.samefile(link if os.path.lexists(link) else process.cwd(), folder)
    except (OSError, psutil.Error):
        return False


def _send(process: Any, number: signal.Signals) -> None:
    psutil = required("psutil")
    with suppress(psutil.Error):
        process.send_signal(number)  # checks that the process id was not reused meanwhile


def _kill(processes: list[Any]) -> None:
    for process in processes:
        _send(process, signal.SIGKILL)


def _reap() -> None:
    _launched[:] = [child for child in _launched if child.poll() is None]


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    for _ in range(_PORT_TRIES):
        port = _PORTS.start + secrets.randbelow(len(_PORTS))
        if _is_free(port):
            return port
    raise LocalServicesError(f"No free port was found between {_PORTS.start} and {_PORTS.stop}.")
