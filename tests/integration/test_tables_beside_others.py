"""Indexed tables at work: real workers, writers at once, roles with few rights, searches."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import pytest
from support.databases import assert_ledger_is_true, run_sql
from support.processes import WorkerFactory, eventually
from support.roles import Roles

from pgclip import Client
from pgclip.local import LocalServices

Sql = Callable[..., list[Any]]
SEARCH = """SELECT (r.hit).id, (r.hit).title, r.part, r.key
            FROM pgclip.search_rows(NULL::product, 'text 3', k => 2) r"""


def made(sql: Sql, **arguments: str) -> None:
    sql("CREATE TABLE product (id int PRIMARY KEY, title text, about text, price int)")
    sql("INSERT INTO product SELECT n, 'text ' || n, 'about ' || n, n FROM generate_series(1, 9) n")
    more = "".join(f", {name} => {value}" for name, value in arguments.items())
    sql(f"SELECT pgclip.index_table('product', texts => '{{title,about}}', "
        f"metadata => '{{price}}'{more})")  # fmt: skip


def is_all_there(sql: Sql) -> bool:
    (state,) = sql("SELECT state, waiting, changes FROM pgclip.tables")
    return bool(state == ("followed", 0, 0))


@pytest.fixture
def client(database_url: str, services: LocalServices) -> Iterator[Client]:
    with Client(database_url=database_url, redis_url=services.redis_url) as client:
        yield client


def test_written_followed_and_found(
    sql: Sql, database_url: str, start_worker: WorkerFactory, client: Client
) -> None:
    start_worker(database_url)
    made(sql)
    eventually(lambda: is_all_there(sql))
    client.embed("text 3")
    assert sql(SEARCH)[0] == (3, "text 3", "title", "3")
    assert len({row[0] for row in sql(SEARCH)}) == 2  # each row once
    sql("UPDATE product SET title = 'text 33' WHERE id = 3")
    sql("INSERT INTO product VALUES (10, 'text 3')")
    eventually(lambda: is_all_there(sql))
    assert sql(SEARCH)[0] == (10, "text 3", "title", "10")
    filtered = SEARCH.replace("k => 2", """k => 5, filter => '{"price": {"lt": 3}}'""")
    assert {row[0] for row in sql(filtered)} == {1, 2}
    by_vector = """SELECT (r.hit).id FROM pgclip.search_rows(NULL::product, k => 1,
        vector => pgclip.item_embedding('4', 'product')) r"""
    assert sql(by_vector) == [(4,)]
    sql("DELETE FROM product WHERE id = 10")
    eventually(lambda: is_all_there(sql))
    assert 10 not in {row[0] for row in sql(SEARCH)}
    assert_ledger_is_true(database_url)


@pytest.mark.parametrize(
    ("query", "message"),
    {
        "NULL::product, k => 2": "give a query, an image or a vector",
        "NULL::product, 'a', vector => '[1]'": "give a query, an image or a vector",
        "NULL::other, 'a'": "other is no table that is indexed",
        "NULL::product, 'a', collection => 'x'": "not?.*indexed in collection x|no table",
        "NULL::product, 'never asked for'": "embed",
    }.items(),
)
@pytest.mark.usefixtures("model")
def test_searches_that_say_what_is_wrong(sql: Sql, query: str, message: str) -> None:
    made(sql)
    sql("CREATE TABLE other (id int)")
    with pytest.raises(psycopg2.Error, match=message):
        sql(f"SELECT * FROM pgclip.search_rows({query})")


@pytest.mark.usefixtures("model")
def test_a_table_in_several_collections(sql: Sql) -> None:
    made(sql)
    sql("SELECT pgclip.index_table('product', text => 'title', collection => 'titles')")
    with pytest.raises(psycopg2.Error, match="indexed in several collections; name one"):
        sql("SELECT * FROM pgclip.search_rows(NULL::product, 'a')")


def test_many_write_at_once(sql: Sql, database_url: str, start_worker: WorkerFactory) -> None:
    """The last state of each row counts, whoever wrote it and whichever worker read it."""
    for _ in range(2):
        start_worker(database_url)
    made(sql)

    def write(seed: int) -> None:
        connection = psycopg2.connect(database_url)
        connection.autocommit = True
        with connection.cursor() as cursor:
            for n in range(60):
                row = (seed * 7 + n * 3) % 12
                cursor.execute(
                    "INSERT INTO product VALUES (%s, %s, %s, %s) ON CONFLICT (id) DO UPDATE "
                    "SET title = excluded.title, price = excluded.price",
                    (row, f"title {seed} {n}", "about", n),
                )
                if n % 5 == 0:
                    cursor.execute("DELETE FROM product WHERE id = %s", ((row + 1) % 12,))
        connection.close()

    writers = [threading.Thread(target=write, args=(seed,)) for seed in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    eventually(lambda: is_all_there(sql))
    wanted = "SELECT id::text, title FROM product WHERE title <> '' ORDER BY 1"
    found = """SELECT t.row_key, convert_from(c.data, 'UTF8') FROM pgclip.table_item t
               JOIN pgclip.item i ON i.id = t.item_id
               JOIN pgclip.content c ON c.kind = i.kind AND c.hash = i.content_hash
               WHERE t.part = 'title' ORDER BY 1"""
    assert sql(found) == sql(wanted)
    assert sql("SELECT * FROM pgclip.missing_rows('product')") == []
    assert_ledger_is_true(database_url)


def test_indexing_gives_up_beside_an_open_writer(sql: Sql, database_url: str) -> None:
    """After two seconds, and not half."""
    sql("CREATE TABLE product (id int PRIMARY KEY, title text)")
    writer = psycopg2.connect(database_url)
    writer.cursor().execute("INSERT INTO product VALUES (1, 'one')")
    with pytest.raises(psycopg2.errors.LockNotAvailable):
        sql("SELECT pgclip.index_table('product', text => 'title')")
    assert sql("SELECT FROM pgclip.indexed_table") == []
    writer.commit()
    sql("SELECT pgclip.index_table('product', text => 'title')")
    assert sql("SHOW lock_timeout") == [("0",)]
    writer.close()


def grant_indexing(roles: Roles) -> None:
    """To the client, whose tables are read by pgclip's owner from then on."""
    run_sql(roles.of("owner"), f"SELECT pgclip.grant_access('{roles.client}', 'indexer')")


