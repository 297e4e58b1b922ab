"""Indexed tables to which something happens: columns, keys, partitions, triggers, definitions."""

from concurrent.futures import ThreadPoolExecutor

import psycopg2
import pytest
from support.databases import run_sql
from support.hand import NewHand
from support.processes import eventually
from support.tables import (
    INDEX_PRODUCT,
    Follow,
    Sql,
    follow_once,
    noted,
    plain_table,
    state,
    texts,
    work_off,
)

from pgclip.migrate import remove

pytestmark = pytest.mark.usefixtures("model")


def test_columns_and_tables_are_renamed(sql: Sql, product: None, follow: Follow) -> None:
    sql(INDEX_PRODUCT)
    follow()
    for change in ("title TO name", "id TO number", "price TO cost", "TO article"):
        sql(f"ALTER TABLE shop.product RENAME {change}")
    sql("UPDATE shop.article SET name = 'renamed' WHERE number = 2")
    follow()
    assert texts(sql)["2 # text"] == "RENAMED"
    sql("UPDATE shop.article SET name = 'again', cost = 7 WHERE number = 4")
    assert noted(sql) == ["4"]  # and not any row
    follow()
    assert texts(sql)["4 # text"] == "AGAIN"
    assert sql("SELECT metadata FROM pgclip.item WHERE key = '4 # text'") == [({"price": 7},)]
    assert sql("SELECT relation::text FROM pgclip.tables") == [("shop.article",)]


def test_a_column_that_is_dropped_is_said(sql: Sql, product: None, follow: Follow) -> None:
    sql(INDEX_PRODUCT)
    follow()
    sql("ALTER TABLE shop.product DROP COLUMN title")
    sql("UPDATE shop.product SET price = 1")
    sql("DELETE FROM shop.product WHERE id = 1")
    follow_once(sql)
    assert "of table shop.product is gone" in state(sql, "trouble")
    assert state(sql, "changes") > 0
    sql("SELECT pgclip.index_table('shop.product', image => 'photo', collection => 'products')")
    follow()
    assert state(sql, "state", "items", "trouble") == ("followed", 4, None)
    assert texts(sql) == {}


def test_a_column_s_type_changes(sql: Sql, follow: Follow) -> None:
    plain_table(sql, "id int PRIMARY KEY, body varchar(20)")
    sql("INSERT INTO t VALUES (1, 'one')")
    follow()
    sql("ALTER TABLE t ALTER body TYPE text, ALTER id TYPE bigint")
    sql("INSERT INTO t VALUES (5000000000, 'more')")
    follow()
    assert texts(sql, "t") == {"1": "one", "5000000000": "more"}


def test_a_dropped_table_is_tidied_away(sql: Sql, product: None, follow: Follow) -> None:
    sql(INDEX_PRODUCT)
    follow()
    sql("DROP TABLE shop.product")
    follow()
    assert sql("SELECT FROM pgclip.tables") == sql("SELECT FROM pgclip.item") == []
    assert sql("SELECT FROM pg_proc WHERE proname LIKE 'note_rows%'") == []


def test_another_primary_key(sql: Sql, follow: Follow) -> None:
    plain_table(sql, "id int PRIMARY KEY, code text NOT NULL, body text")
    sql("INSERT INTO t VALUES (1, 'a', 'one'), (2, 'b', 'two')")
    follow()
    sql("ALTER TABLE t DROP CONSTRAINT t_pkey")
    sql("UPDATE t SET body = 'three' WHERE id = 2")  # does not fail
    sql("ALTER TABLE t ADD PRIMARY KEY (code)")
    follow()
    assert texts(sql, "t") == {"a": "one", "b": "three"}


def test_virtual_columns(sql: Sql, follow: Follow) -> None:
    if sql("SELECT current_setting('server_version_num')::int < 180000") == [(True,)]:
        pytest.skip("Postgres has them from 18 on")
    plain_table(sql, "id int PRIMARY KEY, a text, c int, body text GENERATED ALWAYS AS (upper(a))")
    sql("INSERT INTO t VALUES (1, 'one')")
    follow()
    sql("UPDATE t SET c = 1")
    assert noted(sql) == []
    sql("UPDATE t SET a = 'two'")
    follow()
    assert texts(sql, "t") == {"1": "TWO"}


