"""What comes from Redis and is no ticket: refused and counted, never executed."""

import pickle
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from support.processes import WorkerFactory, eventually, free_port

from pgclip import Client
from pgclip.local import LocalServices
from pgclip.settings import Settings
from pgclip.submitting.broker import make_app
from pgclip.submitting.tickets import TASK

Sql = Callable[..., list[Any]]
WAIT = 120


def test_messages_that_are_no_tickets_are_refused_and_counted(
    client: Client,
    database_url: str,
    sql: Sql,
    services: LocalServices,
    start_worker: WorkerFactory,
    tmp_path: Path,
) -> None:
    """Whoever can write to Redis can waste work, and no more: nothing is executed or unpickled."""
    port = free_port()
    worker = start_worker(database_url, PGCLIP_METRICS_PORT=str(port))
    (queue,) = sql("SELECT unnest(pgclip.ticket_queues())")[0]
    app = make_app(Settings.load({}, redis_url=services.redis_url))
    trap = tmp_path / "unpickled"
    with app.connection_for_write() as connection:
        producer = connection.Producer(routing_key=queue)
        app.send_task(TASK, kwargs={"queue": queue, "version": 99}, queue=queue)
        app.send_task(TASK, kwargs={"run": "rm -rf /"}, queue=queue)
        app.send_task(TASK, args=["rm -rf /"], queue=queue)
        app.send_task("os.system", args=["rm -rf /"], queue=queue)
        producer.publish({"neither": "task"}, serializer="json")
        producer.publish(b"not json", content_type="application/json", content_encoding="utf-8")
        producer.publish(
            pickle.dumps(Touching(trap)),
            content_type="application/x-python-serialize",
            content_encoding="binary",
        )
    eventually(lambda: "pgclip_refused_messages_total 7.0" in scraped(port))
    assert worker.log.read_text().count("refused a message: not a ticket") == 3
    client.submit_text("hello").wait(WAIT)
    assert not trap.exists()
    app.close()


CHANGING: dict[str, dict[str, Any]] = {
    "shutdown": {},
    "pool_shrink": {"n": 1},
    "rate_limit": {"task_name": TASK, "rate_limit": "1/h"},
    "time_limit": {"task_name": TASK, "hard": 1},
    "add_consumer": {"queue": "another"},
    "objgraph": {},
}


def test_nobody_controls_a_worker_by_way_of_redis(
    database_url: str, services: LocalServices, start_worker: WorkerFactory
) -> None:
    worker = start_worker(database_url)
    name = f"pgclip-{worker.process.pid}@{socket.gethostname()}"
    app = make_app(Settings.load({}, redis_url=services.redis_url))
    eventually(lambda: app.control.inspect([name], timeout=5, limit=1).ping())
    for command, arguments in CHANGING.items():
        (answer,) = app.control.broadcast(
            command, arguments, reply=True, destination=[name], timeout=30, limit=1
        )
        assert "KeyError" in answer[name]["error"]
        app.control.broadcast(command, arguments, destination=[name])
    assert app.control.inspect([name], timeout=30, limit=1).ping() == {name: {"ok": "pong"}}
    assert worker.process.poll() is None
    app.close()


class Touching:
    """Unpickled, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self._path,)


def scraped(port: int) -> str:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())
