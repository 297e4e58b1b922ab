"""Real workers as processes."""

import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from support.places import TESTS

from pgclip import Client

PLANTED = [sys.executable, str(TESTS / "support" / "planted_worker.py")]
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
        # What a worker does beside its work fails in its log alone.
        for worker in self._started:
            told = worker.log.read_text(errors="replace")
            assert "No function matches" not in told, told


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


@dataclass
class Live:
    """A database with the demo model's worker at work, and a folder that it may read."""

    client: Client
    database_url: str
    folder: Path
