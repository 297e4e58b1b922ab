"""A check that says all is well has tried it: whatever is broken here, it says so."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import psycopg2
import pytest
from support.databases import run_sql, with_database
from support.roles import Roles

from pgclip import PgclipError, statements
from pgclip.errors import translated
from pgclip.migrate import differences, lacking, migrate
from pgclip_workers import statements as of_workers

Sql = Callable[..., list[Any]]


@dataclass
class Scene:
    """A database of an ordinary owner, and a superuser's cursor in a transaction there."""

    cursor: Any
    roles: Roles

    @contextmanager
    def undone(self, role: str = "") -> Iterator[Any]:
        """As a role; what is done is taken back."""
        self.cursor.execute("SAVEPOINT undone")
        try:
            if role:
                self.cursor.execute(f"SET LOCAL ROLE {role}")
            yield self.cursor
        finally:
            self.cursor.execute("ROLLBACK TO SAVEPOINT undone; RELEASE SAVEPOINT undone")

    def ask(self, statement: str, *arguments: Any) -> list[Any]:
        self.cursor.execute(statement, arguments or None)
        return list(self.cursor.fetchall()) if self.cursor.description else []

    def refused(self) -> str:
        """Why a client can't submit, a worker store or a client search; empty if they can."""
        try:
            with self.undone():
                self.ask(f"SET LOCAL ROLE {self.roles.client}")
                self.ask(statements.SUBMIT_TEXT, "mine", "a text", "default", "{}", 0, True)
                self.ask(f"SET LOCAL ROLE {self.roles.worker}")
                self._store()
                self.ask(f"SET LOCAL ROLE {self.roles.client}")
                found = self.ask("SELECT key FROM pgclip.search_vector(pgclip.as_vector("
                                 "'{0,1,0,0}'), k => 2)")  # fmt: skip
                return "" if ("mine",) in found else f"found {found}"
        except psycopg2.Error as error:
            return str(error)

    def _store(self) -> None:
        (worker,) = self.ask(of_workers.SIGN_ON, 1, "h", 1, "cpu", "float32", 8, 60)[0]
        lease = str(uuid4())
        jobs = self.ask(of_workers.CLAIM, worker, lease, 8, 10**6, 1)
        (epoch,) = self.ask(of_workers.LABEL_EPOCH)[0]
        self.ask(of_workers.LABEL_SETS)
        self.ask("SELECT data FROM pgclip.content")
        self.ask(of_workers.KNOWN, 1, "text", [job[5] for job in jobs])
        self.ask(of_workers.OPEN_RESULTS)
        ids = [job[0] for job in jobs]
        self.ask("INSERT INTO pg_temp.staged_vector SELECT unnest(%s), '[0,1,0,0]'", ids)
        hashes = [bytes(job[5]) for job in jobs]
        self.ask(of_workers.STORE, lease, epoch, ids, hashes, json.dumps([]))
        self.ask(of_workers.NOTIFY_SETTLED, [1])
        self.ask(of_workers.HEARTBEAT, worker, 60, None, 1)

    def doctor_says(self, role: str) -> list[str]:
        """What it says as this role."""
        with self.undone(role):
            try:
                with translated("doctor"):
                    return differences(self.cursor) or lacking(self.cursor)
            except PgclipError as error:
                return [str(error)]


@pytest.fixture
def scene(ordinary: Roles) -> Iterator[Scene]:
    with psycopg2.connect(ordinary.of("owner")) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pgclip.register_model('m', 4, 10, '{\"fatal\": {}}')")
        cursor.execute("SELECT pgclip.submit_text('old', key => 'old')")
    connection.close()
    connection = psycopg2.connect(ordinary.url)
    yield Scene(connection.cursor(), ordinary)
    connection.close()


def damages(scene: Scene) -> list[str]:
    """Every way to break it: each right, each function, the extension, a publication."""
    names = scene.roles
    schema = "pronamespace = 'pgclip'::regnamespace"
    relations = "relnamespace = 'pgclip'::regnamespace AND relkind IN ('r', 'v', 'S')"
    routines = [name for (name,) in scene.ask(
        f"SELECT oid::regprocedure FROM pg_proc WHERE {schema} ORDER BY 1")]  # fmt: skip
    granted = scene.ask(
        f"SELECT p.oid::regprocedure, a.grantee::regrole FROM pg_proc p, aclexplode(proacl) a"
        f" WHERE {schema} AND a.grantee <> 0 ORDER BY 1, 2"
    )
    readable = scene.ask(
        "SELECT c.oid::regclass, a.grantee::regrole, a.privilege_type FROM pg_class c,"
        f" aclexplode(coalesce(relacl, acldefault('r', relowner))) a WHERE {relations}"
        " AND a.grantee <> 0 ORDER BY 1, 2, 3"
    )
    database = scene.ask("SELECT quote_ident(current_database())")[0][0]
    everybody = f"{names.owner}, {names.client}, {names.worker}, PUBLIC"
    return [
        *(f"DROP ROUTINE {name} CASCADE" for name in routines),
        *(f"REVOKE EXECUTE ON ROUTINE {name} FROM {role}" for name, role in granted),
        *(f"REVOKE {right} ON {name} FROM {role}" for name, role, right in readable),
        f"REVOKE TEMPORARY ON DATABASE {database} FROM {everybody}",
        f"REVOKE ALL ON SCHEMA extensions FROM {everybody}",
        *(f"REVOKE ALL ON SCHEMA pgclip FROM {role}"
          for role in (names.owner, names.client, names.worker)),
        "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA extensions FROM PUBLIC",
        "ALTER EXTENSION vector SET SCHEMA public",
        "CREATE PUBLICATION everything FOR ALL TABLES",
        "CREATE PUBLICATION everything FOR ALL TABLES;"
        " ALTER TABLE pgclip.embedding_1_1 REPLICA IDENTITY NOTHING",
        "ALTER TABLE pgclip.item DISABLE TRIGGER ALL",
        "ALTER TABLE pgclip.job ADD COLUMN mandatory int NOT NULL DEFAULT NULL",
        "ALTER TABLE pgclip.embedding_set ADD CHECK (generation < 0) NOT VALID",
        f"ALTER ROLE {names.owner} IN DATABASE {database} SET default_transaction_read_only = on",
    ]  # fmt: skip