def test_a_writer_that_is_open_while_the_key_or_the_definition_changes(
    sql: Sql, follow: Follow, database_url: str
) -> None:
    plain_table(sql, "id int PRIMARY KEY, code text NOT NULL, body text, about text")
    sql("INSERT INTO t VALUES (1, 'a', 'one', 'first')")
    follow()
    sql("ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (code)")
    writer = psycopg2.connect(database_url)
    writer.cursor().execute("UPDATE t SET body = 'new'")  # noted with the key that was
    follow()
    writer.commit()
    follow()
    assert texts(sql, "t") == {"a": "new"}
    writer.cursor().execute("UPDATE t SET about = 'second'")  # counts not yet
    with pytest.raises(psycopg2.errors.LockNotAvailable):
        sql("SELECT pgclip.index_table('t', texts => '{body,about}')")
    writer.commit()
    writer.close()
    sql("SELECT pgclip.index_table('t', texts => '{body,about}')")
    follow()
    assert texts(sql, "t") == {"a": "new", "a # about": "second"}


def test_a_table_that_is_locked_holds_up_no_other(
    sql: Sql, follow: Follow, database_url: str
) -> None:
    plain_table(sql, "id int PRIMARY KEY, body text")
    sql("CREATE TABLE other (id int PRIMARY KEY, body text)")
    sql("SELECT pgclip.index_table('other', text => 'body')")
    follow()
    sql("INSERT INTO t VALUES (1, 'one'); INSERT INTO other VALUES (1, 'other')")
    holder = psycopg2.connect(database_url)
    holder.cursor().execute("LOCK TABLE t")
    follow_once(sql)
    assert texts(sql, "other") == {"1": "other"}
    trouble = "SELECT trouble FROM pgclip.tables WHERE collection = 't'"
    assert "lock timeout" in sql(trouble)[0][0]
    holder.rollback()
    holder.close()
    follow()
    assert sql(trouble) == [(None,)]
    assert texts(sql, "t") == {"1": "one"}


def test_more_than_a_million_rows_are_any(sql: Sql, follow: Follow) -> None:
    plain_table(sql, "id int PRIMARY KEY, body text", condition="'id > 1000000'")
    sql("INSERT INTO t SELECT n, 'text' FROM generate_series(1, 1000001) n")
    assert noted(sql) == [None]


def test_partitions(sql: Sql, follow: Follow) -> None:
    sql("""CREATE TABLE t (id int, body text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
           CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (100);
           INSERT INTO t VALUES (1, 'one')""")
    sql("SELECT pgclip.index_table('t', text => 'body')")
    follow()
    sql("CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM (100) TO (200)")
    sql("INSERT INTO t VALUES (2, 'two'); INSERT INTO t_2 VALUES (101, 'in the new one')")
    sql("UPDATE t SET id = 102, body = 'moved' WHERE id = 1")
    sql("UPDATE t SET body = body")
    assert sorted(set(noted(sql)), key=str) == ["1", "101", "102", "2"]
    follow()
    assert texts(sql, "t") == {"2": "two", "101": "in the new one", "102": "moved"}
    sql("CREATE TABLE t_3 (LIKE t INCLUDING ALL); INSERT INTO t_3 VALUES (201, 'attached')")
    sql("ALTER TABLE t ATTACH PARTITION t_3 FOR VALUES FROM (200) TO (300)")
    sql("ALTER TABLE t DETACH PARTITION t_2")
    follow()
    assert texts(sql, "t") == {"2": "two", "201": "attached"}
    sql("INSERT INTO t_2 VALUES (103, 'no part of it')")
    assert noted(sql) == []
    sql("TRUNCATE t_1")
    follow()
    assert texts(sql, "t") == {"201": "attached"}