def test_roles_with_few_rights(
    ordinary: Roles, services: LocalServices, start_worker: WorkerFactory
) -> None:
    """The application's role owns its tables, is a client, and nothing else; another writes."""
    as_owner, as_app, as_admin = ordinary.of("owner"), ordinary.of("client"), ordinary.url
    index = "SELECT pgclip.index_table('app.product', text => 'title')"
    run_sql(as_admin, f"CREATE SCHEMA app AUTHORIZATION {ordinary.client}")
    run_sql(as_app, "CREATE TABLE app.product (id int PRIMARY KEY, title text, secret text)")
    run_sql(as_app, f"GRANT USAGE ON SCHEMA app TO {ordinary.worker}")
    run_sql(as_app, f"GRANT SELECT, INSERT ON app.product TO {ordinary.worker}")
    start_worker(ordinary.of("worker"))
    with pytest.raises(psycopg2.Error, match="permission denied for function index_table"):
        run_sql(as_app, index)
    grant_indexing(ordinary)
    run_sql(as_app, index)
    run_sql(ordinary.of("worker"), "INSERT INTO app.product VALUES (1, 'text 1', 'x')")
    eventually(lambda: run_sql(as_app, "SELECT items, waiting FROM pgclip.tables") == [(1, 0)])
    with pytest.raises(psycopg2.Error, match="permission denied for table product"):
        run_sql(as_owner, "SELECT secret FROM app.product")  # what counts alone was granted
    with Client(database_url=as_app, redis_url=services.redis_url) as client:
        client.embed("text 1")
    search = "SELECT (r.hit).secret FROM pgclip.search_rows(NULL::app.product, 'text 1') r"
    assert run_sql(as_app, search) == [("x",)]
    with pytest.raises(
        psycopg2.Error, match=r"can't be indexed by|must be owner|permission denied"
    ):
        run_sql(as_owner, "SELECT pgclip.index_table('app.product', text => 'title', "
                          "collection => 'again')")  # fmt: skip
    with pytest.raises(psycopg2.Error, match="must be owner"):
        run_sql(as_owner, "SELECT pgclip.unindex_table('app.product')")
    # One who may search, but not read the table, gets no rows of it.
    reader = ordinary.owner
    run_sql(as_admin, f"GRANT USAGE ON SCHEMA app TO {reader}")
    with pytest.raises(psycopg2.Error, match="permission denied for table product"):
        run_sql(as_owner, search)
    with pytest.raises(psycopg2.Error, match="permission denied for table"):
        run_sql(as_owner, "SELECT * FROM pgclip.missing_rows('app.product')")


