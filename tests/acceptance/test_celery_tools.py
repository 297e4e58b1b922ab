"""Celery's own tools see the workers: as real processes, by `-A pgclip.celery_app`."""

import json
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.processes import WorkerFactory, WorkerProcess, eventually

from pgclip import Client
from pgclip.local import LocalServices

Sql = Callable[..., list[Any]]
CELERY = [sys.executable, "-m", "celery", "-A", "pgclip.celery_app"]


@pytest.fixture
def worker(database_url: str, start_worker: WorkerFactory) -> WorkerProcess:
    """A worker whose Celery part listens too."""
    worker = start_worker(database_url)
    eventually(lambda: f"{node_name(worker)} ready" in worker.log.read_text())
    return worker


def node_name(worker: WorkerProcess) -> str:
    return f"pgclip-{worker.process.pid}@{socket.gethostname()}"


def inspected(services: LocalServices, worker: WorkerProcess, question: str) -> Any:
    """The worker's answer to `celery inspect`."""
    run = subprocess.run(
        [*CELERY, "inspect", "--json", "--timeout", "10", "-d", node_name(worker), question],
        env={**os.environ, "PGCLIP_REDIS_URL": services.redis_url},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)[node_name(worker)]


def test_inspect_reaches_a_worker(services: LocalServices, sql: Sql, worker: WorkerProcess) -> None:
    assert inspected(services, worker, "ping") == {"ok": "pong"}
    queues = sql("SELECT pgclip._ticket_queue(id) FROM pgclip.model")
    assert [(queue["name"],) for queue in inspected(services, worker, "active_queues")] == queues
    assert inspected(services, worker, "stats")["pid"] == worker.process.pid


def test_inspect_shows_the_ticket_at_work(
    services: LocalServices, client: Client, sql: Sql, worker: WorkerProcess
) -> None:
    client.submit_text("sleep 15")
    eventually(lambda: sql("SELECT id FROM pgclip.job WHERE lease IS NOT NULL"))
    (task,) = inspected(services, worker, "active")
    assert task["name"] == "pgclip.work"


@pytest.fixture
def flower(services: LocalServices, tmp_path: Path) -> Iterator[str]:
    """Flower as a process; its URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environ = {
        **os.environ,
        "PGCLIP_REDIS_URL": services.redis_url,
        "FLOWER_UNAUTHENTICATED_API": "true",
    }
    with (tmp_path / "flower.log").open("wb") as log:
        process = subprocess.Popen(
            [*CELERY, "flower", "--address=127.0.0.1", f"--port={port}"],
            env=environ,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=tmp_path,
        )
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def asked(url: str) -> Any:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.load(answer)
    except OSError:  # not there yet
        return {}


def test_flower_shows_the_worker_its_heartbeat_and_its_tickets(
    client: Client, worker: WorkerProcess, flower: str
) -> None:
    name = node_name(worker)
    eventually(lambda: name in asked(f"{flower}/api/workers?refresh=true"))
    assert asked(f"{flower}/api/workers")[name]["active_queues"]
    # From here on by events, which Flower has the worker send.
    eventually(lambda: asked(f"{flower}/api/workers?status=true").get(name) is True)

    def tickets() -> list[Any]:
        client.submit_text("hello").wait(60)
        tasks = asked(f"{flower}/api/tasks?workername={name}").values()
        return [task for task in tasks if task["state"] == "SUCCESS"]

    eventually(tickets)
    assert tickets()[0]["name"] == "pgclip.work"
