"""Workers that are killed, stopped, frozen, or not the right ones."""

import signal
import subprocess
import time
from contextlib import closing
from random import Random

import psycopg2
from faults import Missed, fault, pause, send
from stage import LEASE, Stage, Worker


def some_worker(stage: Stage, random: Random) -> Worker:
    """One whose process lives. Raises Missed if there is none."""
    living = [worker for worker in stage.workers if worker.lives]
    if not living:
        raise Missed
    return random.choice(living)


@fault("worker: SIGKILL at any instant", 12)
def kill_worker(stage: Stage, random: Random) -> None:
    pause(random, 0.5)
    send(some_worker(stage, random).process.pid, signal.SIGKILL)


def _kill_when(stage: Stage, condition: str) -> None:
    """Kills the first worker for which Postgres sees the condition. Raises Missed after 3 s.

    Stopped first, so that it is still seen of a process that does nothing more.
    """
    statement = f"""
        SELECT client_port FROM pg_stat_activity
        WHERE application_name = 'pgclip worker' AND {condition}
    """
    deadline = time.monotonic() + 3
    with closing(psycopg2.connect(stage.database_url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            while time.monotonic() < deadline:
                cursor.execute(statement)
                for (port,) in cursor.fetchall():
                    if worker := stage.worker_behind(port):
                        send(worker.process.pid, signal.SIGSTOP)
                        cursor.execute(statement)
                        held = (port,) in cursor.fetchall()
                        send(worker.process.pid, signal.SIGKILL if held else signal.SIGCONT)
                        if held:
                            return
    raise Missed


@fault("worker: SIGKILL while it claims")
def kill_in_claim(stage: Stage, random: Random) -> None:
    _kill_when(stage, "state <> 'idle' AND query LIKE '%%pgclip.claim%%'")


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
    _kill_who_has(stage, random, "hanging")


@fault("worker: SIGKILL while it encodes")
def kill_in_encode(stage: Stage, random: Random) -> None:
    stage.sql("SELECT pgclip.submit_text(key => 'slow', body => 'sleep 1 second')")
    _kill_who_has(stage, random, "slow")


def _kill_who_has(stage: Stage, random: Random, key: str) -> None:
    """Kills who has leased an item that takes a second or two, once its work has begun."""
    leased = """
        SELECT pid FROM pgclip.worker w JOIN pgclip.job j ON j.worker_id = w.id
        JOIN pgclip.item i ON i.id = j.item_id WHERE i.key = %s AND j.lease IS NOT NULL
    """
    try:
        deadline = time.monotonic() + 5
        while not stage.sql(leased, key):
            if time.monotonic() > deadline:
                raise Missed
            time.sleep(0.02)
        pause(random, 0.7, 0.2)
        found = stage.sql(leased, key)
        if not found:
            raise Missed
        send(found[0][0], signal.SIGKILL)
    finally:
        stage.sql("SELECT pgclip.delete(%s)", key)


@fault("worker: SIGTERM with a part-filled batch", 6)
def terminate(stage: Stage, random: Random) -> None:
    pause(random, 0.5)
    send(some_worker(stage, random).process.pid, signal.SIGTERM)


@fault("worker: SIGSTOP for longer than its lease, then SIGCONT")
def freeze(stage: Stage, random: Random) -> None:
    pid = some_worker(stage, random).process.pid
    send(pid, signal.SIGSTOP)
    time.sleep(LEASE * (1.5 + random.random()))
    send(pid, signal.SIGCONT)


@fault("worker: SIGSTOP while its steward holds the lock")
def freeze_steward(stage: Stage, random: Random) -> None:
    holder = """
        SELECT a.client_port FROM pg_locks l JOIN pg_stat_activity a USING (pid)
        WHERE l.locktype = 'advisory' AND l.granted
          AND (l.classid::bigint << 32 | l.objid::bigint) = 7311994463
    """
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        for (port,) in stage.sql(holder):
            if worker := stage.worker_behind(port):
                send(worker.process.pid, signal.SIGSTOP)
                # Stopped a moment late, it has let go of the lock.
                held = (port,) in stage.sql(holder)
                time.sleep(LEASE * 1.5 if held else 0)
                send(worker.process.pid, signal.SIGCONT)
                if held:
                    return
    raise Missed


@fault("rolling deploy: SIGKILL of every worker, five times over", 1)
def rolling_deploy(stage: Stage, random: Random) -> None:
    for _ in range(5):
        for worker in stage.workers:
            worker.process.kill()
            pause(random, 1)
        time.sleep(2)


@fault("worker with another model", 1)
def another_model(stage: Stage, random: Random) -> None:
    _refused_worker(stage, PGCLIP_MODEL_NAME="another")


@fault("worker with the same model and other weights", 1)
def other_weights(stage: Stage, random: Random) -> None:
    _refused_worker(stage, PLANTED_WEIGHTS="others")


def _refused_worker(stage: Stage, **environ: str) -> None:
    worker = Worker(99, stage, **environ)
    try:
        if worker.process.wait(30) == 0:
            stage.troubles.append(f"a worker with {environ} ended as if nothing were wrong")
    except subprocess.TimeoutExpired:
        stage.troubles.append(f"a worker with {environ} was not refused")
    finally:
        worker.close()


@fault("a model beside, filled for a while and taken back", 3)
def model_beside(stage: Stage, random: Random) -> None:
    """While other transactions are open that may or may not know of it."""
    stage.sql("SELECT pgclip.add_model('beside') WHERE NOT EXISTS "
              "(SELECT FROM pgclip.model WHERE name = 'beside')")  # fmt: skip
    worker = Worker(98, stage, PGCLIP_MODEL_NAME="beside")
    try:
        pause(random, 8, 2)
        stage.sql("SELECT pgclip.cancel_model(name) FROM pgclip.models "
                  "WHERE name = 'beside' AND state = 'filling'")  # fmt: skip
        deadline = time.monotonic() + 60
        while stage.sql("SELECT count(*) FROM pgclip.model WHERE name = 'beside'") != [(0,)]:
            if time.monotonic() > deadline:
                stage.troubles.append("a model that was taken back is not gone")
                break
            time.sleep(0.1)
        if worker.process.wait(30) == 0:
            stage.troubles.append("a worker of a model that is gone ended as if nothing were wrong")
    except subprocess.TimeoutExpired:
        stage.troubles.append("a worker of a model that is gone goes on")
    finally:
        worker.close()