def test_a_partition_alone_and_one_that_inherits(sql: Sql, follow: Follow) -> None:
    sql("""CREATE TABLE p (id int, body text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
           CREATE TABLE part PARTITION OF p FOR VALUES FROM (0) TO (100);
           CREATE TABLE parent (id int PRIMARY KEY, body text);
           CREATE TABLE child (PRIMARY KEY (id)) INHERITS (parent)""")
    for table in ("part", "parent", "child"):
        sql(f"SELECT pgclip.index_table('{table}', text => 'body')")
    sql("INSERT INTO p VALUES (1, 'by its parent')")
    sql("INSERT INTO parent VALUES (1, 'parent''s'); INSERT INTO child VALUES (1, 'child''s')")
    sql("UPDATE parent SET body = body || ' own'")
    follow()
    assert texts(sql, "part") == {"1": "by its parent"}
    assert texts(sql, "parent") == {"1": "parent's own"}
    assert texts(sql, "child") == {"1": "child's own"}


def test_triggers_that_did_not_fire(sql: Sql, follow: Follow) -> None:
    plain_table(sql, "id int PRIMARY KEY, body text")
    sql("INSERT INTO t VALUES (1, 'one'), (2, 'two'), (3, 'three')")
    follow()
    sql("SET session_replication_role = replica")
    sql("INSERT INTO t VALUES (4, 'four'); DELETE FROM t WHERE id = 1; "
        "UPDATE t SET body = 'TWO' WHERE id = 2")  # fmt: skip
    sql("RESET session_replication_role")
    assert noted(sql) == []
    missing = "SELECT key, part, reason FROM pgclip.missing_rows('t')"
    assert sorted(sql(missing)) == [
        ("1", "body", "left_over"), ("2", "body", "outdated"), ("4", "body", "lacking")
    ]  # fmt: skip
    sql("SELECT pgclip.heal()")
    follow()
    assert texts(sql, "t") == {"2": "TWO", "3": "three", "4": "four"}
    assert sql(missing) == []


def test_rows_of_replication_are_followed_if_asked(sql: Sql, follow: Follow) -> None:
    plain_table(sql, "id int PRIMARY KEY, body text", replicated="true")
    sql("SET session_replication_role = replica")
    sql("INSERT INTO t VALUES (1, 'one'), (2, 'two')")
    sql("UPDATE t SET body = 'TWO' WHERE id = 2")
    sql("RESET session_replication_role")
    follow()
    assert texts(sql, "t") == {"1": "one", "2": "TWO"}


def test_switched_off_triggers_are_said(sql: Sql, follow: Follow) -> None:
    plain_table(sql, "id int PRIMARY KEY, body text")
    sql("ALTER TABLE t DISABLE TRIGGER USER")
    sql("INSERT INTO t VALUES (1, 'one')")
    follow()
    assert "lacks triggers, or they are switched off" in state(sql, "trouble")
    sql("SELECT pgclip.index_table('t', text => 'body')")
    sql("INSERT INTO t VALUES (2, 'two')")
    follow()
    assert state(sql, "trouble") is None
    assert texts(sql, "t") == {"1": "one", "2": "two"}


def test_a_definition_that_changes(sql: Sql, product: None, follow: Follow, hand: NewHand) -> None:
    sql(INDEX_PRODUCT)
    follow()
    work_off(hand())
    sql("""SELECT pgclip.index_table('shop.product', image => 'photo',
               texts => '{upper(title),title}', metadata => '{stock}', collection => 'products')""")
    follow()
    assert len(texts(sql)) == 10
    waiting = sql("SELECT i.key FROM pgclip.job j JOIN pgclip.item i ON i.id = j.item_id")
    assert sorted(key for (key,) in waiting) == [
        "1 # title", "2 # title", "3", "3 # text", "3 # title", "4 # title", "5 # title"
    ]  # fmt: skip
    assert sql("SELECT metadata FROM pgclip.item WHERE key = '2'") == [({"stock": 2},)]


def test_two_definitions_on_one_table(sql: Sql, product: None, follow: Follow) -> None:
    sql(INDEX_PRODUCT)
    sql("SELECT pgclip.index_table('shop.product', text => 'title', collection => 'titles')")
    sql("UPDATE shop.product SET title = 'other' WHERE id = 1")
    follow()
    assert texts(sql)["1 # text"] == "OTHER"
    assert texts(sql, "titles")["1"] == "other"
    sql("SELECT pgclip.unindex_table('shop.product', 'titles')")
    sql("UPDATE shop.product SET title = 'third' WHERE id = 1")
    follow()
    assert texts(sql, "titles") == {}
    assert texts(sql)["1 # text"] == "THIRD"


