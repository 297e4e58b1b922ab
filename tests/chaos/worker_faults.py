"""Workers that are killed, stopped, frozen, or not the right ones."""

import signal
import subprocess
import time
from random import Random

import psycopg2
from faults import fault, pause
from stage import LEASE, Stage, Worker


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
