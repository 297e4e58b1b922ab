"""Faults, each a function that brings it about and takes it away again."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from random import Random
from threading import Thread
from typing import Any

import psycopg2
import redis
from stage import LEASE, SETTINGS, Stage, Worker

from pgclip.database import Database
from pgclip.errors import PgclipError
from pgclip.segments import Maintenance, maintenance_connections
from pgclip.settings import Settings

Fault = Callable[[Stage, Random], None]
FAULTS: dict[str, Fault] = {}
# How often each is chosen, where not once.
WEIGHTS: dict[str, int] = {}


def fault(name: str, weight: int = 4) -> Callable[[Fault], Fault]:
    """Registers a fault under the name that the report has."""

    def register(function: Fault) -> Fault:
        FAULTS[name], WEIGHTS[name] = function, weight
        return function

    return register


def pause(random: Random, most: float) -> None:
    """A random instant."""
    time.sleep(random.random() * most)


# Workers


@fault("worker: SIGKILL at any instant", 12)
def kill_worker(stage: Stage, random: Random) -> None:
    pause(random, 0.5)
    random.choice(stage.workers).signal(signal.SIGKILL)


def _kill_when(stage: Stage, condition: str) -> None:
    """Kills the worker for which Postgres sees the condition; whichever comes first, for 2 s."""
    statement = f"""
        SELECT client_port FROM pg_stat_activity
        WHERE application_name = 'pgclip worker' AND {condition}
    """
    connection = psycopg2.connect(stage.database_url)
    connection.autocommit = True
    deadline = time.monotonic() + 2
    with connection.cursor() as cursor:
        while time.monotonic() < deadline:
            cursor.execute(statement)
            for (port,) in cursor.fetchall():
                for worker in stage.workers:
                    if worker.postgres.dials_from(port):
                        worker.signal(signal.SIGKILL)
                        connection.close()
                        return
    connection.close()


@fault("worker: SIGKILL while it claims")
def kill_in_claim(stage: Stage, random: Random) -> None:
    _kill_when(stage, "state = 'active' AND query LIKE '%%pgclip.claim%%'")


@fault("worker: SIGKILL within the store transaction", 8)
def kill_in_store(stage: Stage, random: Random) -> None:
    stored = random.choice(["pgclip.open_results", "COPY pg_temp.staged", "pgclip.store"])
    _kill_when(stage, f"state <> 'idle' AND query LIKE '%%{stored}%%'")


@fault("worker: SIGKILL between commit and the next claim")
def kill_after_commit(stage: Stage, random: Random) -> None:
    _kill_when(stage, "query LIKE '%%pgclip.notify_settled%%'")


@fault("worker: SIGKILL while it decodes")
def kill_in_decode(stage: Stage, random: Random) -> None:
    stage.sql("SELECT pgclip.submit_image(key => 'hanging', image => 'HANG a while')")
    _kill_when(stage, "query LIKE '%%FETCH%%' OR query LIKE '%%unnest%%hash%%'")
    stage.sql("SELECT pgclip.delete('hanging')")


@fault("worker: SIGKILL while it encodes")
def kill_in_encode(stage: Stage, random: Random) -> None:
    stage.sql("SELECT pgclip.submit_text(key => 'slow', body => 'sleep 1 second')")
    time.sleep(0.6)
    leased = "SELECT worker_id FROM pgclip.job j JOIN pgclip.item i ON i.id = j.item_id " \
             "WHERE i.key = 'slow' AND lease IS NOT NULL"  # fmt: skip
    for (number,) in stage.sql(leased):
        for (pid,) in stage.sql("SELECT pid FROM pgclip.worker WHERE id = %s", number):
            for worker in stage.workers:
                if worker.process.pid == pid:
                    worker.signal(signal.SIGKILL)
    stage.sql("SELECT pgclip.delete('slow')")


@fault("worker: SIGTERM with a part-filled batch", 6)
def terminate(stage: Stage, random: Random) -> None:
    pause(random, 0.5)
    random.choice(stage.workers).signal(signal.SIGTERM)


@fault("worker: SIGSTOP for longer than its lease, then SIGCONT")
def freeze(stage: Stage, random: Random) -> None:
    worker = random.choice(stage.workers)
    worker.signal(signal.SIGSTOP)
    time.sleep(LEASE * (1.5 + random.random()))
    worker.signal(signal.SIGCONT)


@fault("worker: SIGSTOP while its steward holds the lock")
def freeze_steward(stage: Stage, random: Random) -> None:
    holder = """
        SELECT a.client_port FROM pg_locks l JOIN pg_stat_activity a USING (pid)
        WHERE l.locktype = 'advisory' AND l.granted
          AND (l.classid::bigint << 32 | l.objid::bigint) = 7311994463
    """
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        for (port,) in stage.sql(holder):
            for worker in stage.workers:
                if worker.postgres.dials_from(port):
                    worker.signal(signal.SIGSTOP)
                    time.sleep(LEASE * 1.5)
                    worker.signal(signal.SIGCONT)
                    return


@fault("rolling deploy: SIGKILL of every worker, five times over", 1)
def rolling_deploy(stage: Stage, random: Random) -> None:
    for _ in range(5):
        for worker in stage.workers:
            worker.signal(signal.SIGKILL)
            pause(random, 1)
        time.sleep(2)


@fault("worker with another model", 1)
def another_model(stage: Stage, random: Random) -> None:
    _refused_worker(stage, PGCLIP_MODEL_NAME="another")


def _refused_worker(stage: Stage, **environ: str) -> None:
    worker = Worker(99, stage, **environ)
    try:
        if worker.process.wait(30) == 0:
            stage.troubles.append(f"a worker with {environ} ended as if nothing were wrong")
    except subprocess.TimeoutExpired:
        stage.troubles.append(f"a worker with {environ} was not refused")
    finally:
        worker.close()


# Redis


@contextmanager
def _redis(stage: Stage) -> Iterator[Any]:
    client = redis.Redis.from_url(stage.redis_url, socket_timeout=5)
    try:
        yield client
    finally:
        client.close()


@fault("Redis: SIGKILL and restart", 6)
def kill_redis(stage: Stage, random: Random) -> None:
    _signal(stage.services.redis_pid, signal.SIGKILL)
    pause(random, 2)
    stage.services.start()


@fault("Redis: three blips in 3 s", 2)
def blips(stage: Stage, random: Random) -> None:
    for _ in range(3):
        _signal(stage.services.redis_pid, signal.SIGKILL)
        time.sleep(0.5)
        stage.services.start()
        time.sleep(0.4)


@fault("Redis: SIGSTOP for a while", 2)
def freeze_redis(stage: Stage, random: Random) -> None:
    pid = stage.services.redis_pid
    _signal(pid, signal.SIGSTOP)
    time.sleep(2 + random.random() * 6)
    _signal(pid, signal.SIGCONT)


@fault("Redis: FLUSHALL", 10)
def flush(stage: Stage, random: Random) -> None:
    with _redis(stage) as client, suppress(redis.RedisError):
        client.flushall()


@fault("Redis: maxmemory reached")
def full_redis(stage: Stage, random: Random) -> None:
    with _redis(stage) as client, suppress(redis.RedisError):
        client.config_set("maxmemory", 1)
        pause(random, 2)
        client.config_set("maxmemory", 0)


# Postgres


@fault("Postgres: immediate restart", 4)
def restart_postgres(stage: Stage, random: Random) -> None:
    pause(random, 0.5)
    _signal(stage.services.postgres_pid, signal.SIGQUIT)
    pause(random, 1)
    stage.services.start()


@fault("Postgres: connections ended one by one", 8)
def end_connections(stage: Stage, random: Random) -> None:
    pids = stage.sql(
        "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'pgclip%%' AND pid <> "
        "pg_backend_pid()"
    )
    for (pid,) in random.sample(pids, min(len(pids), 6)):
        stage.sql("SELECT pg_terminate_backend(%s)", pid)
        pause(random, 0.1)


@fault("Postgres: read-only", 2)
def read_only(stage: Stage, random: Random) -> None:
    _for_new_connections(stage, "default_transaction_read_only", "on", random)


def _for_new_connections(stage: Stage, setting: str, value: str, random: Random) -> None:
    stage.sql(f"ALTER DATABASE pgclip SET {setting} = '{value}'")
    stage.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name LIKE 'pgclip%%' AND pid <> pg_backend_pid()"
    )
    pause(random, 3)
    stage.sql(f"ALTER DATABASE pgclip RESET {setting}")
    stage.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name LIKE 'pgclip%%' AND pid <> pg_backend_pid()"
    )


@fault("Postgres: disk full (planted)", 3)
def disk_full(stage: Stage, random: Random) -> None:
    table = random.choice(["pgclip.embedding_set", "pgclip.job", "pgclip.item"])
    stage.sql(
        "CREATE OR REPLACE FUNCTION public.chaos_disk_full() RETURNS trigger LANGUAGE plpgsql AS "
        "$$BEGIN RAISE EXCEPTION 'could not extend file: No space left on device (planted)' "
        "USING ERRCODE = '53100'; END$$"
    )
    stage.sql(
        f"CREATE TRIGGER chaos BEFORE INSERT ON {table} EXECUTE FUNCTION public.chaos_disk_full()"
    )
    pause(random, 2)
    stage.sql(f"DROP TRIGGER chaos ON {table}")


@fault("Postgres: a lock held for longer than lock_timeout", 2)
def hold_a_lock(stage: Stage, random: Random) -> None:
    table = random.choice(["embedding_set", "job", "item", "segment"])
    with _transaction(stage, f"LOCK TABLE pgclip.{table} IN ACCESS EXCLUSIVE MODE"):
        time.sleep(3 + random.random() * 4)


@fault("Postgres: a long foreign snapshot during a seal", 3)
def long_snapshot(stage: Stage, random: Random) -> None:
    settings = Settings.load(SETTINGS, database_url=stage.database_url, segment_rows=20)
    with _transaction(stage, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
                      "SELECT count(*) FROM pgclip.segment"):  # fmt: skip
        database: Database = maintenance_connections(settings)
        try:
            Maintenance(settings, database, 1).run()
        except PgclipError as error:
            print(f"sealing by hand: {error}", flush=True)
        finally:
            database.close()
        pause(random, 1)


@contextmanager
def _transaction(stage: Stage, *statements: str) -> Iterator[None]:
    """Somebody else's, open meanwhile; Postgres may have gone away before its end."""
    connection = psycopg2.connect(stage.database_url)
    try:
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
        yield
    finally:
        connection.close()


