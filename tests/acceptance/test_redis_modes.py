"""Sentinels, a cluster, and a Redis that refuses some of what is needed."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
import redis
from support.commands import pgclip
from support.documents import OPERATE
from support.processes import PLANTED, QUICK, WorkerFactory, eventually, free_port
from support.valkey import Valkey

from pgclip import Client, ConfigurationError
from pgclip.local import LocalServices
from pgclip.settings import Settings
from pgclip.submitting.broker import make_app, try_out
from pgclip.submitting.place import Sentinels, refuse_cluster

Sql = Callable[..., list[Any]]
# Takes a ticket of a queue, and ends before it has said so.
TAKE = """
import os, sys
from pgclip.settings import Settings
from pgclip.submitting.broker import make_app
connection = make_app(Settings.load()).connection_for_write()
queue = connection.SimpleQueue(sys.argv[1])
queue.put({"queue": sys.argv[1]}, serializer="json")
queue.get(timeout=10)
os._exit(0)
"""
NewValkey = Callable[..., Valkey]


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[NewValkey]:
    started: list[Valkey] = []

    def start(*words: str, **options: bool) -> Valkey:
        started.append(Valkey(tmp_path, *words, **options))
        return started[-1]

    yield start
    for server in started:
        server.stop()


def redis_finding(database_url: str, redis_url: str) -> dict[str, str]:
    told = pgclip("doctor", "--json", PGCLIP_DATABASE_URL=database_url, PGCLIP_REDIS_URL=redis_url)
    (found,) = [each for each in json.loads(told.stdout) if each["what"] == "Redis"]
    return dict(found)


class TestSentinel:
    def test_it_works_and_goes_on_with_another_master(
        self, valkey: NewValkey, database_url: str, start_worker: WorkerFactory
    ) -> None:
        first = valkey("requirepass secret", "masterauth secret")
        second = valkey("requirepass secret", "masterauth secret",
                        f"replicaof 127.0.0.1 {first.port}")  # fmt: skip
        watched = (
            f"sentinel monitor shop 127.0.0.1 {first.port} 1",
            "sentinel auth-pass shop secret",
            "sentinel down-after-milliseconds shop 500",
            "sentinel failover-timeout shop 3000",
        )
        sentinels = [valkey(*watched, sentinel=True) for _ in range(2)]
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in sentinels)
        url = f"sentinel://:secret@{hosts}/0?master=shop"
        sentinel = sentinels[0].client
        eventually(lambda: sentinel.execute_command("SENTINEL", "REPLICAS", "shop"))
        assert redis_finding(database_url, url)["state"] == "ok"
        # Only a ticket wakes it in time.
        start_worker(database_url, PLANTED, PGCLIP_REDIS_URL=url, PGCLIP_IDLE_POLL="600",
                     PGCLIP_STEWARD_INTERVAL="600")  # fmt: skip
        with Client(database_url=database_url, redis_url=url) as client:
            client.submit_text("one", key="a").wait(20)
            keys = redis.Redis(port=first.port, password="secret", decode_responses=True).keys()
            assert keys
            assert all(key.startswith("pgclip:") for key in keys)
            first.stop()
            eventually(lambda: sentinel.execute_command(
                "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "shop")[1] in (second.port, str(second.port))
            )  # fmt: skip
            sent = iter(range(1000))

            def arrives() -> bool:
                job = client.submit_text(f"text {next(sent)}", key="b")
                try:
                    job.wait(2)
                except TimeoutError:
                    return False
                return True

            eventually(arrives)

    def test_urls(self) -> None:
        found = Sentinels.parse(
            "sentinel://u:p%40ss@one,two:5/3?master=m&sentinel_password=own&sentinel_username=s"
        )
        assert found == Sentinels([("one", 26379), ("two", 5)], "m", 3,
                                  {"username": "u", "password": "p@ss"},
                                  {"username": "s", "password": "own"})  # fmt: skip
        assert Sentinels.parse("redis://host/0") is None
        for url in ("sentinel://one:1/0", "sentinel://one:1/x?master=m", "sentinel://a:b/0?master"):
            with pytest.raises(ConfigurationError):
                Sentinels.parse(url)


class TestCluster:
    @pytest.fixture
    def cluster(self, valkey: NewValkey) -> str:
        server = valkey("cluster-enabled yes", f"cluster-port {free_port()}")
        server.client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        eventually(lambda: "'ok'" in str(server.client.execute_command("CLUSTER INFO")))
        return server.url

    def test_it_is_refused_in_words(self, cluster: str, database_url: str) -> None:
        environ = {**os.environ, **QUICK, "PGCLIP_DATABASE_URL": database_url,
                   "PGCLIP_REDIS_URL": cluster}  # fmt: skip
        ended = subprocess.run(PLANTED, env=environ, capture_output=True, text=True)
        assert ended.returncode == 1
        assert "this Redis is a cluster" in ended.stderr
        found = redis_finding(database_url, cluster)
        assert found["state"] == "trouble"
        assert "is a cluster" in found["detail"]
        with pytest.raises(ConfigurationError, match="is a cluster"):
            refuse_cluster(Settings.load({}, redis_url=cluster))

    def test_submissions_are_accepted_all_the_same(
        self, cluster: str, database_url: str, sql: Sql
    ) -> None:
        with Client(database_url=database_url, redis_url=cluster) as client:
            client.submit_text("one", key="a")
        assert sql("SELECT key FROM pgclip.items") == [("a",)]


class TestAcl:
    """Each word of what the page for operators lets is needed, and together they are enough."""

    RULES = OPERATE.split("ACL SETUSER images on >secret")[1].split("```")[0].split()

    @pytest.fixture
    def as_user(self, valkey: NewValkey) -> Callable[..., str]:
        server = valkey()

        def url(*rules: str) -> str:
            server.client.execute_command(
                "ACL", "SETUSER", "images", "reset", "on", ">secret", *rules
            )
            parts = urlsplit(server.url)
            return urlunsplit(parts._replace(netloc=f"images:secret@{parts.netloc}"))

        return url

    def test_a_worker_says_what_is_refused_and_is_quiet(
        self, as_user: Callable[..., str], database_url: str, start_worker: WorkerFactory
    ) -> None:
        url = as_user("~pgclip:*", "+@all")  # no channels
        worker = start_worker(database_url, PGCLIP_REDIS_URL=url)
        health = ["health", "--database-url", database_url]
        eventually(lambda: "tickets don't come through" in pgclip(*health).stderr)
        assert "NoPermissionError" in pgclip(*health).stderr
        assert redis_finding(database_url, url)["state"] == "trouble"
        eventually(lambda: "the next attempt is in 4 s" in worker.log.read_text())
        assert len(worker.log.read_text().splitlines()) < 50
        as_user(*self.RULES)
        eventually(lambda: pgclip(*health).returncode == 0, 90)

    def test_what_may_not_be_published_is_trouble(
        self, as_user: Callable[..., str], database_url: str, client: Client,
        start_worker: WorkerFactory, services: LocalServices,
    ) -> None:  # fmt: skip
        url = as_user(*self.RULES, "-lpush")
        start_worker(database_url, PGCLIP_REDIS_URL=url, PLANTED_PACE="0.1", PGCLIP_BATCH_SIZE="8")
        client.submit_many({"text": f"text {n}"} for n in range(200))
        health = ["health", "--database-url", database_url]
        eventually(lambda: "Redis takes no ticket" in pgclip(*health).stderr)
        as_user(*self.RULES)
        eventually(lambda: pgclip(*health).returncode == 0)

    def test_each_word_is_needed_and_together_they_are_enough(
        self, as_user: Callable[..., str], database_url: str, sql: Sql,
        start_worker: WorkerFactory,
    ) -> None:  # fmt: skip
        """All that tickets ask for: doctor, client, worker, and a ticket that a worker lost."""
        url = as_user(*self.RULES)
        server = redis.Redis(port=urlsplit(url).port or 0, decode_responses=True)
        settings = Settings.load({}, redis_url=url)
        try_out(settings)
        refuse_cluster(settings)
        with Client(database_url=database_url, redis_url=url) as client:
            worker = start_worker(database_url, PGCLIP_REDIS_URL=url)
            client.submit_many({"text": f"text {n}"} for n in range(100)).wait(30)
            worker.process.terminate()
            worker.wait()
            (queues,) = sql("SELECT pgclip.ticket_queues()")[0]
            environ = {**os.environ, "PGCLIP_REDIS_URL": url}
            subprocess.run([sys.executable, "-c", TAKE, *queues], env=environ, check=True)
            unacked = settings.redis_key("unacked_index")
            for member in server.zrange(unacked, 0, -1):
                server.zadd(unacked, {member: 1})  # taken long ago
            assert server.zcard(unacked) == 1
            worker = start_worker(database_url, PGCLIP_REDIS_URL=url)
            eventually(lambda: server.zcard(unacked) == 0)
            client.submit_text("one", key="a").wait(30)
            with make_app(settings) as app:
                assert app.control.ping(timeout=5)
                app.control.enable_events()
                with app.connection() as connection:  # as Flower does
                    watching = app.events.Receiver(connection, handlers={"*": lambda _: None})
                    watching.capture(limit=1, timeout=10, wakeup=True)
            worker.process.terminate()
            worker.wait()
        assert server.acl_log() == []
        asked = {
            name.removeprefix("cmdstat_").split("|")[0] for name in server.info("commandstats")
        }
        unseen = set()
        for rule in self.RULES:
            if rule.startswith("+@"):
                assert asked & set(server.acl_cat(rule[2:])), rule
            elif rule.startswith("+") and rule[1:] not in asked:
                unseen.add(rule)
        # Celery asks for it within a script, once what its tools have bound has run out.
        assert unseen == {"+exists"}

    @pytest.mark.parametrize("rule", ["&pgclip:/0.celery.pidbox", "~pgclip:*"])
    def test_each_pattern_is_needed(
        self, as_user: Callable[..., str], rule: str, database_url: str, start_worker: WorkerFactory
    ) -> None:
        url = as_user(*(each for each in self.RULES if each != rule))
        worker = start_worker(database_url, PGCLIP_REDIS_URL=url)
        eventually(lambda: "NoPermission" in worker.log.read_text()
                   or "No permissions" in worker.log.read_text(), 20)  # fmt: skip
