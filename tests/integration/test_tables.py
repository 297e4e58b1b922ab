"""Tables that are kept in step: whatever is done to them, their items are what the rows say."""

import json
from collections.abc import Callable
from typing import Any

import psycopg2
import pytest
from support.hand import Hand, NewHand

Sql = Callable[..., list[Any]]
Follow = Callable[[], None]
pytestmark = pytest.mark.usefixtures("model")


@pytest.fixture
def follow(sql: Sql) -> Follow:
    """As a worker does, until there is nothing more to do; tables are looked at anew."""

    def work() -> None:
        sql("UPDATE pgclip.indexed_table SET looked_at = '-infinity'")
        while sql("SELECT did FROM pgclip.follow_tables()") == [(True,)]:
            pass

    return work


@pytest.fixture
def product(sql: Sql) -> None:
    sql("""CREATE SCHEMA shop;
        CREATE TABLE shop.product (id int PRIMARY KEY, photo text, title text, price numeric,
                                   published boolean NOT NULL DEFAULT true, stock int);
        INSERT INTO shop.product SELECT n, '/photos/' || n || '.jpg', 'title ' || n, n, n <> 3, n
        FROM generate_series(1, 5) n""")


INDEX = """SELECT pgclip.index_table('shop.product', image => 'photo', text => 'upper(title)',
    metadata => '{price}', condition => 'published', collection => 'products')"""


def texts(sql: Sql, collection: str = "products") -> dict[str, str]:
    """Of each text of a collection what it says, by its key."""
    return dict(
        sql(
            """SELECT i.key, convert_from(c.data, 'UTF8') FROM pgclip.item i
               JOIN pgclip.collection l ON l.id = i.collection_id
               JOIN pgclip.content c ON c.kind = i.kind AND c.hash = i.content_hash
               WHERE l.name = %s AND i.kind = 'text' ORDER BY i.id""",
            collection,
        )
    )


def noted(sql: Sql) -> list[str | None]:
    return [key for (key,) in sql("SELECT row_key FROM pgclip.row_change ORDER BY id")]


def state(sql: Sql, *columns: str) -> Any:
    """Of the one table that is indexed."""
    ((*found,),) = sql(f"SELECT {', '.join(columns)} FROM pgclip.tables")
    return found[0] if len(columns) == 1 else tuple(found)


def plain_table(sql: Sql, columns: str, **arguments: str) -> None:
    """Table "t", whose "body" is indexed."""
    sql(f"CREATE TABLE t ({columns})")
    more = "".join(f", {name} => {value}" for name, value in arguments.items())
    sql(f"SELECT pgclip.index_table('t', text => 'body'{more})")


def test_rows_that_are_there_are_filled_in(sql: Sql, product: None, follow: Follow) -> None:
    assert sql(INDEX) == [("products",)]
    assert state(sql, "state", "items", "filled") == ("filling", 0, 0.0)
    follow()
    assert state(sql, "state", "items", "filled", "columns") == (
        "followed", 8, 1.0, ["photo", "text"]
    )  # fmt: skip
    assert texts(sql) == {f"{n}/text": f"TITLE {n}" for n in (1, 2, 4, 5)}
    found = sql("SELECT source, metadata FROM pgclip.item WHERE key = '2'")
    assert found == [("file:///photos/2.jpg", {"price": 2})]


def test_only_what_counts_is_noted(sql: Sql, product: None, follow: Follow) -> None:
    sql(INDEX)
    follow()
    sql("UPDATE shop.product SET stock = 0")
    sql("UPDATE shop.product SET title = title, price = price")
    assert noted(sql) == []
    sql("UPDATE shop.product SET price = 99 WHERE id = 2")
    sql("INSERT INTO shop.product VALUES (6, '/p.jpg', 'six', 6)")
    sql("DELETE FROM shop.product WHERE id = 1")
    sql("UPDATE shop.product SET id = 50 WHERE id = 5")
    assert sorted(noted(sql), key=str) == ["1", "2", "5", "50", "6"]


