"""Redis gone, frozen, empty or full."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from random import Random
from threading import Thread
from typing import Any

import redis
from faults import fault, pause, send
from stage import Stage

# After these nothing is left of what was in it, others' tasks included.
EMPTYING = {
    "Redis: SIGKILL and restart",
    "Redis: three blips in 3 s",
    "Redis: FLUSHALL",
    "Redis and a worker killed at once",
}


@contextmanager
def _redis(stage: Stage) -> Iterator[Any]:
    client = redis.Redis.from_url(stage.redis_url, socket_timeout=5)
    try:
        yield client
    finally:
        client.close()


@fault("Redis: SIGKILL and restart", 6)
def kill_redis(stage: Stage, random: Random) -> None:
    send(stage.services.redis_pid, signal.SIGKILL)
    pause(random, 2)
    stage.services.start()


@fault("Redis: three blips in 3 s", 2)
def blips(stage: Stage, random: Random) -> None:
    for _ in range(3):
        send(stage.services.redis_pid, signal.SIGKILL)
        time.sleep(0.5)
        stage.services.start()
        time.sleep(0.4)


@fault("Redis: SIGSTOP for a while", 2)
def freeze_redis(stage: Stage, random: Random) -> None:
    _freeze(stage, 2 + random.random() * 6)


@fault("Redis: SIGSTOP for two minutes", 0)
def freeze_redis_for_long(stage: Stage, random: Random) -> None:
    _freeze(stage, 120)


def _freeze(stage: Stage, seconds: float) -> None:
    pid = stage.services.redis_pid
    send(pid, signal.SIGSTOP)
    time.sleep(seconds)
    send(pid, signal.SIGCONT)


@fault("Redis: FLUSHALL", 10)
def flush(stage: Stage, random: Random) -> None:
    with _redis(stage) as client:
        client.flushall()


@fault("Redis: maxmemory reached")
def full_redis(stage: Stage, random: Random) -> None:
    with _redis(stage) as client:
        client.config_set("maxmemory", 1)
        pause(random, 2, 0.5)
        client.config_set("maxmemory", 0)


@fault("Redis and a worker killed at once", 2)
def worker_and_redis(stage: Stage, random: Random) -> None:
    restart = Thread(target=kill_redis, args=(stage, random))
    restart.start()
    with suppress(ProcessLookupError):
        random.choice(stage.workers).process.kill()
    restart.join()
