"""A Redis that other applications use: our keys lie below a prefix, theirs are left alone."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
import redis
from celery import Celery
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.places import ROOT
from support.processes import PLANTED, WorkerFactory, eventually

from pgclip import Client
from pgclip.local import LocalServices
from pgclip.settings import Settings
from pgclip.submitting.broker import make_app

Sql = Callable[..., list[Any]]
NO_KEYS = {
    *("PING", "CLIENT", "INFO", "HELLO", "SELECT", "SCRIPT", "MULTI", "EXEC", "UNWATCH", "AUTH"),
    *("MONITOR", "COMMAND", "ACL"),
}
# What a user of the Redis needs to be let, as the page for operators has it.
(_WORDS,) = re.findall(
    r"^ACL SETUSER images (.*?)^```",
    (ROOT / "docs" / "operate.md").read_text(),
    re.MULTILINE | re.DOTALL,
)
ACL = _WORDS.split()


def keys_of(command: list[str]) -> list[str]:
    """Keys and channels that a command names."""
    name, *arguments = command
    name = name.upper()
    if name in NO_KEYS:
        return []
    if name == "BRPOP":
        return arguments[:-1]
    if name in ("EVALSHA", "EVAL"):
        return arguments[2 : 2 + int(arguments[1])]
    if name in ("DEL", "PSUBSCRIBE", "SUBSCRIBE", "PUNSUBSCRIBE", "UNSUBSCRIBE", "WATCH", "EXISTS"):
        return arguments
    return arguments[:1]


class Monitor:
    """What Redis is asked meanwhile, by everybody."""

    def __init__(self, url: str) -> None:
        self.commands: list[list[str]] = []
        self._redis = redis.Redis.from_url(url, decode_responses=True)
        self._monitor = self._redis.monitor()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> "Monitor":
        self._monitor.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._redis.close()

    def _read(self) -> None:
        import shlex

        try:
            for command in self._monitor.listen():
                self.commands.append(shlex.split(command["command"]))
        except (redis.RedisError, ValueError, OSError):
            pass


@pytest.fixture
def own(tmp_path: Path) -> Iterator[LocalServices]:
    """A Redis that nobody else uses, so that all that it is asked is ours."""
    with LocalServices(tmp_path / "own") as local:
        yield local


def test_every_key_lies_below_the_prefix(
    own: LocalServices, database_url: str, start_worker: WorkerFactory
) -> None:
    given = {"PGCLIP_REDIS_URL": own.redis_url, "PGCLIP_REDIS_PREFIX": "shop.images"}
    with Monitor(own.redis_url) as monitor:
        worker = start_worker(database_url, **given)
        with Client(database_url=database_url, redis_url=own.redis_url,
                    redis_prefix="shop.images") as client:  # fmt: skip
            client.submit_text("one", key="a").wait(30)
            client.submit_many({"text": f"t {n}", "key": f"k{n}"} for n in range(50)).wait(30)
            app = make_app(Settings.load({}, redis_url=own.redis_url, redis_prefix="shop.images"))
            assert app.control.ping(timeout=5)
        worker.process.terminate()
        worker.wait()
    names = {command[0].upper() for command in monitor.commands}
    assert {"BRPOP", "LPUSH", "SET", "PUBLISH"} <= names
    keys = {key for command in monitor.commands for key in keys_of(command)}
    assert {key for key in keys if not key.startswith("shop.images:")} == set()
    server = redis.Redis.from_url(own.redis_url, decode_responses=True)
    assert all(key.startswith("shop.images:") for key in server.scan_iter())


def test_what_the_acl_lets_is_enough(
    own: LocalServices, database_url: str, start_worker: WorkerFactory
) -> None:
    server = redis.Redis.from_url(own.redis_url)
    server.execute_command("ACL", "SETUSER", "images", *ACL)
    parts = urlsplit(own.redis_url)
    url = urlunsplit(parts._replace(netloc=f"images:secret@{parts.netloc.rpartition('@')[2]}"))
    worker = start_worker(database_url, PGCLIP_REDIS_URL=url)
    with Client(database_url=database_url, redis_url=url) as client:
        client.submit_text("one", key="a").wait(30)
        client.submit_many({"text": f"t {n}", "key": f"k{n}"} for n in range(50)).wait(30)
    worker.process.terminate()
    assert worker.wait() == 0
    log = worker.log.read_text()
    assert "NOPERM" not in log
    assert "No permissions" not in log
    denied = [entry for entry in server.acl_log() if entry["username"] == "images"]
    assert denied == []


def test_tasks_of_another_application_are_left_alone(
    own: LocalServices, database_url: str, start_worker: WorkerFactory
) -> None:
    """What it has taken and not acknowledged stays its own, however old that is."""
    other = Celery("shop", broker=own.redis_url, set_as_current=False)
    other.conf.task_ignore_result = True
    with other.connection_for_read() as connection:
        other.send_task("shop.remind", countdown=1200)
        queue = connection.SimpleQueue("celery")
        message = queue.get(timeout=10)  # taken, and not acknowledged: it waits for its time
        server = redis.Redis.from_url(own.redis_url)
        assert server.zcard("unacked_index") == 1
        for member, score in server.zrange("unacked_index", 0, -1, withscores=True):
            server.zadd("unacked_index", {member: score - 6 * 3600})  # hours have passed
        start_worker(database_url, PGCLIP_REDIS_URL=own.redis_url)
        with Client(database_url=database_url, redis_url=own.redis_url) as client:
            for number in range(30):
                client.submit_text(f"text {number}").wait(30)
        assert server.zcard("unacked_index") == 1
        assert server.hlen("unacked") == 1
        assert server.llen("celery") == 0
        message.ack()


HOSTILE = [
    *("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL"),
    *("CELERY_RESULT_BACKEND", "CELERY_LOADER", "CELERY_CONFIG_MODULE", "DJANGO_SETTINGS_MODULE"),
    *("CELERY_TASK_SERIALIZER", "CELERY_DEFAULT_QUEUE"),
]
ASK = """
import sys
from pgclip.settings import Settings
from pgclip.submitting.broker import make_app
app = make_app(Settings.load())
for connection in (app.connection_for_read(), app.connection_for_write(), app.connection()):
    print(connection.as_uri(include_password=True))