def test_row_level_security(
    ordinary: Roles, services: LocalServices, start_worker: WorkerFactory
) -> None:
    as_app = ordinary.of("client")
    grant_indexing(ordinary)
    run_sql(ordinary.url, f"CREATE SCHEMA app AUTHORIZATION {ordinary.client}")
    run_sql(
        as_app,
        """CREATE TABLE app.product (id int PRIMARY KEY, title text, tenant text);
        ALTER TABLE app.product ENABLE ROW LEVEL SECURITY;
        ALTER TABLE app.product FORCE ROW LEVEL SECURITY;
        CREATE POLICY p ON app.product USING (tenant = current_setting('app.tenant', true))""",
    )
    index = "SELECT pgclip.index_table('app.product', text => 'title')"
    with pytest.raises(psycopg2.Error, match=r"row-level security keeps rows (.|\n)*BYPASSRLS"):
        run_sql(as_app, index)
    run_sql(ordinary.url, f"ALTER ROLE {ordinary.owner} BYPASSRLS")
    run_sql(as_app, index)
    for number, tenant in enumerate("aab"):
        run_sql(as_app, f"SET app.tenant = '{tenant}'; INSERT INTO app.product VALUES "
                        f"({number}, 'text {number}', '{tenant}')")  # fmt: skip
    start_worker(ordinary.of("worker"))
    eventually(lambda: run_sql(as_app, "SELECT items, waiting FROM pgclip.tables") == [(3, 0)])
    with Client(database_url=as_app, redis_url=services.redis_url) as client:
        client.embed("text 2")
    search = "SELECT (r.hit).id FROM pgclip.search_rows(NULL::app.product, 'text 2', k => 2) r"
    assert {row for (row,) in run_sql(as_app, f"SET app.tenant = 'a'; {search}")} == {0, 1}
    assert run_sql(as_app, f"SET app.tenant = 'b'; {search}") == [(2,)]


def test_nobody_runs_code_with_the_owner_s_rights(ordinary: Roles) -> None:
    """What a client writes into an expression, a type or a temporary table stays his own."""
    as_app = ordinary.of("client")
    grant_indexing(ordinary)
    run_sql(ordinary.url, f"CREATE SCHEMA app AUTHORIZATION {ordinary.client}")
    run_sql(
        as_app,
        """SET search_path = app;
        CREATE TABLE product (id int PRIMARY KEY, title text);
        CREATE FUNCTION mine(text) RETURNS text LANGUAGE plpgsql IMMUTABLE
            AS 'BEGIN RETURN current_user; END';
        CREATE DOMAIN checked AS text CHECK (mine(value) <> '');
        CREATE TABLE keys (id checked[] PRIMARY KEY, title text)""",
    )
    with pytest.raises(psycopg2.Error, match="which is not built in"):
        run_sql(as_app, "SELECT pgclip.index_table('app.keys', text => 'title')")
    for expression in ("app.mine(title)", "title OPERATOR(app.+++) title", "title::app.checked"):
        with pytest.raises(psycopg2.Error, match=r"an expression uses|can't be indexed"):
            run_sql(as_app, f"SELECT pgclip.index_table('app.product', text => '{expression}')")
    injected = "title)::text) STORED; DROP TABLE pgclip.item; --"
    with pytest.raises(psycopg2.Error, match=r"must be owner|can't be indexed"):
        run_sql(as_app, f"SELECT pgclip.index_table('app.product', text => '{injected}')")
    with pytest.raises(psycopg2.Error, match=r"call pgclip\.index_table"):
        run_sql(as_app, "SELECT pgclip._define_table('app.product', 'c', '{}', '{title}', '{}', 1, "
                        "false)")  # fmt: skip
    run_sql(as_app, "SELECT pgclip.index_table('app.product', text => 'title')")
    with pytest.raises(psycopg2.Error, match=r"call pgclip\.unindex_table"):
        run_sql(as_app, "SELECT pgclip._leave_table(id, false) FROM pgclip.indexed_table")


@pytest.mark.parametrize(
    "column",
    ["text DEFAULT pg_read_file('/etc/hostname')", "name GENERATED ALWAYS AS ('a'::name) STORED"],
)
def test_what_was_parsed_can_t_be_forged(ordinary: Roles, column: str) -> None:
    grant_indexing(ordinary)
    as_app = ordinary.of("client")
    run_sql(ordinary.url, f"CREATE SCHEMA app AUTHORIZATION {ordinary.client}")
    run_sql(as_app, "CREATE TABLE app.product (id int PRIMARY KEY, title text)")
    define = "SELECT pgclip._define_table('{}', 'c', '{{}}', '{{title}}', '{{}}', 1, false)"
    forged = f"""CREATE TEMP TABLE pgclip_columns ("@1@" int, "@2@" text, "@part 1@" {column},
        "@condition@" boolean GENERATED ALWAYS AS (true) STORED)"""
    with pytest.raises(psycopg2.Error, match=r"call pgclip\.index_table"):
        run_sql(as_app, f"{forged}; {define.format('app.product')}")
    for table in ("pg_authid", "pgclip.item"):
        with pytest.raises(psycopg2.Error, match="pgclip or Postgres itself"):
            run_sql(as_app, f"{forged}; {define.format(table)}")
