"""What an embedded Postgres and an embedded Redis have in common: start, adopt, watch, stop.

Every method but `pid` and `url` is called under the start-up lock of the data folder, so only one
process at a time decides about a server.
"""

import os
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

from pgclip.local.endpoint import Endpoint
from pgclip.local.errors import LocalServicesError
from pgclip.local.locks import FileLock
from pgclip.local.processes import processes_in, send
from pgclip.local.programs import Account, run_as, server_account

# A port can be taken between its choice and its use; a third death has another cause.
_LAUNCHES = 3
_LOG_TAIL_LINES = 20
# Kept so that Python reaps a server which dies while the process that launched it lives on.
_launched: list["subprocess.Popen[bytes]"] = []


class Server(ABC):
    """One server with its data in `data_dir/kind` and its log, lock and endpoint beside it."""

    kind: ClassVar[str]
    process_names: ClassVar[tuple[str, ...]]
    child_titles: ClassVar[tuple[str, ...]]
    keeps_password: ClassVar[bool]
    ending: ClassVar[str | None] = None  # what a probe meets while the server shuts down
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
            if self.ending is not None and self.ending in trouble:
                self.stop()  # whoever began it may have been killed, and it may hang
            elif not launches:
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
                    send(number, [main])
                if main is None or number == signal.SIGKILL:
                    send(signal.SIGKILL, children)
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
        endpoint = Endpoint.load(self._endpoint)
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

    def _choose_endpoint(self) -> Endpoint:
        """Keep port and password where possible, so that URLs given out earlier work again."""
        known = Endpoint.load(self._endpoint)
        if known is None and self.keeps_password and self.folder.exists():
            known = self.endpoint()
        chosen = Endpoint.new() if known is None else known.on_free_port()
        if chosen != known:
            chosen.save(self._endpoint)
        return chosen

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
        return processes_in(self.folder, self.process_names, self.child_titles)

    def _end_orphans(self) -> None:
        """Kill children that outlived a killed main process and would keep the lock."""
        main, children = self._processes()
        if main is None:
            send(signal.SIGKILL, children)

    def _log_tail(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return f"\nThe end of {self.log}:\n" + "\n".join(lines[-_LOG_TAIL_LINES:])


def _reap() -> None:
    _launched[:] = [child for child in _launched if child.poll() is None]


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
