"""Roles: what a client and a worker may do, and that no function is a way around it."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import pytest
from support.databases import assert_ledger_is_true
from support.processes import WorkerFactory, eventually
from support.roles import as_role

from pgclip import Client
from pgclip.local import LocalServices

Sql = Callable[..., list[Any]]


@pytest.fixture
def roles(sql: Sql) -> Iterator[dict[str, str]]:
    """The names of login roles; those for clients and workers have been granted their access."""
    suffix = sql("SELECT left(md5(current_database()), 8)")[0][0]
    names = {access: f"{access}_{suffix}" for access in ("client", "worker", "nobody")}
    for access, name in names.items():
        sql(f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
        if access != "nobody":
            sql("SELECT pgclip.grant_access(%s, %s)", name, access)
    yield names
    left = "SELECT count(*) FROM pg_stat_activity WHERE usename = ANY(%s)"
    eventually(lambda: sql(left, list(names.values())) == [(0,)])  # their temporary tables too
    for name in names.values():
        sql(f"DROP OWNED BY {name}")
        sql(f"DROP ROLE {name}")


@pytest.fixture
def run_as(database_url: str, roles: dict[str, str]) -> Iterator[Callable[..., list[Any]]]:
    """Runs a statement in autocommit, on one connection for each role."""
    connections: dict[str, Any] = {}

    def run(access: str, statement: str, *arguments: Any) -> list[Any]:
        if access not in connections:
            connections[access] = psycopg2.connect(as_role(database_url, roles[access]))
            connections[access].autocommit = True
        with connections[access].cursor() as cursor:
            cursor.execute(statement, arguments or None)
            return cursor.fetchall() if cursor.description else []

    yield run
    for connection in connections.values():
        connection.close()


def test_the_whole_story_with_these_two_roles(
    database_url: str, services: LocalServices, roles: dict[str, str], start_worker: WorkerFactory
) -> None:
    start_worker(as_role(database_url, roles["worker"]), PGCLIP_SEGMENT_ROWS="20",
                 PGCLIP_STEWARD_INTERVAL="0.2")  # fmt: skip
    url = as_role(database_url, roles["client"])
    with Client(database_url=url, redis_url=services.redis_url) as client:
        client.submit_text("one", key="a").wait(60)
        client.submit_many({"text": f"text {n}", "key": f"k{n}"} for n in range(50)).wait(60)
        hits = client.search("text 7", k=3)
        assert hits[0].key == "k7"
        assert client.search(like="k7", k=3, exact=True)
        assert client.search([("text 7", 1.0), ("text 8", -0.2)], k=1)[0].key == "k7"
        assert client.hybrid("text 7")[0].key == "k7"
        assert client.duplicates_of("k7") == []
        assert client.duplicate_groups() == []
        assert client.get("k7").state == "done"
        assert client.content("k7") == b"text 7"
        assert client.count()["done"] == 51
        assert client.collections()[0].items == 51
        assert [each.name for each in client.label_sets()] == ["general", "moderation"]
        assert client.segments()
        client.delete("a")
        assert client.delete_items(keys=["k1"]) == 1
    assert_ledger_is_true(database_url)


DENIED = {
    "client": [
        "INSERT INTO pgclip.failure VALUES (1, 1, 1, 'x', 'x')",
        "UPDATE pgclip.item SET metadata = '{}'",
        "DELETE FROM pgclip.embedding_set",
        "SELECT data FROM pgclip.query_request",
        "SELECT * FROM pgclip.content",
        "SELECT * FROM pgclip.embedding_1_1",
        "SELECT pgclip.claim(1, gen_random_uuid(), 1, 1)",
        "SELECT pgclip.store(gen_random_uuid(), 1, '{}', '{}', '[]')",
        "SELECT pgclip.answer_query(1::smallint, 'text', '\\x00', '{1}')",
        "SELECT pgclip.drop_retired(1::smallint, '0')",
        "SELECT pgclip._delete_items('{1}')",
        "SELECT pgclip._find(NULL, NULL, NULL, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,"
        " NULL, NULL)",
        "SELECT pgclip.define_label_set('x', '{a,b}')",
        "SELECT pgclip.add_model('x')",
        "SELECT pgclip.index_metadata('x')",
        "SELECT pgclip.grant_access(current_user, 'worker')",
        "CREATE TABLE pgclip.mine (x int)",
        "DROP VIEW pgclip.items",
    ],
    "worker": [
        "SELECT pgclip.submit_text('a')",
        "SELECT pgclip.delete('a')",
        "SELECT pgclip.search('a')",
        "SELECT * FROM pgclip.item",
        "UPDATE pgclip.job SET lease = NULL",
        "INSERT INTO pgclip.label_vector VALUES (1, 1, 1, '{1}')",
        "SELECT pgclip.promote_model('x')",
        "SELECT pgclip.grant_access(current_user, 'client')",
        "DROP TABLE pgclip.embedding_1_1",
    ],
    "nobody": ["SELECT * FROM pgclip.items", "SELECT pgclip.submit_text('a')"],
}


@pytest.mark.parametrize(
    ("access", "statement"), [(a, each) for a, all_ in DENIED.items() for each in all_]
)
def test_what_each_may_not_do(
    run_as: Callable[..., list[Any]], sql: Sql, access: str, statement: str
) -> None:
    sql("SELECT pgclip.register_model('m', 2, 10, '{\"fatal\": {}}')")
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        run_as(access, statement)


def test_a_planted_staging_table_is_not_touched(run_as: Callable[..., list[Any]]) -> None:
    for kind in ("TABLE staged_submission (place int)", "VIEW staged_submission AS SELECT 1"):
        run_as("client", f"CREATE TEMPORARY {kind}")
        for call in ("open_staging()", "submit_staged()"):
            with pytest.raises(psycopg2.Error, match="not one that pgclip made") as caught:
                run_as("client", f"SELECT pgclip.{call}")
            assert caught.value.pgcode == "PC001"
        run_as("client", f"DROP {kind.split()[0]} pg_temp.staged_submission")
    run_as("client", "SELECT pgclip.open_staging()")
    run_as("client", "INSERT INTO pg_temp.staged_submission (place, kind, data, collection) "
                     "VALUES (1, 'text', 'a', 'default')")  # fmt: skip
    trigger = "BEFORE INSERT ON pg_temp.staged_submission FOR EACH ROW"
    function = "suppress_redundant_updates_trigger()"
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        run_as("client", f"CREATE TRIGGER t {trigger} EXECUTE FUNCTION {function}")


def test_a_planted_function_is_not_called(
    run_as: Callable[..., list[Any]], roles: dict[str, str]
) -> None:
    """Names are looked up in pg_catalog first, and nowhere that a caller may write."""
    run_as("client", "CREATE FUNCTION pg_temp.sha256(bytea) RETURNS bytea LANGUAGE plpgsql AS "
                     "$$ BEGIN RAISE 'planted: %', current_user; END $$")  # fmt: skip
    run_as("client", "SET search_path = pg_temp, public")
    run_as("client", "SELECT pgclip.submit_text('a')")


def test_every_function_of_the_owner_has_a_fixed_search_path(sql: Sql) -> None:
    open_ones = sql("""
        SELECT proname FROM pg_proc WHERE pronamespace = 'pgclip'::regnamespace AND prosecdef
        AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY(proconfig), false)
    """)
    assert open_ones == []
    for access in ("client", "worker"):
        missing = sql("""
            SELECT f FROM unnest(pgclip._functions_of(%s)) f WHERE NOT EXISTS (
                SELECT FROM pg_proc WHERE pronamespace = 'pgclip'::regnamespace AND proname = f)
        """, access)  # fmt: skip
        assert missing == []


def test_access_is_taken_back(
    run_as: Callable[..., list[Any]], roles: dict[str, str], sql: Sql
) -> None:
    assert run_as("client", "SELECT count(*) FROM pgclip.items") == [(0,)]
    sql("SELECT pgclip.revoke_access(%s)", roles["client"])
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        run_as("client", "SELECT count(*) FROM pgclip.items")
    with pytest.raises(psycopg2.Error, match="access is client, worker or indexer") as caught:
        sql("SELECT pgclip.grant_access('x', 'owner')")
    assert caught.value.pgcode == "PC001"
