"""What is known without counting: always what there is, and at no cost that grows."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg2
import pytest
from support.changing import register
from support.databases import assert_tallies_are_true, run_sql
from support.hand import Hand, NewHand, submit

from pgclip import Client

Sql = Callable[..., list[Any]]
pytestmark = pytest.mark.usefixtures("model")
SINCE = "SELECT since IS NOT NULL FROM pgclip.tallied"
NOTED = "SELECT count(*) FROM pgclip.tally_change"
# What people and machines look at again and again.
LOOKS = (
    "SELECT * FROM pgclip.collections",
    "SELECT * FROM pgclip.count_items()",
    "SELECT * FROM pgclip.count_items('default')",
    "SELECT * FROM pgclip.count_items(state => 'done')",
    "SELECT * FROM pgclip.queue",
    "SELECT * FROM pgclip.failures",
    "SELECT name, items, lacking, jobs, failures FROM pgclip.models",
)


def add_up(sql: Sql, most: int = 1000) -> None:
    for _ in range(100):
        if sql("SELECT pgclip.add_up_tallies(%s)", most) == [(False,)]:
            return
    pytest.fail("there is always more to add up")


def everything_that_happens(sql: Sql, hand: Hand) -> list[Callable[[], object]]:
    """To items, jobs, failures and ledger entries, one after the other."""
    return [
        lambda: submit(sql, *"abcdefgh"),
        lambda: sql("SELECT pgclip.submit_text('x', key => 'x', collection => 'other')"),
        lambda: hand.store(*hand.claim(3)),
        lambda: hand.fail("bad"),
        lambda: hand.fail("worse"),
        lambda: hand.claim(1),  # leased
        lambda: sql("SELECT pgclip.submit_text('changed', key => 'a')"),
        lambda: sql("SELECT pgclip.submit_text('b', key => 'b')"),  # as it was
        lambda: sql("SELECT pgclip.submit_image('c', %s)", b"a picture"),
        lambda: sql("SELECT pgclip.retry(reason => 'bad')"),
        lambda: sql("SELECT pgclip.cancel(keys => '{x}')"),
        lambda: sql("SELECT pgclip.rename('b', 'renamed')"),
        lambda: sql("SELECT pgclip.update_metadata('renamed', set => '{\"n\": 1}')"),
        lambda: hand.store(*hand.claim(2)),
        lambda: sql("SELECT pgclip.delete('d')"),
        lambda: sql("SELECT pgclip.add_model('second')"),
        lambda: register(sql, "second"),
        lambda: sql("SELECT pgclip.walk_models(3, 1000)"),
        lambda: sql("SELECT pgclip.walk_models(3, 1000)"),
        lambda: sql("SELECT pgclip.cancel_model('second')"),
        lambda: sql("SELECT pgclip.walk_models(1000, 1000)"),
        lambda: sql("SELECT pgclip.delete_items(collection => 'default')"),
        lambda: sql("SELECT pgclip.drop_collection('default')"),
    ]


@pytest.mark.parametrize("adding", ["never", "once", "each time"])
def test_they_are_true_whatever_happens(
    sql: Sql, hand: NewHand, database_url: str, adding: str
) -> None:
    if adding != "never":
        add_up(sql)
    assert sql(SINCE) == [(adding != "never",)]
    for happen in everything_that_happens(sql, hand()):
        happen()
        assert_tallies_are_true(database_url)
        if adding == "each time":
            add_up(sql, 1)
            assert sql(NOTED) == [(0,)]
            assert_tallies_are_true(database_url)
    add_up(sql)
    assert_tallies_are_true(database_url)


def test_they_are_counted_beside_writers(sql: Sql, database_url: str) -> None:
    ended = threading.Event()

    def write(name: str) -> None:
        n = 0
        while not ended.is_set():
            n += 1
            run_sql(database_url, "SELECT pgclip.submit_text('t', key => %s)", f"{name} {n}")
            if n % 3 == 0:
                run_sql(database_url, "SELECT pgclip.delete(%s)", f"{name} {n - 1}")

    with ThreadPoolExecutor() as pool:
        writers = [pool.submit(write, name) for name in "abc"]
        while run_sql(database_url, "SELECT count(*) < 60 FROM pgclip.item") == [(True,)]:
            sql("UPDATE pgclip.tallied SET since = NULL")
            sql("SELECT pgclip.add_up_tallies(1000)")
            assert sql(SINCE) == [(True,)]
            sql("SELECT pgclip.add_up_tallies(20)")
        ended.set()
        for writer in writers:
            writer.result()
    add_up(sql, 10)
    assert_tallies_are_true(database_url)


def test_what_was_deleted_past_pgclip_is_counted_anew(
    sql: Sql, hand: NewHand, database_url: str
) -> None:
    add_up(sql)
    submit(sql, "a", "b", "c")
    first = hand()
    first.store(*first.claim(1))
    first.fail("bad")
    add_up(sql)
    sql("DELETE FROM pgclip.item")
    add_up(sql)
    assert_tallies_are_true(database_url)
    assert sql("SELECT items, queued, done, failed FROM pgclip.collections") == [(0, 0, 0, 0)]


@pytest.mark.parametrize("table", ["item", "job", "failure", "embedding_set"])
def test_what_was_emptied_past_pgclip_is_counted_anew(
    sql: Sql, hand: NewHand, database_url: str, table: str
) -> None:
    submit(sql, "a", "b", "c")
    first = hand()
    first.store(*first.claim(1))
    first.fail("bad")
    add_up(sql)
    sql(f"TRUNCATE pgclip.{table} CASCADE")
    assert_tallies_are_true(database_url)
    add_up(sql)
    assert_tallies_are_true(database_url)


def test_healing_counts_anew(sql: Sql, database_url: str) -> None:
    add_up(sql)
    submit(sql, "a", "b")
    sql("UPDATE pgclip.tally SET rows = 7")
    sql("DELETE FROM pgclip.tally_change")
    with pytest.raises(AssertionError):
        assert_tallies_are_true(database_url)
    sql("SELECT pgclip.heal()")
    assert_tallies_are_true(database_url)
    add_up(sql)
    assert_tallies_are_true(database_url)


def test_what_a_transaction_takes_back_is_not_counted(
    sql: Sql, database_url: str, client: Client
) -> None:
    add_up(sql)
    with psycopg2.connect(database_url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pgclip.submit_text('t', key => 'k')")
        cursor.execute("SELECT items FROM pgclip.collections")
        assert cursor.fetchall() == [(1,)]
        assert client.collections() == []
        connection.rollback()
    connection.close()
    add_up(sql)
    assert sql("SELECT count(*) FROM pgclip.tally WHERE rows <> 0") == [(0,)]


def test_looks_read_no_items(sql: Sql, hand: NewHand, database_url: str) -> None:
    submit(sql, *(f"t{n}" for n in range(50)))
    first = hand()
    first.store(*first.claim(10))
    first.fail("bad")
    add_up(sql)
    read = """
        SELECT relname, seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables
        WHERE schemaname = 'pgclip' AND relname IN ('item', 'embedding_set', 'failure')
          AND seq_tup_read + coalesce(idx_tup_fetch, 0) > 0
    """
    for look in LOOKS:
        with psycopg2.connect(database_url) as connection, connection.cursor() as cursor:
            cursor.execute(look)
            assert cursor.fetchall()
            cursor.execute(read)
            assert cursor.fetchall() == [], look
        connection.close()


def test_collections_are_not_compared_each_with_each(sql: Sql) -> None:
    """A nested loop would be: planned beside a count that does not take place, it looked cheap."""
    listed = "EXPLAIN SELECT * FROM pgclip.collections"
    assert "Full Join" in "\n".join(line for (line,) in sql(listed))
    one = "\n".join(line for (line,) in sql(f"{listed} WHERE name = 'default'"))
    assert "Full Join" not in one  # its name leads to it
