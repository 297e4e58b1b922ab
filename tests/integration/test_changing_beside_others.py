"""Changing models beside the steward, beside each other, and as those who were before."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psycopg2
import pytest
from support.changing import (
    LIVE,
    register,
    states_of_models,
    vectors,
    walk,
    work_off,
)
from support.databases import run_sql
from support.hand import Hand, NewHand, submit

from pgclip import Client

Sql = Callable[..., list[Any]]
pytestmark = pytest.mark.usefixtures("model")


def replaced_long_ago(sql: Sql) -> None:
    sql("UPDATE pgclip.model SET replaced_at = replaced_at - interval '11 min' WHERE id = 1")


@pytest.mark.usefixtures("old_server")
def test_the_steward_retires_no_live_model(
    sql: Sql, promotable: Hand, client: Client, user: Any, database_url: str
) -> None:
    """It meets somebody who goes back to the one that was kept long enough."""
    client.promote_model("other", keep=timedelta(0))
    user.cursor().execute("SELECT model FROM pgclip.rollback_model('m')")
    sql("SET lock_timeout = '1s'")
    walk(sql, times=2)
    user.commit()
    walk(sql)
    assert sql(LIVE) == [("m",)]
    assert set(vectors(sql).values()) == {"[1,0]"}


@pytest.mark.usefixtures("old_server")
def test_going_back_keeps_what_is_to_be_done(
    sql: Sql, promotable: Hand, client: Client, user: Any
) -> None:
    client.promote_model("other")
    sql("DELETE FROM pgclip.worker WHERE model_id = 1")
    replaced_long_ago(sql)
    walk(sql)
    submit(sql, "c")
    user.cursor().execute("SELECT model FROM pgclip.rollback_model('m')")
    sql("SET lock_timeout = '1s'")
    walk(sql, times=2)
    user.commit()
    walk(sql)
    assert sql("SELECT i.key FROM pgclip.job j JOIN pgclip.item i ON i.id = j.item_id"
               " WHERE j.model_id = 1") == [("c",)]  # fmt: skip


@pytest.mark.usefixtures("old_server")
def test_a_worker_that_was_silent_for_long_attends_again(
    sql: Sql, hand: NewHand, promotable: Hand, client: Client
) -> None:
    worker = hand()
    client.promote_model("other")
    sql("UPDATE pgclip.worker SET expires_at = now() - interval '11 min' WHERE model_id = 1")
    replaced_long_ago(sql)
    walk(sql)
    attended = "SELECT attended FROM pgclip.models WHERE name = 'm'"
    assert sql(attended) == [(False,)]
    assert worker.heartbeat()
    assert sql(attended) == [(True,)]


def test_while_postgres_was_down_nobody_could_say_so(
    sql: Sql, promotable: Hand, client: Client
) -> None:
    client.promote_model("other")
    sql("DELETE FROM pgclip.worker WHERE model_id = 1")
    replaced_long_ago(sql)
    ((young,),) = sql("SELECT pg_postmaster_start_time() > now() - interval '10 min'")
    walk(sql)
    assert sql("SELECT attended FROM pgclip.models WHERE name = 'm'") == [(young,)]


def test_signing_on_at_once(sql: Sql, promotable: Hand, client: Client, database_url: str) -> None:
    client.promote_model("other")
    signed_on = "SELECT pgclip.sign_on(1::smallint, 'h', 1, 'cpu', 'f', 64, 60)"
    with ThreadPoolExecutor(8) as pool:
        for _ in range(10):
            sql("UPDATE pgclip.model SET is_unattended = true WHERE id = 1")
            for done in [pool.submit(run_sql, database_url, signed_on) for _ in range(8)]:
                done.result()


def test_dropped_while_it_is_retired(sql: Sql, promotable: Hand, client: Client) -> None:
    client.promote_model("other")
    client.retire_model("m")
    client.drop_model("m")
    walk(sql)
    assert states_of_models(sql) == {"other": "live"}


def test_one_that_no_worker_brought_is_not_gone_back_to(sql: Sql, hand: NewHand) -> None:
    sql("DELETE FROM pgclip.model_walk; DROP TABLE pgclip.embedding_1_1")
    sql("DELETE FROM pgclip.segment; DELETE FROM pgclip.model")
    sql("SELECT pgclip.add_model('typo')")
    sql("SELECT pgclip.add_model('right')")
    register(sql, "right")
    sql("SELECT pgclip.promote_model('right', anyway => true)")
    walk(sql)
    assert states_of_models(sql) == {"right": "live"}


def test_another_was_promoted_meanwhile(
    sql: Sql, promotable: Hand, user: Any, database_url: str
) -> None:
    sql("SELECT pgclip.add_model('third')")
    register(sql, "third")
    user.cursor().execute("SELECT pgclip.promote_model('other')")
    with ThreadPoolExecutor() as pool:
        third = "SELECT pgclip.promote_model('third', anyway => true)"
        waiting = pool.submit(run_sql, database_url, third)
        while not sql("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"):
            assert not waiting.done()
        user.commit()
        with pytest.raises(psycopg2.Error, match="model other was promoted meanwhile"):
            waiting.result()
    assert sql(LIVE) == [("other",)]


def test_filling_what_is_live_is_no_backlog(sql: Sql, hand: NewHand, client: Client) -> None:
    submit(sql, *(f"{n}" for n in range(50)))
    work_off(hand())
    sql("SELECT pgclip.add_model('other', map_sample => 0)")
    register(sql)
    sql("DELETE FROM pgclip.job WHERE model_id = 2")
    client.promote_model("other", anyway=True)
    walk(sql)
    assert sql("SELECT count(*) FROM pgclip.job WHERE model_id = 2") == [(50,)]
    assert sql("SELECT pgclip.waiting(100)") == [(0,)]
    submit(sql, "new")
    assert sql("SELECT pgclip.waiting(100)") == [(1,)]


def test_a_slow_pace_fills_too(sql: Sql, hand: NewHand) -> None:
    submit(sql, "a", "b", "c")
    work_off(hand())
    sql("SELECT pgclip.add_model('other', pace => 0.05, map_sample => 0)")
    register(sql)
    sql("DELETE FROM pgclip.job WHERE model_id = 2")
    waits = "SELECT count(*) FROM pgclip.job WHERE model_id = 2"
    walk(sql)
    assert sql(waits) == [(1,)]
    sql("UPDATE pgclip.model_walk SET paced_to = paced_to - interval '20 s'")
    walk(sql, times=1)
    assert sql(waits) == [(2,)]


def test_what_is_calibrated_by_hand_stays(sql: Sql, promotable: Hand, client: Client) -> None:
    submit(sql, *(f"{n}" for n in range(40)))
    sql("SELECT pgclip.set_calibration('text', 'text', 0.123, 20)")
    client.promote_model("other", anyway=True)
    sql("INSERT INTO pgclip.calibration VALUES (2, 'text', 'image', 0.2, 20, 0.1, 0.1)")
    sql("SELECT pgclip.prepare_model(1::smallint)")
    assert sql("SELECT midpoint::text FROM pgclip.calibration WHERE model_id = 1") == [("0.123",)]
    ready = {each.what: each.is_ready for each in client.model_readiness("m")}
    assert ready["relevance"]  # tried, and too few ask


def test_bytes_that_waited_for_a_model_alone_are_let_go(
    sql: Sql, hand: NewHand, client: Client
) -> None:
    sql("SELECT pgclip.add_model('other')")
    sql("SELECT pgclip.submit_text('a', key => 'a', keep_source => false)")
    work_off(hand())
    kept = "SELECT kept FROM pgclip.items"
    sql("SELECT pgclip.collect_contents(100)")
    assert sql(kept) == [(True,)]
    client.cancel_model("other")
    walk(sql)
    sql("SELECT pgclip.collect_contents(100)")
    assert sql(kept) == [(False,)]


def test_pacing_blames_nobody_anew(sql: Sql, hand: NewHand, client: Client) -> None:
    submit(sql, "a", "b")
    work_off(hand())
    sql("SELECT pgclip.add_model('other')")
    register(sql)
    walk(sql)
    sql("UPDATE pgclip.job SET strikes = 2, group_limit = 1 WHERE model_id = 2 AND id ="
        " (SELECT min(id) FROM pgclip.job WHERE model_id = 2)")  # fmt: skip
    client.pace_model("other", 100)
    walk(sql)
    assert sql("SELECT max(strikes) FROM pgclip.job WHERE model_id = 2") == [(2,)]


def test_nothing_to_compare(sql: Sql, promotable: Hand, client: Client) -> None:
    found = client.compare_models("other", kind="image", labels=False)
    assert {each.overlap for each in found.queries} == {0}
    assert found.scores() == (None, None)
    sql("DELETE FROM pgclip.embedding_set WHERE model_id = 2")
    empty = client.compare_models("other", labels=False)
    assert (empty.queries, empty.overlap, empty.best_changed) == ([], None, None)
    assert empty.seconds() == (None, None)


def test_a_worker_signs_on_again_and_is_no_faster(sql: Sql, hand: NewHand) -> None:
    worker = hand()
    worker.sql("SELECT pgclip.heartbeat(%s, 60, NULL, 0)", worker.id)
    ((rate,),) = sql("SELECT rate FROM pgclip.worker")
    assert rate == 0
