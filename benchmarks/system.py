"""What benchmarks of the whole need: services, a fresh database, a worker process."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg2
from here import DATA, HERE

from pgclip import Client
from pgclip.local import LocalServices
from pgclip.migrate import migrate

REAL_WORKER = [sys.executable, "-m", "pgclip", "worker"]
STUB_WORKER = [sys.executable, str(HERE / "stub_worker.py")]


@contextmanager
def fresh_system() -> Iterator[dict[str, str]]:
    """Embedded services with their durable defaults and an empty, migrated database: the URLs."""
    with LocalServices(DATA / "services") as services:
        name = f"bench_{os.getpid()}_{time.monotonic_ns()}"
        run_sql(services.database_url, f"CREATE DATABASE {name}")
        url = urlunsplit(urlsplit(services.database_url)._replace(path=f"/{name}"))
        migrate(url)
        try:
            yield {"database_url": url, "redis_url": services.redis_url}
        finally:
            run_sql(services.database_url, f"DROP DATABASE {name} WITH (FORCE)")


def run_sql(url: str, statement: str) -> list[Any]:
    """Runs a statement in autocommit; returns its rows."""
    connection = psycopg2.connect(url)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def environment(urls: dict[str, str], **environ: str) -> dict[str, str]:
    """This process's environment, with the services and more."""
    services = {f"PGCLIP_{name.upper()}": url for name, url in urls.items()}
    return {**os.environ, **services, **environ}


@contextmanager
def worker(urls: dict[str, str], command: list[str], **environ: str) -> Iterator[None]:
    """A worker process, alive and ready."""
    log, settings = DATA / "worker.log", environment(urls, **environ)
    with log.open("w") as output:
        process = subprocess.Popen(command, env=settings, stdout=output, stderr=output)
    try:
        while run_sql(urls["database_url"], "SELECT count(*) FROM pgclip.workers") == [(0,)]:
            if process.poll() is not None:
                raise RuntimeError(log.read_text())
            time.sleep(0.1)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@contextmanager
def working(model: Path, **environ: str) -> Iterator[Client]:
    """A client of a fresh system in which a real worker has loaded the model."""
    with (
        fresh_system() as urls,
        worker(urls, REAL_WORKER, PGCLIP_MODEL=str(model), **environ),
        Client(**urls) as client,
    ):
        yield client
