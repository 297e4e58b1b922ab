"""Models that come and go: nobody waits, no item is missed, and nothing is left of what goes."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg2
import pytest
from support.changing import hand_of, learn_words, register, walk, work_off
from support.databases import assert_ledger_is_true, run_sql
from support.hand import NewHand, states, submit
from support.processes import eventually

from pgclip import Client

Sql = Callable[..., list[Any]]
pytestmark = pytest.mark.usefixtures("model")
COUNT = "SELECT count(*) FROM pgclip.job WHERE model_id = 2"


@pytest.fixture
def user(database_url: str) -> Iterator[Any]:
    """Somebody whose transaction stays open."""
    connection = psycopg2.connect(database_url)
    yield connection
    connection.close()


def test_added_filled_promoted_and_dropped(sql: Sql, hand: NewHand, database_url: str) -> None:
    submit(sql, "a")
    work_off(hand())
    with pytest.raises(psycopg2.Error, match="holds vectors of model m, not of other") as caught:
        register(sql)
    assert "add_model" in str(caught.value)
    with pytest.raises(psycopg2.Error, match="is not the one whose vectors are stored"):
        sql("SELECT pgclip.register_model('m', 2, 10, '{\"fatal\": {\"weights\": 1}}')")
    sql("SELECT pgclip.add_model('other')")
    register(sql)
    assert states(sql) == {"a": "done"}
    with pytest.raises(psycopg2.Error, match=r"not ready.*items: 0 of 1 that were there"):
        sql("SELECT pgclip.promote_model('other')")
    walk(sql)
    with pytest.raises(psycopg2.Error, match=r"not ready.*items: 0 of 1 that were there"):
        sql("SELECT pgclip.promote_model('other')")
    work_off(hand_of(hand, 2), "[0,1]")
    submit(sql, "b")
    learn_words(sql)
    sql("SELECT pgclip.promote_model('other')")  # what came since is no reason to wait
    work_off(hand_of(hand, 2), "[0,1]")
    assert sql("SELECT name, state, jobs FROM pgclip.models ORDER BY name") == [
        ("m", "standby", 1), ("other", "live", 0),
    ]  # fmt: skip
    assert sql("SELECT pgclip.vectors_of(id)::text FROM pgclip.item") == [("[0,1]",)] * 2
    register(sql, "m")  # it may still be served
    sql("SELECT pgclip.retire_model('m')")
    with pytest.raises(psycopg2.Error, match="model m is retired"):
        register(sql, "m")
    assert sql("SELECT state FROM pgclip.models WHERE name = 'm'") == [("dropping",)]
    walk(sql)
    assert sql("SELECT state, jobs, items, bytes FROM pgclip.models WHERE name = 'm'") == [
        ("retired", 0, 0, 0)
    ]
    sql("SELECT pgclip.drop_model('m')")
    assert sql("SELECT state FROM pgclip.models WHERE name = 'm'") == [("dropping",)]
    walk(sql)
    assert sql("SELECT name FROM pgclip.model") == [("other",)]
    assert sql("SELECT to_regclass('pgclip.embedding_1_1')") == [(None,)]
    assert sql("SELECT DISTINCT model_id FROM pgclip.embedding_set") == [(2,)]
    assert_ledger_is_true(database_url)


def test_what_a_model_is_says_what_can_be_done(sql: Sql) -> None:
    for call, told in {
        "readiness('typo')": "model typo is not there",
        "add_model('m')": "model m is there already: it is live",
        "promote_model('typo')": "model typo is not there, not filling or standby",
        "rollback_model()": "there is no model to go back to",
        "rollback_model('m')": "model m is live, not standby",
        "retire_model('m')": "model m is live, not standby or retired",
        "drop_model('m')": "model m is live, not standby or retired",
        "pause_model('m')": "model m is live, not filling or standby",
        "pace_model('m', 5)": "model m is live, not filling or standby",
        "cancel_model('m')": "model m is live",
    }.items():
        with pytest.raises(psycopg2.Error, match=told) as caught:
            sql(f"SELECT pgclip.{call}")
        assert caught.value.pgcode == "PC006"
    sql("SELECT pgclip.add_model('typo')")
    with pytest.raises(psycopg2.Error, match=r"no worker has brought it yet") as caught:
        sql("SELECT pgclip.promote_model('typo', anyway => true)")
    assert "pgclip.cancel_model('typo')" in str(caught.value)
    with pytest.raises(psycopg2.Error, match="it is filling"):
        sql("SELECT pgclip.add_model('typo')")
    sql("SELECT pgclip.cancel_model('typo')")
    with pytest.raises(psycopg2.Error, match="it is dropping"):
        sql("SELECT pgclip.add_model('typo')")
    walk(sql)
    sql("SELECT pgclip.add_model('typo')")


def test_a_mistyped_model_has_no_work_and_can_be_taken_back(sql: Sql, client: Client) -> None:
    submit(sql, "a", "b")
    sql("SELECT pgclip.add_model('typo')")
    submit(sql, "c")
    walk(sql)
    assert sql(COUNT) == [(0,)]
    assert {(each.model, each.reason) for each in client.missing()} == {
        ("m", "queued"), ("typo", "queued"),
    }  # fmt: skip
    assert client.heal().jobs == 0
    sql("SELECT pgclip.cancel_model('typo')")
    walk(sql)
    assert sql("SELECT name FROM pgclip.model") == [("m",)]


def test_as_the_first_model_too(sql: Sql) -> None:
    sql("DELETE FROM pgclip.model_walk; DROP TABLE pgclip.embedding_1_1")
    sql("DELETE FROM pgclip.segment; DELETE FROM pgclip.model")
    sql("SELECT pgclip.add_model('typo')")
    assert sql("SELECT state FROM pgclip.models") == [("live",)]
    sql("SELECT pgclip.cancel_model('typo')")
    walk(sql)
    register(sql, "right")
    assert sql("SELECT name, state FROM pgclip.models") == [("right", "live")]


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
def test_an_item_of_an_open_transaction_is_encoded_by_both(
    sql: Sql, hand: NewHand, user: Any, database_url: str, level: str
) -> None:
    """It was submitted before the model came, and is committed long after."""
    submit(sql, "before", "replaced")
    work_off(hand())
    with user.cursor() as cursor:
        cursor.execute(f"SET TRANSACTION ISOLATION LEVEL {level}")
        cursor.execute("SELECT pgclip.submit_text('of an open transaction', key => 'open')")
        cursor.execute("SELECT pgclip.submit_text('another', key => 'replaced')")
    sql("SET lock_timeout = '1s'")  # nobody waits for anybody
    sql("SELECT pgclip.add_model('other')")
    register(sql)
    walk(sql, page=1)
    submit(sql, "after")
    assert sql("SELECT count(*) FROM pgclip.model_walk WHERE model_id = 2") == [(1,)]
    user.commit()
    walk(sql, page=1)
    assert sql("SELECT model_id FROM pgclip.model_walk") == []
    work_off(hand_of(hand, 2))
    work_off(hand())
    assert sql("SELECT key, count(*) FROM pgclip.embedding_set s JOIN pgclip.item i"
               " ON i.id = s.item_id AND i.generation = s.generation GROUP BY 1 ORDER BY 1"
               ) == [(key, 2) for key in ("after", "before", "open", "replaced")]  # fmt: skip
    assert_ledger_is_true(database_url)


def test_a_snapshot_from_before_a_model_came_is_refused(sql: Sql, user: Any) -> None:
    """It can't know of the model, and nobody would know of the item."""
    cursor = user.cursor()
    cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    cursor.execute("SELECT 1")
    sql("SELECT pgclip.add_model('other')")
    register(sql)
    walk(sql)
    with pytest.raises(psycopg2.errors.SerializationFailure, match="models have changed"):
        cursor.execute("SELECT pgclip.submit_text('a', key => 'a')")
    user.rollback()
    cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    cursor.execute("SELECT pgclip.submit_text('a', key => 'a')")
    user.commit()
    assert sql(COUNT) == [(1,)]