# The network


def _network(cut: Callable[[Worker], None], heal: Callable[[Worker], None], most: float) -> Fault:
    def bring_about(stage: Stage, random: Random) -> None:
        worker = random.choice(stage.workers)
        cut(worker)
        pause(random, most)
        heal(worker)

    return bring_about


def _both(worker: Worker) -> tuple[Any, Any]:
    return worker.postgres, worker.redis


fault("network: worker cut off from Postgres", 5)(
    _network(lambda w: w.postgres.cut(), lambda w: w.postgres.heal(), 2 * LEASE)
)
fault("network: worker cut off from Redis", 4)(
    _network(lambda w: w.redis.cut(), lambda w: w.redis.heal(), 2 * LEASE)
)
fault("network: worker cut off from both", 3)(
    _network(
        lambda w: [end.cut() for end in _both(w)] and None,
        lambda w: [end.heal() for end in _both(w)] and None,
        2 * LEASE,
    )
)
fault("network: nothing passes between worker and Postgres", 4)(
    _network(lambda w: w.postgres.hold(), lambda w: w.postgres.heal(), 2 * LEASE)
)
fault("network: nothing passes between worker and Redis", 2)(
    _network(lambda w: w.redis.hold(), lambda w: w.redis.heal(), 2 * LEASE)
)
fault("network: connections to Postgres dropped", 6)(
    _network(lambda w: w.postgres.drop(), lambda w: None, 0.1)
)


# Submitters


@fault("submitter: SIGKILL at any instant", 10)
def kill_submitter(stage: Stage, random: Random) -> None:
    pause(random, 0.3)
    process = random.choice(list(stage.submitters.values()))
    process.send_signal(signal.SIGKILL)


# Two at once


@fault("Redis and a worker killed at once", 2)
def worker_and_redis(stage: Stage, random: Random) -> None:
    together = [Thread(target=each, args=(stage, random)) for each in (kill_worker, kill_redis)]
    for thread in together:
        thread.start()
    for thread in together:
        thread.join()


def _signal(pid: int | None, number: signal.Signals) -> None:
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
