"""Every version of the schema that was left behind becomes this one, whole or not at all."""

import itertools
from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest
from support.databases import run_sql, with_database
from support.schemas import catalogs
from upgrades import filled

from pgclip import Client
from pgclip.database import SCHEMA_VERSION
from pgclip.local import LocalServices
from pgclip.migrate import migrate, plan


@pytest.fixture
def client_of_before(services: LocalServices) -> Iterator[str]:
    run_sql(services.database_url, f"CREATE ROLE {filled.CLIENT}")
    yield filled.CLIENT
    # In every database that grants it something.
    for (name,) in run_sql(
        services.database_url,
        "SELECT DISTINCT datname FROM pg_database d JOIN pg_shdepend s ON s.dbid = d.oid"
        " WHERE s.refobjid = %s::regrole",
        filled.CLIENT,
    ):
        run_sql(with_database(services.database_url, name), f"DROP OWNED BY {filled.CLIENT}")
    run_sql(services.database_url, f"DROP ROLE {filled.CLIENT}")


VERSIONS = sorted(file.name.split(".")[0] for file in filled.FOLDER.glob("*.sql.gz"))


class TestUpgrades:
    def test_every_version_but_this_one_has_left_a_dump(self) -> None:
        assert [f"{n:04}" for n in range(1, int(SCHEMA_VERSION))] == [
            version for version in VERSIONS if version < SCHEMA_VERSION
        ]

    @pytest.mark.parametrize("version", VERSIONS)
    def test_upgraded_equals_fresh(
        self, empty: str, database_url: str, client_of_before: str, version: str
    ) -> None:
        filled.restore(empty, version)
        before = {
            table: run_sql(empty, f"SELECT count(*) FROM pgclip.{table}")
            for table in ("item", "embedding_set", "job", "failure", "item_label", "content")
        }
        assert migrate(empty)
        run_sql(database_url, "SELECT pgclip.grant_access(%s, 'client')", client_of_before)
        assert catalogs(empty) == catalogs(database_url)
        for table, count in before.items():
            assert run_sql(empty, f"SELECT count(*) FROM pgclip.{table}") == count

    @pytest.mark.parametrize("version", VERSIONS)
    def test_what_was_there_is_found_and_goes_on(
        self, empty: str, services: LocalServices, client_of_before: str, version: str
    ) -> None:
        filled.restore(empty, version)
        migrate(empty)
        with Client(database_url=empty, redis_url=services.redis_url) as client:
            assert client.count() == {"queued": 9, "leased": 3, "done": 58, "failed": 10}
            (hit,) = client.search(like="text-7", k=1)
            assert hit.labels[0].name == "red"
            assert next(iter(client.items(collection="pictures")))
        sql = filled.connected(empty)
        worker = sql("SELECT pgclip.sign_on(1::smallint, 'h', 1, 'cpu', 'f', 64, 600)")[0][0]
        sql("SELECT pgclip.submit_text('a rare word', key => 'new')")
        sql("DELETE FROM pgclip.job WHERE lease IS NULL AND content_hash IS NULL")
        filled.store(sql, worker, 64)
        for step in ("close_segment(1::smallint, 1)", "build_segment(1::smallint,"
                     " ARRAY(SELECT number FROM pgclip.segment WHERE state = 'closed'), '4MB', 0)",
                     "announce_segments(1::smallint)", "exchange_segments(1::smallint)",
                     "drop_retired(1::smallint, '0')"):  # fmt: skip
            sql(f"SELECT pgclip.{step}")
        assert sql("SELECT key FROM pgclip.item_text JOIN pgclip.item ON id = item_id"
                   " WHERE words @@ 'rare'") == [("new",)]  # fmt: skip
        (vectors,) = sql("SELECT pgclip._vectors(1::smallint)")[0]
        ledger = "SELECT unnest(vector_ids) FROM pgclip.embedding_set"
        assert sql(f"SELECT id FROM {vectors} v EXCEPT {ledger}") == []
        assert sql(f"{ledger} EXCEPT SELECT id FROM {vectors} v") == []

    def test_every_table_can_be_published(self, empty: str, client_of_before: str) -> None:
        filled.restore(empty, "0001")
        migrate(empty)
        run_sql(empty, "CREATE PUBLICATION everything FOR ALL TABLES")
        run_sql(empty, "DELETE FROM pgclip.content_release; DELETE FROM pgclip.embedding_1_3")
        assert run_sql(empty, "SELECT pgclip.delete('text-5')") == [(True,)]

    def test_views_in_the_way_of_a_change_go_first_with_what_depends_on_them(
        self, empty: str, client_of_before: str
    ) -> None:
        filled.restore(empty, "0001")
        # As if the version before had a view of a column that changes, and functions on it, of
        # which one depends on the other.
        sql = filled.connected(empty)
        sql("CREATE VIEW pgclip.of_language AS SELECT language FROM pgclip.text_search")
        sql("CREATE FUNCTION pgclip.one() RETURNS SETOF pgclip.of_language LANGUAGE sql"
            " BEGIN ATOMIC SELECT * FROM pgclip.of_language; END")  # fmt: skip
        sql("CREATE FUNCTION pgclip.two() RETURNS SETOF pgclip.of_language LANGUAGE sql"
            " BEGIN ATOMIC SELECT * FROM pgclip.one(); END")  # fmt: skip
        for name in ("view of_language", "function one", "function two"):
            sql("INSERT INTO pgclip.definition VALUES (%s, '', '')", name)
        migrate(empty)
        assert plan(empty) == []
        assert sql("SELECT to_regclass('pgclip.of_language'), to_regproc('pgclip.two')") == [
            (None, None)
        ]

    def test_interrupted_at_any_statement_it_leaves_the_old_schema_whole(
        self, empty: str, client_of_before: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        filled.restore(empty, "0001")
        before = catalogs(empty)
        from sqlalchemy import event

        from pgclip import migrate as module

        count, limit = 0, 0

        class Interrupted(Exception):
            pass

        def look(*_: object) -> None:
            nonlocal count
            count += 1
            if count == limit:
                raise Interrupted

        class Counting(psycopg2.extensions.cursor):
            def execute(self, *given: Any) -> None:
                look()
                super().execute(*given)

        def cursor(connection: Any) -> Any:
            return connection.connection.cursor(cursor_factory=Counting)

        monkeypatch.setattr(module, "_cursor", cursor)
        make_engine = module.make_engine

        def watched(url: str) -> Any:
            engine = make_engine(url)
            event.listen(engine, "before_cursor_execute", look)
            return engine

        monkeypatch.setattr(module, "make_engine", watched)
        for limit in itertools.chain(range(1, 10), itertools.count(10, 37)):  # noqa: B007
            count = 0
            try:
                migrate(empty)
            except Interrupted:
                assert catalogs(empty) == before
            else:
                break
        assert limit > 40, "it ended before it was interrupted"
        limit = 0
        assert plan(empty) == []
