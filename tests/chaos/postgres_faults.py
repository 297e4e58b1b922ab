"""Postgres restarted, refusing, or held up by somebody else."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

import psycopg2
from faults import Missed, fault, pause, send
from stage import SETTINGS, Stage

from pgclip.database import Database
from pgclip.errors import PgclipError
from pgclip.searching.segments import Maintenance, maintenance_connections
from pgclip.settings import Settings


@fault("Postgres: immediate restart", 4)
def restart_postgres(stage: Stage, random: Random) -> None:
    pause(random, 0.5)
    send(stage.services.postgres_pid, signal.SIGQUIT)
    pause(random, 1)
    stage.services.start()


@fault("Postgres: connections ended one by one", 8)
def end_connections(stage: Stage, random: Random) -> None:
    pids = stage.sql(
        "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'pgclip%%' AND pid <> "
        "pg_backend_pid()"
    )
    if not pids:
        raise Missed
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
    pause(random, 3, 0.5)
    stage.sql(f"ALTER DATABASE pgclip RESET {setting}")
    stage.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name LIKE 'pgclip%%' AND pid <> pg_backend_pid()"
    )


@fault("Postgres: disk full (planted)", 3)
def disk_full(stage: Stage, random: Random) -> None:
    table = random.choice(["pgclip.embedding_set", "pgclip.job", "pgclip.item"])
    # A sequence counts who met it: what it gives is not rolled back.
    stage.sql("CREATE SEQUENCE public.chaos_hits")
    stage.sql(
        "CREATE OR REPLACE FUNCTION public.chaos_disk_full() RETURNS trigger LANGUAGE plpgsql AS "
        "$$BEGIN PERFORM nextval('public.chaos_hits'); "
        "RAISE EXCEPTION 'could not extend file: No space left on device (planted)' "
        "USING ERRCODE = '53100'; END$$"
    )
    stage.sql(
        f"CREATE TRIGGER chaos BEFORE INSERT ON {table} EXECUTE FUNCTION public.chaos_disk_full()"
    )
    pause(random, 2, 0.2)
    stage.sql(f"DROP TRIGGER chaos ON {table}")
    ((met,),) = stage.sql("SELECT is_called FROM public.chaos_hits")
    stage.sql("DROP SEQUENCE public.chaos_hits")
    if not met:
        raise Missed


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