def test_a_locked_item_is_passed_over_and_comes_later(sql: Sql, user: Any, hand: NewHand) -> None:
    submit(sql, "a", "b")
    work_off(hand())
    sql("SELECT pgclip.add_model('other')")
    user.cursor().execute("SELECT FROM pgclip.item WHERE key = 'a' FOR UPDATE")
    register(sql)
    sql("SET lock_timeout = '1s'")
    walk(sql)
    assert sql("SELECT i.key FROM pgclip.job JOIN pgclip.item i ON i.id = item_id") == [("b",)]
    assert sql("SELECT model_id FROM pgclip.model_walk WHERE model_id = 2")
    user.rollback()
    walk(sql)
    assert sql(COUNT) == [(2,)]


def test_new_work_goes_first_and_a_fleet_is_not_flooded(sql: Sql, hand: NewHand) -> None:
    submit(sql, *(f"old {n}" for n in range(30)))
    work_off(hand())
    sql("SELECT pgclip.add_model('other')")
    sql("INSERT INTO pgclip.model_walk VALUES (2)")  # but for the first page
    sql("UPDATE pgclip.model SET dimension = 2 WHERE id = 2")
    walk(sql, page=5, most=10, times=3)
    assert sql(COUNT) == [(10,)]
    submit(sql, "new")
    assert [job[3] for job in hand_of(hand, 2).claim(1)[1]] == ["new"]