def test_a_price_is_metadata_and_no_content(sql: Sql, product: None, follow: Follow) -> None:
    sql(INDEX)
    follow()
    sql("UPDATE pgclip.item SET metadata = metadata || '{\"mine\": 1}' WHERE key = '2'")
    before = sql("SELECT key, generation FROM pgclip.item ORDER BY id")
    sql("UPDATE shop.product SET price = 99 WHERE id = 2")
    follow()
    assert sql("SELECT key, generation FROM pgclip.item ORDER BY id") == before
    found = sql("SELECT metadata FROM pgclip.item WHERE key IN ('2', '2/text') ORDER BY id")
    assert found == [({"price": 99, "mine": 1},), ({"price": 99},)]


def test_insert_update_delete(sql: Sql, product: None, follow: Follow) -> None:
    sql(INDEX)
    follow()
    sql("INSERT INTO shop.product VALUES (6, NULL, 'six', 6)")
    sql("UPDATE shop.product SET title = 'two' WHERE id = 2")
    sql("UPDATE shop.product SET published = true WHERE id = 3")
    sql("UPDATE shop.product SET published = false WHERE id = 4")
    sql("UPDATE shop.product SET id = 50 WHERE id = 5")
    sql("UPDATE shop.product SET photo = NULL WHERE id = 50")
    sql("DELETE FROM shop.product WHERE id = 1")
    follow()
    assert texts(sql) == {
        "2/text": "TWO", "3/text": "TITLE 3", "6/text": "SIX", "50/text": "TITLE 5"
    }  # fmt: skip
    pictures = sql("SELECT key FROM pgclip.item WHERE kind = 'image' ORDER BY key")
    assert pictures == [("2",), ("3",)]
    assert sql("SELECT count(*) FROM pgclip.table_item") == [(6,)]


@pytest.mark.parametrize(
    ("statement", "left"),
    {
        "INSERT INTO t VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET body = 'upserted'": "upserted",
        "INSERT INTO t VALUES (1, 'x') ON CONFLICT DO NOTHING": "one",
        "MERGE INTO t USING (VALUES (1)) v(id) ON t.id = v.id WHEN MATCHED THEN "
        "UPDATE SET body = 'merged'": "merged",
        "MERGE INTO t USING (VALUES (1)) v(id) ON t.id = v.id WHEN MATCHED THEN DELETE": None,
        "TRUNCATE t": None,
        "WITH gone AS (DELETE FROM t RETURNING *) SELECT * FROM gone": None,
        "BEGIN; UPDATE t SET body = 'no'; ROLLBACK": "one",
        "BEGIN; SAVEPOINT s; UPDATE t SET body = 'no'; ROLLBACK TO s; COMMIT": "one",
        "BEGIN; SAVEPOINT s; UPDATE t SET body = 'saved'; RELEASE s; COMMIT": "saved",
        "BEGIN; UPDATE t SET body = 'a'; UPDATE t SET body = 'last'; COMMIT": "last",
        "BEGIN; DELETE FROM t; INSERT INTO t VALUES (1, 'back'); COMMIT": "back",
    }.items(),
)  # fmt: skip
def test_statements(sql: Sql, follow: Follow, statement: str, left: str | None) -> None:
    plain_table(sql, "id int PRIMARY KEY, body text")
    sql("INSERT INTO t VALUES (1, 'one')")
    follow()
    assert texts(sql, "t") == {"1": "one"}
    sql(statement)
    follow()
    assert texts(sql, "t") == ({} if left is None else {"1": left})


def test_copy_is_one_call(sql: Sql, follow: Follow, database_url: str) -> None:
    plain_table(sql, "id int PRIMARY KEY, body text")
    from io import StringIO

    connection = psycopg2.connect(database_url)
    with connection, connection.cursor() as cursor:
        cursor.copy_from(StringIO("".join(f"{n}\ttext {n}\n" for n in range(1200))), "t")
    connection.close()
    assert len(noted(sql)) == 1200
    follow()
    assert len(texts(sql, "t")) == 1200