def test_all_is_well(scene: Scene) -> None:
    assert scene.refused() == ""
    for role in (scene.roles.owner, scene.roles.client, scene.roles.worker):
        assert scene.doctor_says(role) == []


def test_whatever_is_broken_the_doctor_says_so(scene: Scene) -> None:
    broken = 0
    for damage in damages(scene):
        with scene.undone():
            try:
                scene.ask(damage)
            except psycopg2.Error:
                continue  # it can't be broken so
            if why := scene.refused():
                broken += 1
                for role in (scene.roles.owner, scene.roles.client):
                    assert scene.doctor_says(role), (damage, why)
    assert broken > 100


def test_nobody_is_touched(scene: Scene) -> None:
    def rows() -> list[Any]:
        tables = scene.ask("SELECT oid::regclass FROM pg_class WHERE relkind = 'r'"
                           " AND relnamespace = 'pgclip'::regnamespace ORDER BY 1")  # fmt: skip
        return [(name, scene.ask(f"SELECT xmin, ctid, t::text FROM {name} t"))
                for (name,) in tables]  # fmt: skip

    before = rows()
    assert scene.ask("SELECT pgclip.try_out()") == [(None,)]
    assert rows() == before
    assert scene.ask("SELECT to_regclass('pg_temp.staged_vector')") == [(None,)]
    settings = "SELECT name, setting FROM pg_settings WHERE name IN ('lock_timeout',"
    settings += " 'synchronous_commit') ORDER BY 1"
    assert scene.ask(settings) == [("lock_timeout", "0"), ("synchronous_commit", "on")]


def test_in_a_database_without_a_model(database_url: str) -> None:
    assert run_sql(database_url, "SELECT pgclip.try_out()") == [(None,)]
    run_sql(database_url, "SELECT pgclip.add_model('unborn')")
    assert run_sql(database_url, "SELECT pgclip.try_out()") == [(None,)]
    assert run_sql(database_url, "SELECT name, dimension FROM pgclip.model") == [("unborn", None)]


def test_migrate_says_what_others_must_grant(ordinary: Roles) -> None:
    name = ordinary.url.rsplit("/", 1)[1]
    run_sql(ordinary.url, f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC, {ordinary.owner}")
    from support.commands import pgclip

    run_sql(ordinary.url, "DROP VIEW pgclip.queue")
    told = pgclip("migrate", PGCLIP_DATABASE_URL=ordinary.of("owner"))
    assert told.returncode == 1
    assert f"GRANT TEMPORARY ON DATABASE {name} TO {ordinary.owner}" in told.stderr
    with psycopg2.connect(ordinary.of("owner")) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pgclip.grant_access(%s, 'client')", (ordinary.client,))
        assert any("GRANT TEMPORARY ON DATABASE" in notice for notice in connection.notices)
    connection.close()
    run_sql(ordinary.url, f"GRANT TEMPORARY ON DATABASE {name} TO {ordinary.owner}")
    run_sql(ordinary.url, "DROP VIEW pgclip.queue")
    assert pgclip("migrate", PGCLIP_DATABASE_URL=ordinary.of("owner")).returncode == 0


def test_what_the_owner_revoked_from_himself_is_repaired(ordinary: Roles) -> None:
    run_sql(ordinary.url, f"REVOKE ALL ON pgclip.item, pgclip.vector_id FROM {ordinary.owner}")
    run_sql(ordinary.url, f"REVOKE ALL ON FUNCTION pgclip._accept FROM {ordinary.owner}")
    assert len(migrate(ordinary.of("owner"))) == 3
    assert run_sql(ordinary.url, "SELECT pgclip.try_out()") == [(None,)]


def test_a_schema_that_was_made_ready_for_the_owner(ordinary: Roles) -> None:
    """Without CREATE on the database: the schema and the extension are there already."""
    name = f"{ordinary.owner}_ready"
    run_sql(ordinary.url, f"CREATE DATABASE {name}")
    url = with_database(ordinary.url, name)
    run_sql(url, f"CREATE EXTENSION vector; CREATE SCHEMA pgclip AUTHORIZATION {ordinary.owner}")
    migrate(with_database(ordinary.of("owner"), name))
    assert run_sql(url, "SELECT pgclip.try_out()") == [(None,)]
    assert migrate(with_database(ordinary.of("owner"), name)) == []
    run_sql(ordinary.url, f"DROP DATABASE {name} WITH (FORCE)")