def test_cancelled_while_it_is_filled_at_work_and_locked(
    sql: Sql, hand: NewHand, user: Any, database_url: str
) -> None:
    submit(sql, *(f"text {n}" for n in range(40)))
    work_off(hand())
    sql("SELECT pgclip.add_model('other')")
    register(sql)
    walk(sql)
    at_work = hand_of(hand, 2)
    lease, jobs = at_work.claim(10)
    at_work.store(*at_work.claim(10))
    epoch = sql("SELECT epoch FROM pgclip.label_epoch")[0][0]
    failed = json.dumps([{"job_id": jobs[0][0], "reason": "r", "message": "m"}])
    at_work.sql("SELECT pgclip.store(%s, %s, '{}', '{}', %s)", lease, epoch, failed)
    sql("SELECT pgclip.answer_query(2::smallint, 'text', 'x', '{1,0}')")
    sql("SELECT pgclip.keep_label_vector(id, 2::smallint, 1, '{1,0}') FROM pgclip.label")
    user.cursor().execute("SELECT pgclip.submit_text('another', key => 'text 1')")
    sql("SET lock_timeout = '1s'")
    sql("SELECT pgclip.cancel_model('other')")
    walk(sql, page=7)
    assert at_work.heartbeat() is False
    with pytest.raises(psycopg2.Error, match="retired or gone"):
        at_work.sql("SELECT pgclip.sign_on(2::smallint, 'h', 1, 'cpu', 'f', 64, 60)")
    submit(sql, "meanwhile")
    assert at_work.store(lease, jobs) == []
    assert sql("SELECT state FROM pgclip.models WHERE name = 'other'") == [("dropping",)]
    user.commit()  # the job that it queued for the model goes, too
    walk(sql, page=7)
    assert sql("SELECT name FROM pgclip.model") == [("m",)]
    for table in ("embedding_set", "job", "failure", "label_vector", "query_vector", "segment"):
        assert sql(f"SELECT count(*) FROM pgclip.{table} WHERE model_id = 2") == [(0,)]
    assert sql("SELECT to_regclass('pgclip.embedding_2_1')") == [(None,)]
    work_off(hand())
    assert_ledger_is_true(database_url)
    register(sql, "m")


def test_nobody_signs_on_for_a_model_that_is_just_being_taken_back(
    sql: Sql, user: Any, database_url: str
) -> None:
    sql("SELECT pgclip.add_model('other')")
    register(sql)
    user.cursor().execute("SELECT pgclip.cancel_model('other')")
    with ThreadPoolExecutor() as pool:
        statement = "SELECT pgclip.sign_on(2::smallint, 'h', 1, 'cpu', 'f', 64, 60)"
        signing_on = pool.submit(run_sql, database_url, statement)
        eventually(lambda: signing_on.done() or sql("SELECT 1 FROM pg_locks WHERE NOT granted"))
        user.commit()
        with pytest.raises(psycopg2.Error, match="retired or gone"):
            signing_on.result()
    walk(sql)
    assert sql("SELECT name FROM pgclip.model") == [("m",)]


def test_bytes_are_kept_for_a_model_that_is_being_filled(sql: Sql, hand: NewHand) -> None:
    def kept() -> Any:
        sql("SELECT pgclip.collect_contents(100)")
        return sql("SELECT kept FROM pgclip.items")

    submitted = "SELECT pgclip.submit_text('a', key => 'a', keep_source => false)"
    sql(submitted)
    sql("SELECT pgclip.add_model('other')")
    work_off(hand())
    assert kept() == [(True,)]
    register(sql)
    walk(sql)
    work_off(hand_of(hand, 2))
    assert kept() == [(False,)]
    # And for one that is taken back they are let go.
    sql("SELECT pgclip.add_model('third')")
    sql(submitted)
    register(sql, "third")
    assert kept() == [(True,)]
    sql("SELECT pgclip.cancel_model('third')")
    walk(sql)
    assert kept() == [(False,)]


def test_a_copy_of_a_database_walks_on(sql: Sql, hand: NewHand) -> None:
    """Numbers of transactions are another server's."""
    submit(sql, "a")
    work_off(hand())
    sql("SELECT pgclip.add_model('other')")
    register(sql)
    sql("UPDATE pgclip.model_walk SET known_from = '4000000000'")
    sql("SELECT setval('pgclip.model_change', 4000000000)")
    walk(sql)
    assert sql("SELECT model_id FROM pgclip.model_walk") == []
    sql("BEGIN ISOLATION LEVEL REPEATABLE READ")
    sql("SELECT pgclip.submit_text('b', key => 'b')")
    sql("COMMIT")


def test_a_job_of_an_older_generation_is_made_anew(sql: Sql, hand: NewHand) -> None:
    submit(sql, "a")
    sql("UPDATE pgclip.item SET generation = 2")  # by one who saw no job of this model
    walk(sql)
    assert sql("SELECT generation FROM pgclip.job") == [(2,)]
    work_off(hand())
    assert states(sql) == {"a": "done"}


def test_no_submission_waits_for_a_model(database_url: str, sql: Sql, user: Any) -> None:
    """Nor a model for a submission: their locks don't meet."""
    submit(sql, "a")
    user.cursor().execute("SELECT pgclip.add_model('other')")
    user.cursor().execute("SELECT pgclip.register_model('other', 2, 10, '{\"fatal\": {}}')")
    run_sql(database_url, "SET lock_timeout = '1s'; SELECT pgclip.submit_text('b', key => 'b')")
    run_sql(database_url, "SET lock_timeout = '1s'; SELECT pgclip.delete('b')")