@pytest.mark.parametrize(
    ("type", "values"),
    {
        "bigint": ["-1", "9007199254740993"],
        "text": ["a b", "x/y", "O'Neil", 'quo"te', "{a,b}", "NULL", "back\\slash"],
        "uuid": ["6ecd8c99-4036-403d-bf84-cf8400f67836"],
        "date": ["2026-11-26", "0044-03-15 BC"],
        "timestamptz": ["2026-11-26 12:00:00.123456+05"],
        "double precision": ["0.1", "1e300", "Infinity"],
        "numeric": ["1.10", "NaN"],
        "interval": ["1 mon 2 days 03:04:05"],
        "bytea": ["\\x00ff"],
        "char(5)": ["ab"],
        "int[]": ["{1,NULL,3}"],
        "inet": ["10.0.0.1/8"],
        "int4range": ["[1,5)"],
        "mood": ["happy"],
        "short": ["domain"],
        "boolean": ["t"],
    }.items(),
)
def test_keys_of_any_type(sql: Sql, follow: Follow, type: str, values: list[str]) -> None:
    """Spelt in one way, whatever the session that writes and the one that searches prefer."""
    sql("CREATE TYPE mood AS ENUM ('happy'); CREATE DOMAIN short AS text CHECK (length(value) < 9)")
    plain_table(sql, f"id {type} PRIMARY KEY, body text")
    sql("SET DateStyle = 'SQL, DMY'; SET TimeZone = 'Asia/Tokyo'; SET extra_float_digits = -10; "
        "SET IntervalStyle = 'sql_standard'; SET bytea_output = 'escape'")  # fmt: skip
    for value in values:
        sql(f"INSERT INTO t VALUES (%s::{type}, %s)", value, f"was {value}")
    follow()
    assert sorted(texts(sql, "t").values()) == sorted(f"was {value}" for value in values)
    sql("UPDATE t SET body = 'is'")
    follow()
    assert set(texts(sql, "t").values()) == {"is"}
    assert len(texts(sql, "t")) == len(values)
    sql("UPDATE pgclip.indexed_table SET walk = 'rows', after_key = NULL")
    follow()
    assert len(texts(sql, "t")) == len(values)
    sql("DELETE FROM t")
    follow()
    assert texts(sql, "t") == {}


def test_keys_of_several_columns(sql: Sql, follow: Follow) -> None:
    plain_table(sql, "shop text, day date, n int, body text, PRIMARY KEY (n, shop, day)")
    sql(
        "INSERT INTO t SELECT 'a''\",\\', '2026-11-26', n, 'text ' || n FROM generate_series(1, 600) n"
    )
    follow()
    key = json.dumps(["7", "a'\",\\", "2026-11-26"])
    assert texts(sql, "t")[key] == "text 7"
    sql("UPDATE t SET n = 601 WHERE n = 7")
    sql("UPDATE pgclip.indexed_table SET walk = 'rows', after_key = NULL")
    follow()
    assert len(texts(sql, "t")) == 600
    assert key not in texts(sql, "t")


def test_values_that_can_t_be_taken(sql: Sql, follow: Follow) -> None:
    """The application's statement succeeds; the row fails with its reason; its mates are items."""
    sql("CREATE TABLE t (id text PRIMARY KEY, photo text, body text, about json, n int)")
    sql("""SELECT pgclip.index_table('t', image => 'photo', texts => '{body,100 / n}',
                                     metadata => '{about}')""")
    bad = {
        "photo": ("cat", None, None), "long": (None, "x" * 300_000, None),
        "big": (None, None, json.dumps({"a": "x" * 70_000})), "nul": (None, None, '"\\u0000"'),
        "k" * 2000: (None, None, None), "blank": (None, " \u3000", None),
    }  # fmt: skip
    for key, (photo, body, about) in bad.items():
        sql("INSERT INTO t VALUES (%s, %s, %s, %s, 7)", key, photo, body, about)
    sql("INSERT INTO t VALUES ('zero', NULL, 'fine', '{}', 0), ('good', '/g.jpg', 'good', '{}', 5)")
    follow()
    failed = dict(
        sql("SELECT row_key, string_agg(message, '; ') FROM pgclip.row_failure GROUP BY 1")
    )
    assert "an absolute path or a URL" in failed["photo"]
    assert "more than 256 KiB" in failed["long"]
    assert "at most 65536 bytes of JSON" in failed["big"]
    assert "Unicode escape" in failed["nul"]
    assert "1 to 1024 bytes" in failed["k" * 2000]
    assert "blank" in failed["blank"]
    assert "division by zero" in failed["zero"]
    assert set(failed) == {*bad, "zero"}
    assert texts(sql, "t")["good/body"] == "good"
    assert state(sql, "state", "failed") == ("followed", {"unacceptable": 5, "unreadable": 2})
    sql("UPDATE t SET n = 1, photo = NULL, body = 'mended', about = '{}'")
    follow()
    assert state(sql, "failed") == {"unacceptable": 2}  # both texts of the key


