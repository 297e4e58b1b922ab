"""Tables that are kept in step: whatever is written to them, their items say what the rows say."""

import json
from io import StringIO

import psycopg2
import pytest
from support.hand import NewHand
from support.tables import INDEX_PRODUCT, Follow, Sql, noted, plain_table, state, texts, work_off

pytestmark = pytest.mark.usefixtures("model")


def test_rows_that_are_there_are_filled_in(sql: Sql, product: None, follow: Follow) -> None:
    assert sql(INDEX_PRODUCT) == [("products",)]
    assert state(sql, "state", "items", "filled") == ("filling", 0, 0.0)
    follow()
    assert state(sql, "state", "items", "filled", "columns") == (
        "followed", 8, 1.0, ["photo", "text"]
    )  # fmt: skip
    assert texts(sql) == {f"{n} # text": f"TITLE {n}" for n in (1, 2, 4, 5)}
    found = sql("SELECT source, metadata FROM pgclip.item WHERE key = '2'")
    assert found == [("file:///photos/2.jpg", {"price": 2})]


def test_only_what_counts_is_noted(sql: Sql, product: None, follow: Follow) -> None:
    sql(INDEX_PRODUCT)
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
    sql(INDEX_PRODUCT)
    follow()
    sql("UPDATE pgclip.item SET metadata = metadata || '{\"mine\": 1}' WHERE key = '2'")
    before = sql("SELECT key, generation FROM pgclip.item ORDER BY id")
    sql("UPDATE shop.product SET price = 99 WHERE id = 2")
    follow()
    assert sql("SELECT key, generation FROM pgclip.item ORDER BY id") == before
    found = sql("SELECT metadata FROM pgclip.item WHERE key IN ('2', '2 # text') ORDER BY id")
    assert found == [({"price": 99, "mine": 1},), ({"price": 99},)]


def test_insert_update_delete(sql: Sql, product: None, follow: Follow) -> None:
    sql(INDEX_PRODUCT)
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
        "2 # text": "TWO", "3 # text": "TITLE 3", "6 # text": "SIX", "50 # text": "TITLE 5"
    }  # fmt: skip
    pictures = sql("SELECT key FROM pgclip.item WHERE kind = 'image' ORDER BY key")
    assert pictures == [("2",), ("3",)]
    assert sql("SELECT count(*) FROM pgclip.table_item") == [(6,)]


@pytest.mark.parametrize(
    ("statement", "left"),
    {
        "INSERT INTO t VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET body = 'set'": "set",
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
    sql("INSERT INTO t SELECT 'a''\",\\', '2026-11-26', n, 'text ' || n "
        "FROM generate_series(1, 600) n")  # fmt: skip
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
    sql("INSERT INTO t VALUES ('zero', NULL, 'fine', '{}', 0), "
        "('good', '/g.jpg', 'good', '{}', 5)")  # fmt: skip
    follow()
    reasons = "SELECT row_key, string_agg(message, '; ') FROM pgclip.row_failure GROUP BY 1"
    failed = dict(sql(reasons))
    assert "an absolute path or a URL" in failed["photo"]
    assert "more than 256 KiB" in failed["long"]
    assert "at most 65536 bytes of JSON" in failed["big"]
    assert "Unicode escape" in failed["nul"]
    assert "1 to 1024 bytes" in failed["k" * 2000]
    assert "blank" in failed["blank"]
    assert "division by zero" in failed["zero"]
    assert set(failed) == {*bad, "zero"}
    assert texts(sql, "t")["good # body"] == "good"
    assert state(sql, "state", "failed") == ("followed", {"unacceptable": 5, "unreadable": 2})
    sql("UPDATE t SET n = 1, photo = NULL, body = 'mended', about = '{}'")
    follow()
    assert state(sql, "failed") == {"unacceptable": 2}  # both texts of the key


def test_keys_that_may_be_taken_for_others(sql: Sql, follow: Follow) -> None:
    plain_table(sql, "slug text PRIMARY KEY, body text, about text")
    sql("SELECT pgclip.index_table('t', texts => '{body,about}')")
    sql("INSERT INTO t VALUES ('x', 'x body', 'x about'), ('x # about', 'refused', NULL), "
        "('x/about', 'page', 'blah'), ('x # ', 'other', NULL)")  # fmt: skip
    follow()
    assert texts(sql, "t") == {
        "x": "x body", "x # about": "x about", "x/about": "page", "x/about # about": "blah",
        "x # ": "other",
    }  # fmt: skip
    failed = sql("SELECT row_key, message FROM pgclip.row_failure")
    assert failed == [("x # about", "the key ends as that of a further column of another row does")]


def test_keys_that_are_equal_and_spelt_differently(sql: Sql, follow: Follow) -> None:
    plain_table(sql, "id numeric PRIMARY KEY, body text")
    sql("INSERT INTO t VALUES (1.0, 'one')")
    follow()
    sql("UPDATE t SET id = 1.00, body = 'two'")
    follow()
    assert texts(sql, "t") == {"1.00": "two"}


def test_failures_of_rows_that_are_gone_go(sql: Sql, follow: Follow) -> None:
    """Also of keys that no index would take."""
    plain_table(sql, "id bytea PRIMARY KEY, body text")
    hashes = "string_agg(sha256(n::text::bytea), '' ORDER BY n)"
    sql(f"INSERT INTO t SELECT {hashes}, 'long' FROM generate_series(1, 60) n")
    sql("INSERT INTO t VALUES ('a', 'short')")
    follow()
    assert sql("SELECT count(*) FROM pgclip.row_failure") == [(1,)]
    assert list(texts(sql, "t").values()) == ["short"]
    sql("SET session_replication_role = replica; DELETE FROM t WHERE body = 'long'; "
        "RESET session_replication_role")  # fmt: skip
    sql("SELECT pgclip.heal()")
    follow()
    assert sql("SELECT count(*) FROM pgclip.row_failure") == [(0,)]


def test_bytes(sql: Sql, follow: Follow, hand: NewHand) -> None:
    sql("CREATE TABLE t (id int PRIMARY KEY, small bytea, large bytea)")
    sql("SELECT pgclip.index_table('t', images => '{small,large}')")
    sql("INSERT INTO t VALUES (1, 'abc', 'defg'), (2, '', NULL)")
    follow()
    found = sql("SELECT key, size FROM pgclip.item JOIN pgclip.content ON hash = content_hash")
    assert sorted(found) == [("1", 3), ("1 # large", 4)]


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


def test_columns_with_odd_names(sql: Sql, follow: Follow) -> None:
    columns = '"@id" int, "a$body$b" int, body text, "a@2" text, PRIMARY KEY ("@id", "a$body$b")'
    sql(f"CREATE TABLE t ({columns})")
    sql("""SELECT pgclip.index_table('t', text => $$body || '"@3@"' || "a@2"$$)""")
    sql("INSERT INTO t VALUES (1, 2, 'one', 'two')")
    assert noted(sql) == ['["1", "2"]']
    follow()
    assert list(texts(sql, "t").values()) == ['one"@3@"two']


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
