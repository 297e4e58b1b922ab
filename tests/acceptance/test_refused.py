"""A worker whom Postgres refuses something says so, and what it may store it stores."""

import json
from collections.abc import Callable
from typing import Any

import psycopg2
from support.commands import pgclip
from support.databases import run_sql
from support.processes import WorkerFactory, eventually
from support.roles import Roles

from pgclip import Client
from pgclip.local import LocalServices

Sql = Callable[..., list[Any]]


def troubles(url: str, redis_url: str) -> dict[str, str]:
    """What the doctor finds in the way."""
    told = pgclip("doctor", "--json", PGCLIP_DATABASE_URL=url, PGCLIP_REDIS_URL=redis_url,
                  PGCLIP_MODEL="planted")  # fmt: skip
    found = [each for each in json.loads(told.stdout) if each["state"] == "trouble"]
    assert told.returncode == int(bool(found))
    return {each["what"]: each["detail"] for each in found}


def test_without_temporary_tables_nothing_can_be_stored_and_all_say_so(
    ordinary: Roles, services: LocalServices, start_worker: WorkerFactory
) -> None:
    name = ordinary.url.rsplit("/", 1)[1]
    start_worker(ordinary.of("worker"))
    urls = {"database_url": ordinary.of("client"), "redis_url": services.redis_url}
    with Client(**urls) as client:
        client.submit_text("one", key="a").wait(30)
        assert troubles(ordinary.of("owner"), services.redis_url) == {}
        run_sql(ordinary.url, f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC")
        # Sessions that have their temporary tables go on with them.
        run_sql(ordinary.url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                              f" WHERE usename = '{ordinary.worker}'")  # fmt: skip
        client.submit_text("two", key="b")
        health = ["health", "--database-url", ordinary.of("client")]
        eventually(lambda: "store fails, its work goes back" in pgclip(*health).stderr)
        assert "permission denied to create temporary tables" in pgclip(*health).stderr
        assert pgclip(*health).returncode == 1
        assert pgclip(*health, "--restart").returncode == 0
        for access in ("owner", "client"):
            found = troubles(ordinary.of(access), services.redis_url)
            assert set(found) == {"trial", "workers"}
            assert "store fails" in found["workers"]
        run_sql(ordinary.url, f"GRANT TEMPORARY ON DATABASE {name} TO {ordinary.owner}")
        eventually(lambda: client.get("b").state == "done")
        eventually(lambda: pgclip(*health).returncode == 0)
        assert troubles(ordinary.of("owner"), services.redis_url) == {}


def test_what_may_not_be_claimed(
    ordinary: Roles, services: LocalServices, start_worker: WorkerFactory
) -> None:
    start_worker(ordinary.of("worker"))
    run_sql(ordinary.url, f"REVOKE EXECUTE ON FUNCTION pgclip.claim FROM {ordinary.worker}")
    health = ["health", "--database-url", ordinary.of("client")]
    eventually(lambda: "work can't be claimed" in pgclip(*health).stderr)
    run_sql(ordinary.url, f"GRANT EXECUTE ON FUNCTION pgclip.claim TO {ordinary.worker}")
    eventually(lambda: pgclip(*health).returncode == 0)


def test_batch_mates_of_what_is_refused_are_stored(
    client: Client, database_url: str, start_worker: WorkerFactory, sql: Sql
) -> None:
    """Whatever the reason: here one that is not in the item's data."""
    sql("CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF EXISTS ("
        "SELECT FROM pgclip.item i WHERE i.id = NEW.item_id AND i.key = 'refused') THEN RAISE"
        " 'planted' USING ERRCODE = '55000'; END IF; RETURN NEW; END $$")  # fmt: skip
    sql("CREATE TRIGGER refuse BEFORE INSERT ON pgclip.embedding_set FOR EACH ROW"
        " EXECUTE FUNCTION public.refuse()")  # fmt: skip
    client.submit_many({"text": f"text {n}", "key": f"k{n}"} for n in range(20))
    client.submit_text("refused", key="refused")
    client.submit_many({"text": f"more {n}", "key": f"m{n}"} for n in range(20))
    start_worker(database_url)
    eventually(lambda: client.count()["done"] == 40)
    assert client.get("refused").state in ("queued", "leased")
    eventually(lambda: "planted" in (sql("SELECT trouble FROM pgclip.workers")[0][0] or ""))
    sql("DROP TRIGGER refuse ON pgclip.embedding_set")
    eventually(lambda: client.get("refused").state == "done")


def test_a_published_database_replaces_and_deletes(
    client: Client, database_url: str, start_worker: WorkerFactory, sql: Sql
) -> None:
    sql("CREATE PUBLICATION everything FOR ALL TABLES")
    start_worker(database_url, PGCLIP_SEGMENT_ROWS="20", PGCLIP_STEWARD_INTERVAL="0.2")
    client.submit_many({"text": f"text {n}", "key": f"k{n}"} for n in range(60)).wait(60)
    eventually(lambda: "sealed" in {each.state for each in client.segments()})
    client.submit_text("anew", key="k7").wait(30)
    client.delete("k8")
    eventually(lambda: client.count()["done"] == 59)
    with psycopg2.connect(database_url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT trouble FROM pgclip.workers")
        assert cursor.fetchall() == [(None,)]
    connection.close()