def test_bytes(sql: Sql, follow: Follow, hand: NewHand) -> None:
    sql("CREATE TABLE t (id int PRIMARY KEY, small bytea, large bytea)")
    sql("SELECT pgclip.index_table('t', images => '{small,large}')")
    sql("INSERT INTO t VALUES (1, 'abc', 'defg'), (2, '', NULL)")
    follow()
    found = sql("SELECT key, size FROM pgclip.item JOIN pgclip.content ON hash = content_hash")
    assert sorted(found) == [("1", 3), ("1/large", 4)]


def test_the_same_content_is_not_encoded_again(sql: Sql, follow: Follow, hand: NewHand) -> None:
    plain_table(sql, "id int PRIMARY KEY, body text, other int")
    sql("INSERT INTO t VALUES (1, 'one', 1)")
    follow()
    work_off(hand())
    sql("UPDATE t SET body = 'two'; UPDATE t SET body = 'one'")
    sql("UPDATE pgclip.indexed_table SET walk = 'rows'")
    follow()
    assert sql("SELECT count(*) FROM pgclip.job") == [(0,)]
    assert sql("SELECT generation FROM pgclip.item") == [(1,)]


def work_off(worker: Hand) -> None:
    while (claimed := worker.claim())[1]:
        worker.store(*claimed)


def test_columns_and_tables_are_renamed(sql: Sql, product: None, follow: Follow) -> None:
    sql(INDEX)
    follow()
    sql(
        "ALTER TABLE shop.product RENAME title TO name; ALTER TABLE shop.product RENAME id TO number"
    )
    sql("ALTER TABLE shop.product RENAME price TO cost; ALTER TABLE shop.product RENAME TO article")
    sql("UPDATE shop.article SET name = 'renamed' WHERE number = 2")
    follow()
    assert texts(sql)["2/text"] == "RENAMED"
    sql("UPDATE shop.article SET name = 'again', cost = 7 WHERE number = 4")
    assert noted(sql) == ["4"]  # and not any row
    follow()
    assert texts(sql)["4/text"] == "AGAIN"
    assert sql("SELECT metadata FROM pgclip.item WHERE key = '4/text'") == [({"price": 7},)]
    assert sql("SELECT relation::text FROM pgclip.tables") == [("shop.article",)]


def test_a_column_that_is_dropped_is_said(sql: Sql, product: None, follow: Follow) -> None:
    sql(INDEX)
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


def follow_once(sql: Sql) -> None:
    sql("UPDATE pgclip.indexed_table SET looked_at = '-infinity'")
    sql("SELECT pgclip.follow_tables()")


def test_a_column_s_type_changes(sql: Sql, follow: Follow) -> None:
    plain_table(sql, "id int PRIMARY KEY, body varchar(20)")
    sql("INSERT INTO t VALUES (1, 'one')")
    follow()
    sql("ALTER TABLE t ALTER body TYPE text, ALTER id TYPE bigint")
    sql("INSERT INTO t VALUES (5000000000, 'more')")
    follow()
    assert texts(sql, "t") == {"1": "one", "5000000000": "more"}


def test_a_dropped_table_is_tidied_away(sql: Sql, product: None, follow: Follow) -> None:
    sql(INDEX)
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


