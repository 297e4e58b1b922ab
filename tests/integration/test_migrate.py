"""`pgclip migrate`: creating, repairing, and what is in its way."""

import io
import threading
from collections.abc import Callable
from typing import Any

import psycopg2
import pytest
from support.databases import run_sql, with_database
from support.schemas import catalogs

from pgclip import Client, ConnectionFailed, SchemaError
from pgclip.cli import main
from pgclip.database import SCHEMA_VERSION
from pgclip.errors import ConfigurationError
from pgclip.local import LocalServices
from pgclip.migrate import migrate, plan, remove

Sql = Callable[..., list[Any]]
OBJECTS = """
    SELECT (SELECT count(*) FROM pg_class WHERE relnamespace = to_regnamespace('pgclip'))
         + (SELECT count(*) FROM pg_proc WHERE pronamespace = to_regnamespace('pgclip'))
         + (SELECT count(*) FROM pg_type WHERE typnamespace = to_regnamespace('pgclip'))
"""


class TestRepair:
    def test_where_all_is_well_nothing_is_changed(self, database_url: str) -> None:
        before = run_sql(database_url, "SELECT oid, xmin FROM pg_proc ORDER BY 1")
        assert plan(database_url) == []
        assert migrate(database_url) == []
        assert run_sql(database_url, "SELECT oid, xmin FROM pg_proc ORDER BY 1") == before

    def test_and_no_right_is_needed_to_say_so(self, database_url: str, sql: Sql) -> None:
        (name,) = sql("SELECT 'reader_' || left(md5(random()::text), 8)")[0]
        sql(f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
        try:
            sql("SELECT pgclip.grant_access(%s, 'client')", name)
            url = database_url.replace(database_url.split("@")[0], f"postgresql://{name}:secret")
            assert plan(url) == migrate(url) == []
            sql("DROP VIEW pgclip.queue")
            assert plan(url) == ["lay view queue: it is missing"]
            with pytest.raises(SchemaError, match=r"belongs to postgres, and this role is no mem"):
                migrate(url)
        finally:
            sql(f"DROP OWNED BY {name}; DROP ROLE {name}")

    @pytest.mark.parametrize(
        ("damage", "step"),
        [
            ("DROP FUNCTION pgclip.store", "lay function store: it is missing"),
            ("DROP FUNCTION pgclip.search_vector", "lay function search_vector: it is missing"),
            ("DROP VIEW pgclip.workers", "lay view workers: it is missing"),
            ("DROP TRIGGER item_added ON pgclip.item", "lay trigger item_added: it is missing"),
            (
                "ALTER TABLE pgclip.item DISABLE TRIGGER item_added",
                "lay trigger item_added: it has been changed by hand",
            ),
            (
                "ALTER FUNCTION pgclip.claim SECURITY INVOKER",
                "lay function claim: it has been changed by hand",
            ),
            (
                "ALTER FUNCTION pgclip.hybrid RESET ALL",
                "lay function hybrid: it has been changed by hand",
            ),
            (
                "CREATE OR REPLACE FUNCTION pgclip.serves() RETURNS text LANGUAGE sql IMMUTABLE"
                " PARALLEL SAFE AS $$ SELECT '0000' $$",
                "lay function serves: it has been changed by hand",
            ),
            (
                "CREATE FUNCTION pgclip.delete(key int) RETURNS int LANGUAGE sql AS 'SELECT 1'",
                "lay function delete: it has been changed by hand",
            ),
            (
                "GRANT EXECUTE ON FUNCTION pgclip.sweep TO PUBLIC",
                "REVOKE EXECUTE ON ROUTINE pgclip.sweep(integer) FROM PUBLIC",
            ),
            (
                "ALTER TYPE pgclip.hit DROP ATTRIBUTE snippet CASCADE",
                "lay type hit: it has been changed by hand",
            ),
        ],
    )
    def test_what_is_missing_or_changed_is_laid_anew(
        self, database_url: str, damage: str, step: str
    ) -> None:
        before = catalogs(database_url)
        run_sql(database_url, damage)
        assert plan(database_url) == [step]
        assert migrate(database_url) == [step]
        assert catalogs(database_url) == before

    def test_an_extension_that_was_moved(self, database_url: str) -> None:
        run_sql(database_url, "SELECT pgclip.register_model('m', 2, 10, '{\"fatal\": {}}')")
        run_sql(database_url, "CREATE SCHEMA extensions")
        run_sql(database_url, "ALTER EXTENSION vector SET SCHEMA extensions")
        search = "SELECT * FROM pgclip.search_vector('[1, 0]'::extensions.halfvec)"
        with pytest.raises(psycopg2.Error):
            run_sql(database_url, search)
        assert any("search_vector" in step for step in plan(database_url))
        migrate(database_url)
        assert plan(database_url) == []
        assert run_sql(database_url, search) == []

    def test_what_another_role_owns_is_given_back(self, database_url: str, sql: Sql) -> None:
        (name,) = sql("SELECT 'other_' || left(md5(random()::text), 8)")[0]
        sql(f"CREATE ROLE {name}")
        try:
            sql(f"ALTER FUNCTION pgclip.store OWNER TO {name}")
            sql(f"ALTER TABLE pgclip.item OWNER TO {name}")
            assert sorted(step.split(";")[0] for step in plan(database_url))[:2] == [
                "give ROUTINE pgclip.store(uuid,bigint,bigint[],bytea[],jsonb) to postgres",
                "give TABLE pgclip.item to postgres",
            ]
            migrate(database_url)
            assert plan(database_url) == []
            assert sql("SELECT tableowner FROM pg_tables WHERE tablename = 'item'") == [
                ("postgres",)
            ]
        finally:
            sql(f"DROP ROLE {name}")

    def test_roles_are_granted_again(self, database_url: str, sql: Sql) -> None:
        (suffix,) = sql("SELECT left(md5(random()::text), 8)")[0]
        app, gpu = f"my-App {suffix}", f"gpu_{suffix}"
        sql(f'CREATE ROLE "{app}"; CREATE ROLE {gpu}')
        may = "SELECT has_function_privilege(%s, %s, 'EXECUTE')"
        try:
            sql("SELECT pgclip.grant_access(%s, 'client')", app)
            sql("SELECT pgclip.grant_access(%s, 'worker')", gpu)
            sql("DROP FUNCTION pgclip.heal, pgclip.heartbeat; DROP VIEW pgclip.missing")
            migrate(database_url)
            heal, heartbeat = (
                "pgclip.heal(bigint, int)",
                "pgclip.heartbeat(bigint, float8, text, bigint)",
            )
            assert sql(may, app, heal) == [(True,)]
            assert sql(may, gpu, heal) == [(False,)]
            assert sql(may, gpu, heartbeat) == [(True,)]
            assert sql("SELECT has_table_privilege(%s, 'pgclip.missing', 'SELECT')", app) == [
                (True,)
            ]
            sql(f'REVOKE SELECT ON pgclip.items FROM "{app}"')
            assert plan(database_url) == [f'GRANT SELECT ON pgclip.items TO "{app}"']
            sql("SELECT pgclip.revoke_access(%s)", app)
            assert plan(database_url) == []
        finally:
            sql(f'DROP OWNED BY "{app}", {gpu}; DROP ROLE "{app}", {gpu}')

    def test_a_function_in_an_index_changes_with_its_index(
        self, database_url: str, sql: Sql
    ) -> None:
        sql("SELECT pgclip.index_metadata('price')")
        sql("SELECT pgclip.submit_text('a', key => 'a', metadata => '{\"price\": 3}')")
        # Another function, with its index: both are of before.
        sql("CREATE OR REPLACE FUNCTION pgclip._comparable(p_value jsonb) RETURNS jsonb"
            " LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT '0'::jsonb $$")  # fmt: skip
        sql("REINDEX TABLE pgclip.item")
        (name,) = sql("SELECT name FROM pgclip.metadata_index")[0]
        assert migrate(database_url) == ["lay function _comparable: it has been changed by hand"]
        sql("SET enable_seqscan = off; SET enable_bitmapscan = off")
        find = "SELECT key FROM pgclip.item WHERE pgclip._comparable((metadata -> 'price')) > '2'"
        assert name in str(sql(f"EXPLAIN {find}"))
        assert sql(find) == [("a",)]


class TestOthers:
    """What somebody else made on top of ours."""

    def test_a_view_on_ours_stays_when_ours_is_replaced_in_place(
        self, database_url: str, sql: Sql
    ) -> None:
        sql("CREATE VIEW public.mine AS SELECT key, state FROM pgclip.items")
        sql("CREATE OR REPLACE VIEW pgclip.items AS SELECT i.* FROM (" + _definition(sql, "items")
            + ") i")  # fmt: skip
        migrate(database_url)
        assert sql("SELECT * FROM public.mine") == []

    def test_what_depends_on_ours_is_named_before_anything_changes(
        self, database_url: str, sql: Sql
    ) -> None:
        definition = _definition(sql, "queue")
        sql("DROP VIEW pgclip.queue")
        sql(f"CREATE VIEW pgclip.queue AS SELECT q.*, 1 AS another FROM ({definition}) q")
        sql("CREATE VIEW public.theirs AS SELECT * FROM pgclip.queue")
        sql("DROP FUNCTION pgclip.store")
        with pytest.raises(SchemaError, match=r"view (public\.)?theirs depends on view queue"):
            migrate(database_url)
        assert sql("SELECT count(*) FROM pg_proc WHERE proname = 'store'") == [(0,)]
        with pytest.raises(SchemaError, match="theirs"):
            remove(database_url)
        sql("DROP VIEW public.theirs")
        migrate(database_url)
        assert plan(database_url) == []

    def test_what_others_made_in_our_schema_stays(self, database_url: str, sql: Sql) -> None:
        sql("CREATE FUNCTION pgclip.theirs() RETURNS int LANGUAGE sql AS 'SELECT 1'")
        sql("CREATE VIEW pgclip.of_theirs AS SELECT 1 AS one")
        (name,) = sql("SELECT 'other_' || left(md5(random()::text), 8)")[0]
        sql(f"CREATE ROLE {name}; CREATE TABLE pgclip.a_table_of_theirs (x int)")
        sql(f"ALTER TABLE pgclip.a_table_of_theirs OWNER TO {name}")
        sql("CREATE TRIGGER theirs BEFORE UPDATE ON pgclip.item FOR EACH ROW"
            " EXECUTE FUNCTION suppress_redundant_updates_trigger()")  # fmt: skip
        sql("DROP FUNCTION pgclip.store")
        migrate(database_url)
        assert sql("SELECT pgclip.theirs(), one FROM pgclip.of_theirs") == [(1, 1)]
        assert sql("SELECT count(*) FROM pg_trigger WHERE tgname = 'theirs'") == [(1,)]
        owner = "SELECT tableowner FROM pg_tables WHERE tablename = 'a_table_of_theirs'"
        assert sql(owner) == [(name,)]
        sql(f"DROP OWNED BY {name}; DROP ROLE {name}")


def _definition(sql: Sql, view: str) -> str:
    (text,) = sql("SELECT pg_get_viewdef(%s::regclass)", f"pgclip.{view}")[0]
    return str(text).rstrip(";")


class TestLocks:
    def test_it_waits_a_short_time_tries_again_and_names_who_is_in_the_way(
        self, database_url: str, sql: Sql, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("pgclip.migrate._LOCK_TIMEOUT", "50ms")
        monkeypatch.setattr("pgclip.migrate._PAUSE", 0.02)
        sql("DROP TRIGGER item_added ON pgclip.item")
        blocker = psycopg2.connect(database_url, application_name="a long report")
        with blocker.cursor() as cursor:
            cursor.execute("LOCK TABLE pgclip.item IN ROW EXCLUSIVE MODE")
        told: list[str] = []
        with pytest.raises(ConnectionFailed, match=r"pid \d+ \(postgres, a long report, idle in"):
            migrate(database_url, told.append)
        assert len(told) == 4
        threading.Timer(0.5, blocker.close).start()
        assert migrate(database_url, told.append) == ["lay trigger item_added: it is missing"]
        assert len(told) > 4

    def test_two_at_once(self, empty: str) -> None:
        done: list[list[str]] = []
        threads = [threading.Thread(target=lambda: done.append(migrate(empty))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(map(len, done)) == [0, 0, 1]


class TestVersions:
    def test_up_and_away_and_up(self, database_url: str) -> None:
        run_sql(database_url, "SELECT pgclip.register_model('m', 4, 10, '{\"fatal\": {}}')")
        remove(database_url)
        assert run_sql(database_url, OBJECTS) == [(0,)]
        assert migrate(database_url) == [f"create schema pgclip, at version {SCHEMA_VERSION}"]
        first = run_sql(database_url, OBJECTS)
        migrate(database_url)  # again: nothing to do
        assert run_sql(database_url, OBJECTS) == first
        assert run_sql(database_url, "SELECT version_num FROM pgclip.schema_version") == [
            (SCHEMA_VERSION,)
        ]

    def test_an_extension_in_another_schema(self, database_url: str) -> None:
        remove(database_url)
        run_sql(database_url, "DROP EXTENSION vector; CREATE SCHEMA ext")
        run_sql(database_url, "CREATE EXTENSION vector SCHEMA ext")
        migrate(database_url)
        run_sql(database_url, "SELECT pgclip.register_model('m', 2, 10, '{\"fatal\": {}}')")
        find = "SELECT * FROM pgclip.search_vector('[1, 0]'::ext.halfvec)"
        assert run_sql(database_url, find) == []

    def test_an_unmigrated_a_newer_and_an_older_schema(
        self, services: LocalServices, database_url: str, sql: Sql
    ) -> None:
        def submit() -> None:
            with Client(database_url=database_url, redis_url=services.redis_url) as client:
                client.submit_text("hello")

        sql("UPDATE pgclip.schema_version SET version_num = '9999'")
        submit()  # it says that it answers this version, too
        with pytest.raises(SchemaError, match="newer"):
            migrate(database_url)
        sql("CREATE OR REPLACE FUNCTION pgclip.serves() RETURNS text LANGUAGE sql IMMUTABLE"
            " PARALLEL SAFE AS $$ SELECT '9998' $$")  # fmt: skip
        with pytest.raises(SchemaError, match=r"newer than this package's .* Upgrade the package"):
            submit()
        sql("UPDATE pgclip.schema_version SET version_num = '0000'")
        with pytest.raises(SchemaError, match="Run: pgclip migrate"):
            submit()
        sql(f"UPDATE pgclip.schema_version SET version_num = '{SCHEMA_VERSION}'")
        remove(database_url)
        with pytest.raises(SchemaError, match="has no schema pgclip"):
            submit()

    def test_an_unreachable_postgres(self, services: LocalServices) -> None:
        url = "postgresql://nobody@127.0.0.1:1/none"
        with (
            Client(database_url=url, redis_url=services.redis_url) as client,
            pytest.raises(ConnectionFailed, match=r"text 'a'.*Is Postgres running"),
        ):
            client.submit_text("hello", key="a")
        with pytest.raises(ConnectionFailed):
            migrate(url)
        with pytest.raises(ConfigurationError, match="not a URL"):
            migrate("nonsense")


class TestCommand:
    def run(
        self, capsys: pytest.CaptureFixture[str], url: str, *options: str
    ) -> tuple[int, str, str]:
        code = main(["migrate", "--database-url", url, *options])
        told = capsys.readouterr()
        return code, told.out, told.err

    def test_it_says_what_it_does(
        self, capsys: pytest.CaptureFixture[str], database_url: str
    ) -> None:
        at = f"schema pgclip is at version {SCHEMA_VERSION}\n"
        assert self.run(capsys, database_url) == (0, at, "")
        assert self.run(capsys, database_url, "--plan") == (0, "nothing to do\n", "")
        run_sql(database_url, "DROP VIEW pgclip.queue")
        step = "lay view queue: it is missing\n"
        assert self.run(capsys, database_url, "--plan") == (0, step, "")
        assert self.run(capsys, database_url) == (0, step + at, "")

    def test_it_names_the_trouble(
        self, capsys: pytest.CaptureFixture[str], database_url: str
    ) -> None:
        code, _, told = self.run(capsys, with_database(database_url, "no_such_database"))
        assert code == 1
        assert "no_such_database" in told
        assert "Traceback" not in told

    def test_it_removes(
        self,
        capsys: pytest.CaptureFixture[str],
        database_url: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO())
        assert self.run(capsys, database_url, "--remove")[0] == 1  # nobody says yes
        assert self.run(capsys, database_url, "--remove", "--yes")[0] == 0
        assert run_sql(database_url, OBJECTS) == [(0,)]