def test_unindexed_and_indexed_again(
    sql: Sql, product: None, follow: Follow, hand: NewHand
) -> None:
    sql(INDEX_PRODUCT)
    follow()
    work_off(hand())
    sql("SELECT pgclip.unindex_table('shop.product', keep => true)")
    sql("UPDATE shop.product SET title = 'unseen' WHERE id = 1")
    follow()
    assert sql("SELECT FROM pgclip.tables") == []
    assert len(texts(sql)) == 4
    sql(INDEX_PRODUCT)
    follow()
    assert sql("SELECT count(*) FROM pgclip.job") == [(1,)]
    assert len(texts(sql)) == 4
    sql("SELECT pgclip.unindex_table('shop.product')")
    assert state(sql, "state") == "leaving"
    follow()
    assert sql("SELECT FROM pgclip.item") == sql("SELECT FROM pgclip.tables") == []
    with pytest.raises(psycopg2.Error, match=r"shop\.product is not indexed"):
        sql("SELECT pgclip.unindex_table('shop.product')")


def test_items_are_kept_beside_a_page_under_way(
    sql: Sql, follow: Follow, database_url: str
) -> None:
    plain_table(sql, "id int PRIMARY KEY, body text")
    sql("INSERT INTO t VALUES (1, 'one')")
    follower = psycopg2.connect(database_url)
    follower.cursor().execute("SELECT pgclip.follow_tables()")  # what it noted is not committed
    with ThreadPoolExecutor() as pool:
        unindex = "SELECT pgclip.unindex_table('t', keep => true)"
        leaving = pool.submit(run_sql, database_url, unindex)
        eventually(lambda: leaving.done() or sql("SELECT 1 FROM pg_locks WHERE NOT granted"), 10)
        follower.commit()
        leaving.result()
    follower.close()
    follow()
    assert sql("SELECT 1 FROM pgclip.tables") == []
    assert texts(sql, "t") == {"1": "one"}


@pytest.mark.parametrize(
    ("table", "arguments", "message"),
    [
        ("CREATE VIEW t AS SELECT 1 AS id, 'a' AS body", "text => 'body'", "is no table"),
        ("CREATE TEMP TABLE t (id int PRIMARY KEY)", "text => 'id'", "is no table"),
        ("CREATE TABLE t (body text)", "text => 'body'", "has no primary key"),
        ("", "", "name a column or an expression"),
        ("", "text => 'nonsense'", 'nonsense can\'t be indexed: column "nonsense" does not exist'),
        ("", "text => 'body || '", "can't be indexed: syntax error"),
        ("", "text => 'now()::text'", "not immutable"),
        ("", "text => 'body', metadata => '{none}'", "has no column none"),
        ("", "texts => '{body,body}'", "named twice"),
        ("", "text => 'body', priority => 10", "priority must be from 0"),
        ("", "text => 'body', collection => ''", "collection's name must have"),
        (
            "",
            "text => 'body', collection => 'taken'",
            "that of table public.other",
        ),
    ],
)
def test_what_can_t_be_indexed(sql: Sql, table: str, arguments: str, message: str) -> None:
    sql("""CREATE FUNCTION mine(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1';
           CREATE TYPE pair AS (a int, b int); CREATE TABLE other (id int PRIMARY KEY, body text);
           SELECT pgclip.index_table('other', text => 'body', collection => 'taken')""")
    sql(table or "CREATE TABLE t (id int PRIMARY KEY, body text, pair pair)")
    with pytest.raises(psycopg2.Error, match=message):
        sql(f"SELECT pgclip.index_table('t'{arguments and ', '}{arguments})")
    assert sql("SELECT name FROM pgclip.indexed_table") == [("public.other",)]


def test_pgclip_is_removed(sql: Sql, database_url: str) -> None:
    plain_table(sql, "id int PRIMARY KEY, body text")
    remove(database_url)
    sql("INSERT INTO t VALUES (1, 'one')")
    assert sql("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal") == [(0,)]