@pytest.mark.parametrize("column", ["json", "point", "jsonb", "tsvector", "int[]"])
def test_columns_of_types_that_can_t_be_compared(sql: Sql, follow: Follow, column: str) -> None:
    value = {"json": '{"a": 1}', "point": "(1,2)", "int[]": "{1}"}.get(column, '"a"')
    sql(f"CREATE TABLE t (id int PRIMARY KEY, body text, other {column})")
    sql("SELECT pgclip.index_table('t', text => 'body', metadata => '{other}')")
    sql("INSERT INTO t VALUES (1, 'one', %s)", value)
    follow()
    sql("UPDATE t SET body = 'one'")
    assert noted(sql) == []
    sql("UPDATE t SET other = NULL")
    assert noted(sql) == ["1"]
    follow()
    assert sql("SELECT metadata FROM pgclip.item") == [({"other": None},)]


def test_generated_columns_and_deferred_constraints(sql: Sql, follow: Follow) -> None:
    plain_table(sql, """id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, a text,
                        body text GENERATED ALWAYS AS (upper(a)) STORED""")  # fmt: skip
    sql("INSERT INTO t VALUES (1, 'one'), (2, 'two')")
    sql("BEGIN; UPDATE t SET id = 3 - id; COMMIT")
    follow()
    assert texts(sql, "t") == {"2": "ONE", "1": "TWO"}
    sql("UPDATE t SET a = 'three' WHERE id = 1")
    follow()
    assert texts(sql, "t")["1"] == "THREE"


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
    sql(INDEX)
    follow()
    work_off(hand())
    sql("""SELECT pgclip.index_table('shop.product', image => 'photo',
               texts => '{upper(title),title}', metadata => '{stock}', collection => 'products')""")
    follow()
    assert len(texts(sql)) == 10
    waiting = sql("SELECT i.key FROM pgclip.job j JOIN pgclip.item i ON i.id = j.item_id")
    assert sorted(key for (key,) in waiting) == [
        "1/title", "2/title", "3", "3/text", "3/title", "4/title", "5/title"
    ]  # fmt: skip
    assert sql("SELECT metadata FROM pgclip.item WHERE key = '2'") == [({"stock": 2},)]


def test_two_definitions_on_one_table(sql: Sql, product: None, follow: Follow) -> None:
    sql(INDEX)
    sql("SELECT pgclip.index_table('shop.product', text => 'title', collection => 'titles')")
    sql("UPDATE shop.product SET title = 'other' WHERE id = 1")
    follow()
    assert texts(sql)["1/text"] == "OTHER"
    assert texts(sql, "titles")["1"] == "other"
    sql("SELECT pgclip.unindex_table('shop.product', 'titles')")
    sql("UPDATE shop.product SET title = 'third' WHERE id = 1")
    follow()
    assert texts(sql, "titles") == {}
    assert texts(sql)["1/text"] == "THIRD"


def test_unindexed_and_indexed_again(
    sql: Sql, product: None, follow: Follow, hand: NewHand
) -> None:
    sql(INDEX)
    follow()
    work_off(hand())
    sql("SELECT pgclip.unindex_table('shop.product', keep => true)")
    sql("UPDATE shop.product SET title = 'unseen' WHERE id = 1")
    follow()
    assert sql("SELECT FROM pgclip.tables") == []
    assert len(texts(sql)) == 4
    sql(INDEX)
    follow()
    assert sql("SELECT count(*) FROM pgclip.job") == [(1,)]
    assert len(texts(sql)) == 4
    sql("SELECT pgclip.unindex_table('shop.product')")
    assert state(sql, "state") == "leaving"
    follow()
    assert sql("SELECT FROM pgclip.item") == sql("SELECT FROM pgclip.tables") == []
    with pytest.raises(psycopg2.Error, match=r"shop\.product is not indexed"):
        sql("SELECT pgclip.unindex_table('shop.product')")


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
        ("", "text => 'mine(body)'", r"an expression uses function public\.mine"),
        ("", "text => 'body', condition => 'mine(body) = body'", "uses function"),
        ("", "text => 'body', metadata => '{none}'", "has no column none"),
        (
            "",
            "text => 'body', metadata => '{pair}'",
            "pair of table public.t is of type public.pair",
        ),
        ("", "texts => '{body,body}'", "named twice"),
        ("", "text => 'body', priority => 10", "priority must be from 0"),
        ("", "text => 'body', collection => ''", "collection's name must have"),
        (
            "",
            "text => 'body', collection => 'taken'",
            "collection taken is that of table public.other",
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
