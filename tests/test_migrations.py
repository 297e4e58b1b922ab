import subprocess
import sys
from collections.abc import Callable

import psycopg2
import pytest
from conftest import run_sql, with_database

from pgclip import Client, ConnectionFailed, SchemaError
from pgclip.database import SCHEMA_VERSION
from pgclip.errors import ConfigurationError
from pgclip.local import LocalServices
from pgclip.migrate import migrate

OBJECTS = """
    SELECT (SELECT count(*) FROM pg_class WHERE relnamespace = to_regnamespace('pgclip'))
         + (SELECT count(*) FROM pg_proc WHERE pronamespace = to_regnamespace('pgclip'))
         + (SELECT count(*) FROM pg_type WHERE typnamespace = to_regnamespace('pgclip'))
"""


def test_up_down_up(database_url: str) -> None:
    run_sql(database_url, "SELECT pgclip.register_model('m', 4, 10, '{\"fatal\": {}}')")
    migrate(database_url, "base")
    assert run_sql(database_url, OBJECTS) == [(0,)]
    migrate(database_url)
    first = run_sql(database_url, OBJECTS)
    migrate(database_url)  # again: nothing to do
    assert run_sql(database_url, OBJECTS) == first
    assert run_sql(database_url, "SELECT version_num FROM pgclip.schema_version") == [
        (SCHEMA_VERSION,)
    ]


def test_it_goes_forward_only(database_url: str) -> None:
    with pytest.raises(SchemaError, match="forward only"):
        migrate(database_url, "0001")


def test_a_database_with_data_is_upgraded(services: LocalServices) -> None:
    run_sql(services.database_url, "CREATE DATABASE upgraded")
    url = with_database(services.database_url, "upgraded")
    migrate(url, "0001")
    run_sql(url, "SELECT pgclip.register_model('m', 4, 10, '{\"fatal\": {}}')")
    connection = psycopg2.connect(url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("SELECT pgclip.open_staging()")  # a session from before the upgrade
        cursor.execute("SELECT pgclip.submit_text('a text', key => 'a')")
        cursor.execute("SELECT pgclip.submit_text('a rare word', key => 'stored')")
        cursor.execute(
            "WITH v AS (INSERT INTO pgclip.embedding_1 (segment, item_id, collection_id, kind,"
            " embedding) SELECT 1, id, collection_id, kind, '[1,0,0,0]' FROM pgclip.item"
            " WHERE key = 'stored' RETURNING id, item_id)"
            "INSERT INTO pgclip.embedding_set SELECT item_id, 1, 1, 'text', '', ARRAY[id] FROM v;"
            "DELETE FROM pgclip.job WHERE item_id = (SELECT item_id FROM pgclip.embedding_set)"
        )
        migrate(url)
        cursor.execute("SELECT key, state, kept FROM pgclip.items ORDER BY key")
        assert cursor.fetchall() == [("a", "queued", True), ("stored", "done", True)]
        cursor.execute("SELECT key FROM pgclip.search_vector(pgclip.as_vector('{1,0,0,0}'))")
        assert cursor.fetchall() == [("stored",)]
        cursor.execute("SELECT count(*) FROM pgclip.item_text WHERE words @@ 'rare'")
        assert cursor.fetchall() == [(1,)]
        cursor.execute(
            "SELECT error FROM pgclip.submit_batch(ARRAY['text'], ARRAY['b'], ARRAY['b'::bytea],"
            " ARRAY[NULL], ARRAY['default'], ARRAY['{}'], ARRAY[1], ARRAY[true])"
        )
        assert cursor.fetchall() == [(None,)]
    connection.close()


def test_roles_with_access_have_what_is_new(services: LocalServices) -> None:
    run_sql(services.database_url, "CREATE DATABASE granted")
    url = with_database(services.database_url, "granted")
    migrate(url, "0004")
    run_sql(url, 'CREATE ROLE "my-App"; CREATE ROLE gpu')
    try:
        run_sql(url, "SELECT pgclip.grant_access('my-App', 'client')")
        run_sql(url, "SELECT pgclip.grant_access('gpu', 'worker')")
        migrate(url)
        may = "SELECT has_function_privilege(%s, %s, 'EXECUTE')"
        heal, heartbeat = "pgclip.heal(bigint, int)", "pgclip.heartbeat(bigint, float8, text)"
        assert run_sql(url, may, "my-App", heal) == [(True,)]
        assert run_sql(url, may, "gpu", heal) == [(False,)]
        assert run_sql(url, may, "gpu", heartbeat) == [(True,)]
        assert run_sql(url, "SELECT has_table_privilege('my-App', 'pgclip.missing', 'SELECT')") == [
            (True,)
        ]
    finally:
        run_sql(url, "SELECT pgclip.revoke_access('my-App'), pgclip.revoke_access('gpu')")
        run_sql(url, 'DROP ROLE "my-App", gpu')


def test_the_command_works_and_names_the_trouble(database_url: str) -> None:
    command = [sys.executable, "-m", "pgclip", "migrate", "--database-url"]
    done = subprocess.run([*command, database_url], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "schema pgclip is at head\n")
    nobody = with_database(database_url, "no_such_database")
    failed = subprocess.run([*command, nobody], capture_output=True, text=True)
    assert failed.returncode == 1
    assert "no_such_database" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_an_extension_in_another_schema(services: LocalServices, database_url: str) -> None:
    migrate(database_url, "base")
    run_sql(database_url, "DROP EXTENSION vector; CREATE SCHEMA ext")
    run_sql(database_url, "CREATE EXTENSION vector SCHEMA ext")
    migrate(database_url)
    run_sql(database_url, "SELECT pgclip.register_model('m', 2, 10, '{\"fatal\": {}}')")
    assert run_sql(database_url, "SELECT * FROM pgclip.search_vector('[1, 0]'::ext.halfvec)") == []


def test_an_unmigrated_a_newer_and_an_older_schema(
    services: LocalServices, database_url: str, sql: Callable[..., object]
) -> None:
    def submit() -> None:
        with Client(database_url=database_url, redis_url=services.redis_url) as client:
            client.submit_text("hello")

    sql("UPDATE pgclip.schema_version SET version_num = '9999'")
    with pytest.raises(SchemaError, match=r"newer than this package's .* Upgrade the package"):
        submit()
    with pytest.raises(SchemaError, match="newer"):
        migrate(database_url)
    sql("UPDATE pgclip.schema_version SET version_num = '0000'")
    with pytest.raises(SchemaError, match="Run: pgclip migrate"):
        submit()
    sql(f"UPDATE pgclip.schema_version SET version_num = '{SCHEMA_VERSION}'")
    migrate(database_url, "base")
    with pytest.raises(SchemaError, match="has no schema pgclip"):
        submit()


def test_an_unreachable_postgres(services: LocalServices) -> None:
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
