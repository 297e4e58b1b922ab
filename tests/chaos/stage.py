"""All that a run needs, as real processes: services, workers behind proxies, submitters."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg2
from neighbour import Neighbour
from proxy import Proxy
from support.pooler import Pooler, open_folder, start_pooler

from pgclip.local import LocalServices
from pgclip.migrate import migrate

HERE = Path(__file__).parent
TESTS = HERE.parent
# Quick, so that much happens in little time; the product's own waits are several times longer.
LEASE = 2.0
# A table that is written all the while and kept in step: it says itself what its items must be.
ROWS = "rows"
# A frozen worker may keep one for a while.
_POOLED_SESSIONS = 6
SETTINGS = {
    "PGCLIP_HEARTBEAT": "0.3",
    "PGCLIP_LEASE": f"{LEASE}",
    "PGCLIP_STEWARD_INTERVAL": "0.5",
    "PGCLIP_IDLE_POLL": "0.5",
    "PGCLIP_DECODERS": "1",
    "PGCLIP_DECODE_TIMEOUT": "2",
    "PGCLIP_ENCODE_TIMEOUT": "3",
    "PGCLIP_SEGMENT_ROWS": "300",
    "PGCLIP_MAX_SEGMENTS": "4",
}


class Worker:
    """A worker process behind proxies of its own."""

    def __init__(self, number: int, stage: "Stage", **environ: str) -> None:
        self._stage = stage
        self._environ = environ
        self._log = stage.folder / f"worker-{number}.log"
        self.postgres, self.redis = (
            Proxy((host_of(url), port_of(url))) for url in (stage.database_url, stage.redis_url)
        )
        self.process = self.start()

    def start(self) -> "subprocess.Popen[bytes]":
        """A process in the place of the one that ended."""
        environment = self._stage.environment(
            PGCLIP_DATABASE_URL=through(self._stage.database_url, self.postgres),
            PGCLIP_REDIS_URL=through(self._stage.redis_url, self.redis),
            PYTHONPATH=python_path(TESTS / "support" / "planted", TESTS),
            **self._environ,
        )
        with self._log.open("ab") as log:
            command = [sys.executable, str(TESTS / "support" / "planted_worker.py")]
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        return self.process

    @property
    def lives(self) -> bool:
        """Whether its process has not ended."""
        return self.process.poll() is None

    def close(self) -> None:
        """Ends it."""
        self.process.kill()
        self.process.wait()
        self.postgres.close()
        self.redis.close()


class Stage:
    """Starts all of it, and starts again what dies, as an orchestrator would."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        workers: int,
        submitters: int,
        *,
        through_pooler: bool = False,
        beside_celery: bool = False,
        **environ: str,
    ) -> None:
        self.folder = folder
        self.references = folder / "references"
        self.references.mkdir(parents=True)
        self._seed = seed
        self._environ = environ
        self.services = LocalServices(folder / "services", timeout=60).start()
        self.database_url, self.redis_url = self.services.database_url, self.services.redis_url
        migrate(self.database_url)
        self.sql(f"CREATE TABLE {ROWS} (id text PRIMARY KEY, body text NOT NULL)")
        self.sql(f"SELECT pgclip.index_table('{ROWS}', text => 'body', collection => '{ROWS}')")
        self._ending = ExitStack()
        self._pooler: Pooler | None = None
        if through_pooler:
            readable = self._ending.enter_context(open_folder())
            self._pooler = start_pooler(self.database_url, readable, _POOLED_SESSIONS)
            self._ending.callback(self._pooler.stop)
            self.database_url = self._pooler.through(self.database_url)
        self._neighbour = Neighbour(self.redis_url, folder) if beside_celery else None
        self.workers = [Worker(n, self) for n in range(workers)]
        self.submitters: dict[int, subprocess.Popen[bytes]] = {}
        self._wanted = submitters
        self.restarts = 0
        self.troubles: list[str] = []
        self._stopping = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    def environment(self, **more: str) -> dict[str, str]:
        """Of the processes."""
        roots = str(self.references)
        return {**os.environ, **SETTINGS, "PGCLIP_ROOTS": roots, **self._environ, **more}

    def worker_behind(self, port: int) -> Worker | None:
        """The worker whose connection Postgres sees as coming from this port."""
        if self._pooler is not None:
            port = self._pooler.client_behind(port)
        return next((each for each in self.workers if each.postgres.dials_from(port)), None)

    def sql(self, statement: str, *arguments: Any) -> list[Any]:
        """Past the proxies, in autocommit; waits for Postgres if it is away."""
        deadline = time.monotonic() + 60
        while True:
            try:
                connection = psycopg2.connect(self.services.database_url, connect_timeout=5)
            except psycopg2.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
                continue
            connection.autocommit = True
            try:
                with connection.cursor() as cursor:
                    cursor.execute("SET default_transaction_read_only = off")
                    cursor.execute(statement, arguments or None)
                    return cursor.fetchall() if cursor.description else []
            except (psycopg2.OperationalError, psycopg2.InterfaceError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            finally:
                connection.close()

    def stop_submitting(self) -> None:
        """Ends the submitters, wherever they are; a neighbour sends no more."""
        if self._neighbour is not None:
            self._neighbour.stop_sending()
        self._wanted = 0
        for process in list(self.submitters.values()):
            process.kill()
            process.wait()

    def look_into_logs(self) -> None:
        """A worker that ended itself for a reason that no fault gave is a trouble; so is what a
        neighbour has to complain of."""
        if self._neighbour is not None:
            self.troubles += self._neighbour.troubles()
        for log in self.folder.glob("worker-*.log"):
            for line in log.read_text(errors="replace").splitlines():
                if "exiting so that" in line and "a forward pass has not returned" not in line:
                    self.troubles.append(f"{log.name}: {line}")

    def close(self) -> None:
        """Ends everything."""
        self._stopping.set()
        self._keeper.join()
        self.stop_submitting()
        for worker in self.workers:
            worker.close()
        if self._neighbour is not None:
            self._neighbour.close()
        self._ending.close()
        self.services.stop()

    def _keep(self) -> None:
        number = 0
        while not self._stopping.wait(0.2):
            for worker in list(self.workers):
                if not worker.lives:
                    self.restarts += 1
                    worker.start()
            for place in range(self._wanted):
                process = self.submitters.get(place)
                if process is not None and process.poll() is None:
                    continue
                if process is not None and process.returncode != -signal.SIGKILL:
                    self.troubles.append(f"submitter {place} ended with {process.returncode}")
                number += 1
                self.submitters[place] = self._start_submitter(place, number)

    def _start_submitter(self, place: int, number: int) -> "subprocess.Popen[bytes]":
        seed = f"{self._seed}{number:04}"
        # Their clocks are wrong by ten minutes, some fast and some slow.
        skew = (0, 600, -600)[place % 3]
        environment = self.environment(
            PGCLIP_DATABASE_URL=self.database_url, PGCLIP_REDIS_URL=self.redis_url,
            PYTHONPATH=python_path(HERE / "skewed", TESTS),
            CHAOS_SKEW=str(skew),
        )  # fmt: skip
        command = [sys.executable, str(HERE / "submitter.py"), str(place), seed]
        with (self.folder / f"submitter-{place}.log").open("ab") as log:
            return subprocess.Popen(
                [*command, str(self.references)], env=environment, stdout=log, stderr=log
            )


def python_path(*first: Path) -> str:
    """These folders, then those of this process."""
    given = os.environ.get("PYTHONPATH")
    return os.pathsep.join([*map(str, first), *([given] if given else [])])


def host_of(url: str) -> str:
    """The host of a URL."""
    return urlsplit(url).hostname or ""


def port_of(url: str) -> int:
    """The port of a URL."""
    return urlsplit(url).port or 0


def through(url: str, proxy: Proxy) -> str:
    """The URL by way of a proxy."""
    parts = urlsplit(url)
    login = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{login}@127.0.0.1:{proxy.port}"))