print(type(app.backend).__name__, app.conf.task_serializer, app.conf.accept_content)
"""


def test_celerys_environment_changes_nothing(tmp_path: Path, services: LocalServices) -> None:
    (tmp_path / "celeryconfig.py").write_text("broker_url = 'redis://elsewhere:1/0'\n"
                                              "task_serializer = 'pickle'\n")  # fmt: skip

    @settings(max_examples=12, deadline=None, derandomize=True,
              suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
    @given(
        st.dictionaries(
            st.sampled_from(HOSTILE),
            st.sampled_from(
                ["redis://127.0.0.1:1/3", "amqp://elsewhere", "celeryconfig", "nowhere"]
            ),
            min_size=1,
        )
    )
    def holds(environ: dict[str, str]) -> None:
        ran = subprocess.run(
            [sys.executable, "-c", ASK],
            cwd=tmp_path,
            env={**os.environ, **environ, "PGCLIP_REDIS_URL": services.redis_url},
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 0, ran.stderr
        *urls, rest = ran.stdout.splitlines()
        assert {url.rstrip("/") for url in urls} == {services.redis_url.rstrip("/")}
        assert rest == "DisabledBackend json ['json']"

    holds()


def test_a_worker_and_a_client_beside_a_celery_of_others(
    client: Client, database_url: str, start_worker: WorkerFactory, services: LocalServices,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Tickets arrive: the work does not wait for an idle worker's look."""
    for name in ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL"):
        monkeypatch.setenv(name, "redis://127.0.0.1:1/0")
    start_worker(database_url, PLANTED, PGCLIP_IDLE_POLL="60")
    client.submit_text("one", key="a").wait(20)
    eventually(lambda: client.get("a").state == "done")
