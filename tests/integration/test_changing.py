"""Changing the model that is searched, step by step: what each asks for, does, and leaves."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psycopg2
import pytest
from support.changing import (
    LIVE,
    hand_of,
    learn_words,
    register,
    states_of_models,
    vectors,
    walk,
    work_off,
)
from support.databases import assert_ledger_is_true, run_sql
from support.hand import Hand, NewHand, keys, states, submit

from pgclip import Client, InvalidItem, ModelMismatch, NotFound, QueryFailed

Sql = Callable[..., list[Any]]
pytestmark = pytest.mark.usefixtures("model")


def test_back_and_forth(client: Client, sql: Sql, hand: NewHand, promotable: Hand) -> None:
    client.promote_model("other")
    submit(sql, "c")  # it is for both
    work_off(promotable, "[0,1]")
    assert states(sql) == dict.fromkeys("abc", "done")
    assert vectors(sql) == dict.fromkeys("abc", "[0,1]")
    back = client.rollback_model()
    assert (back.model, back.lacking) == ("m", 1)
    assert vectors(sql) == {"a": "[1,0]", "b": "[1,0]"}
    assert states(sql) == {"a": "done", "b": "done", "c": "queued"}
    assert states_of_models(sql) == {"m": "live", "other": "standby"}
    work_off(hand())
    assert vectors(sql) == dict.fromkeys("abc", "[1,0]")
    client.promote_model("other")
    assert vectors(sql) == dict.fromkeys("abc", "[0,1]")
    with pytest.raises(ModelMismatch, match="model other is live, not standby"):
        client.rollback_model("other")


@pytest.mark.usefixtures("old_server")
def test_one_that_nobody_serves_is_left_alone_until_somebody_does(
    sql: Sql, hand: NewHand, promotable: Hand, client: Client
) -> None:
    client.promote_model("other")
    sql("DELETE FROM pgclip.worker WHERE model_id = 1")
    submit(sql, "c")
    walk(sql)
    waits = "SELECT count(*) FROM pgclip.job WHERE model_id = 1"
    assert sql(waits) == [(1,)]
    sql("UPDATE pgclip.model SET replaced_at = replaced_at - interval '11 min' WHERE id = 1")
    walk(sql)
    assert sql(waits) == [(0,)]
    sql("SELECT pgclip.submit_text('d', key => 'd', keep_source => false)")
    work_off(promotable)
    sql("SELECT pgclip.collect_contents(100)")
    assert sql("SELECT kept FROM pgclip.items WHERE key = 'd'") == [(False,)]
    assert sql(waits) == [(0,)]
    assert client.missing() == []
    assert client.heal().jobs == 0
    assert sql("SELECT attended, lacking FROM pgclip.models WHERE name = 'm'") == [(False, 2)]
    register(sql, "m")  # a worker comes
    worker = hand()
    walk(sql)
    assert sql("SELECT attended FROM pgclip.models WHERE name = 'm'") == [(True,)]
    assert keys(worker.claim()[1]) == ["c", "d"]


def test_going_back_to_one_that_nobody_served_says_what_it_lacks(
    sql: Sql, promotable: Hand, client: Client
) -> None:
    client.promote_model("other")
    sql("DELETE FROM pgclip.worker WHERE model_id = 1")
    sql("UPDATE pgclip.model SET replaced_at = replaced_at - interval '11 min' WHERE id = 1")
    walk(sql)
    submit(sql, "c", "d", "e")
    back = client.rollback_model("m")
    assert (back.model, back.lacking) == ("m", 3)
    walk(sql)
    assert states(sql)["c"] == "queued"


def test_one_that_was_kept_long_enough_goes(sql: Sql, promotable: Hand, client: Client) -> None:
    client.promote_model("other", keep=timedelta(days=3))
    ((kept, replaced),) = sql("SELECT kept_until, replaced_at FROM pgclip.models WHERE name = 'm'")
    assert timedelta(days=2.99) < kept - replaced < timedelta(days=3.01)
    walk(sql)
    assert states_of_models(sql) == {"m": "standby", "other": "live"}
    sql("UPDATE pgclip.model SET kept_until = now() WHERE id = 1")
    walk(sql)
    assert states_of_models(sql) == {"m": "retired", "other": "live"}
    assert sql("SELECT to_regclass('pgclip.embedding_1_1')") == [(None,)]
    with pytest.raises(ModelMismatch, match="no model to go back to"):
        client.rollback_model()
    assert sql("SELECT count(*) FROM pgclip.embedding_set WHERE model_id = 1") == [(0,)]
    client.drop_model("m")
    walk(sql)
    assert states_of_models(sql) == {"other": "live"}


def test_kept_for_ever_if_that_is_wanted(sql: Sql, promotable: Hand, client: Client) -> None:
    client.promote_model("other", keep=None)
    sql("UPDATE pgclip.model SET replaced_at = replaced_at - interval '9 years' WHERE id = 1")
    walk(sql)
    assert states_of_models(sql)["m"] == "standby"


def test_one_whose_vectors_answer_for_another_stays(
    sql: Sql, promotable: Hand, client: Client
) -> None:
    sql("INSERT INTO pgclip.model_mapping VALUES (2, 1, 'answers')"
        " ON CONFLICT (model_id) DO UPDATE SET state = 'answers'")  # fmt: skip
    sql("DELETE FROM pgclip.embedding_set WHERE model_id = 2 AND item_id = 1")
    client.promote_model("other", keep=timedelta(0), anyway=True)
    walk(sql)
    assert states_of_models(sql)["m"] == "standby"
    for give_up in (client.retire_model, client.drop_model):
        with pytest.raises(ModelMismatch, match="still answer for items that lack those of other"):
            give_up("m")
    client.retire_model("m", anyway=True)
    assert sql("SELECT 1 FROM pgclip.model_mapping") == []
    walk(sql)
    assert states_of_models(sql)["m"] == "retired"


def test_paused_and_resumed(sql: Sql, hand: NewHand, promotable: Hand, client: Client) -> None:
    submit(sql, "c")
    client.pause_model("other")
    assert promotable.claim()[1] == []
    assert keys(hand().claim()[1]) == ["c"]
    assert len(sql("SELECT queue FROM pgclip.backlog(10)")) == 1
    client.resume_model("other")
    assert keys(promotable.claim()[1]) == ["c"]
    client.pause_model("other")
    client.promote_model("other", share=0.5)
    submit(sql, "d")
    assert keys(promotable.claim()[1]) == ["d"]  # what is live is not paused


def test_filled_at_a_pace(sql: Sql, hand: NewHand, client: Client) -> None:
    submit(sql, *(f"{n}" for n in range(300)))
    work_off(hand())
    sql("SELECT pgclip.add_model('other', pace => 2, map_sample => 0)")
    register(sql)
    waits = "SELECT count(*) FROM pgclip.job WHERE model_id = 2"
    sql("DELETE FROM pgclip.job WHERE model_id = 2")  # the first page
    walk(sql, page=50)
    ((first,),) = sql(waits)
    assert 19 <= first <= 30  # of ten seconds
    walk(sql, page=50)
    assert sql(waits)[0][0] <= first + 10
    client.pace_model("other", None)
    walk(sql, page=50)
    assert sql(waits) == [(300,)]
    client.pace_model("other", 5)  # what waits is queued anew
    assert sql(waits) == [(0,)]
    walk(sql, page=50)
    assert 40 <= sql(waits)[0][0] <= 70
    for nonsense in (0, -1, float("nan"), float("inf")):
        with pytest.raises(psycopg2.Error, match="items a second, more than 0"):
            sql("SELECT pgclip.pace_model('other', %s::real)", nonsense)


def test_what_is_not_ready_is_said_and_stops_a_promotion(
    sql: Sql, hand: NewHand, client: Client, promotable: Hand
) -> None:
    def lacking(share: float = 1) -> set[str]:
        found = client.model_readiness("other", share=share)
        return {each.what for each in found if not each.is_ready}

    assert lacking() == set()
    sql("SELECT pgclip.define_label_set('colours', ARRAY['red', 'blue'])")
    sql("SELECT pgclip.judge('colours', 'red', 'a')")
    sql("SELECT pgclip.request_teaching('colours')")
    sql("INSERT INTO pgclip.calibration VALUES (1, 'text', 'text', 0.2, 20, 0.1, 0.1)")
    sql("INSERT INTO pgclip.kept_query (kind, hash, data) VALUES ('text', sha256('x'), 'x')")
    assert "queries" not in lacking()  # asked just now: its workers may not have seen it yet
    sql("UPDATE pgclip.kept_query SET asked_at = asked_at - interval '61 s'")
    sql("UPDATE pgclip.model SET last_item = last_item + 1")
    submit(sql, "c")
    sql("UPDATE pgclip.segment SET state = 'sealed', kind = 'text' WHERE model_id = 2")
    sql("DELETE FROM pgclip.worker WHERE model_id = 2")
    everything = {"worker", "items", "words", "heads", "labels", "recall", "relevance", "queries"}
    assert lacking() == everything
    assert lacking(0.5) == everything - {"items", "labels"}
    with pytest.raises(ModelMismatch, match=r"is not ready\. worker: 0 alive; items: 2 of 3"):
        client.promote_model("other")
    assert sql(LIVE) == [("m",)]
    client.promote_model("other", anyway=True)
    assert sql(LIVE) == [("other",)]
    with pytest.raises(InvalidItem, match="share is from 0 to 1"):
        client.model_readiness("other", share=2)


def test_what_fails_is_no_reason_to_wait(sql: Sql, hand: NewHand, client: Client) -> None:
    submit(sql, "a", "b")
    work_off(hand())
    sql("SELECT pgclip.add_model('other')")
    register(sql)
    walk(sql)
    other = hand_of(hand, 2)
    lease, jobs = other.claim(1)
    other.store(lease, jobs)
    learn_words(sql)
    with pytest.raises(ModelMismatch, match="items: 1 of 2"):
        client.promote_model("other")
    lease, jobs = other.claim(1)
    failed = json.dumps([{"job_id": jobs[0][0], "reason": "r", "message": "m"}])
    sql("SELECT pgclip.store(%s, (SELECT epoch FROM pgclip.label_epoch), '{}', '{}', %s)",
        lease, failed)  # fmt: skip
    client.promote_model("other")
    assert sorted(states(sql).values()) == ["done", "failed"]


def test_a_transaction_that_was_open_all_the_while(
    sql: Sql, hand: NewHand, user: Any, client: Client, database_url: str
) -> None:
    """Since before the model was added, until after it was promoted."""
    submit(sql, "a")
    work_off(hand())
    user.cursor().execute("SELECT pgclip.submit_text('open', key => 'open')")
    sql("SET lock_timeout = '1s'")
    sql("SELECT pgclip.add_model('other')")
    register(sql)
    walk(sql)
    other = hand_of(hand, 2)
    work_off(other)
    learn_words(sql)
    client.promote_model("other")
    user.commit()
    walk(sql)
    work_off(other)
    assert states(sql) == {"a": "done", "open": "done"}
    work_off(hand())
    assert sql("SELECT count(*) FROM pgclip.embedding_set") == [(4,)]
    assert_ledger_is_true(database_url)


@pytest.mark.parametrize("second", ["promote_model('other')", "cancel_model('other')",
                                    "promote_model('other', anyway => true)"])  # fmt: skip
def test_two_at_once(sql: Sql, promotable: Hand, user: Any, database_url: str, second: str) -> None:
    user.cursor().execute("SELECT pgclip.promote_model('other')")
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(run_sql, database_url, f"SELECT pgclip.{second}")
        while not sql("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"):
            assert not waiting.done()
        user.commit()
        with pytest.raises(psycopg2.Error, match="model other is live"):
            waiting.result()
    assert states_of_models(sql) == {"m": "standby", "other": "live"}


def asked(sql: Sql, model: int, text: str, vector: str) -> None:
    sql("SELECT pgclip.answer_query(%s::smallint, 'text', sha256(%s), %s)",
        model, text.encode(), vector)  # fmt: skip


def test_who_is_about_to_search_is_answered(sql: Sql, promotable: Hand, client: Client) -> None:
    """By the model that was live when the query was encoded."""
    asked(sql, 1, "q", "{1,0}")
    client.promote_model("other")
    assert [score for (score,) in sql("SELECT score FROM pgclip.search('q')")] == [1, 1]
    sql("UPDATE pgclip.model SET replaced_at = now() - interval '2 min' WHERE id = 1")
    with pytest.raises(psycopg2.Error, match="vector is not there yet"):
        sql("SELECT pgclip.search('q')")
    asked(sql, 2, "q", "{0,1}")
    assert [score for (score,) in sql("SELECT score FROM pgclip.search('q')")] == [1, 1]


def test_who_waits_for_a_vector_asks_the_new_one(
    sql: Sql, promotable: Hand, client: Client
) -> None:
    assert sql("SELECT pgclip.request_embedding('q')") == [(False,)]
    embedded = "SELECT pgclip.is_embedded('text', sha256('q'))"
    assert sql(embedded) == [(False,)]
    client.promote_model("other")
    assert sql(embedded) == [(None,)]
    with ThreadPoolExecutor() as pool:
        search = pool.submit(client.search, "q", timeout=20)
        while not (taken := sql("SELECT hash FROM pgclip.take_queries(2::smallint, 9)")):
            pass
        assert len(taken) == 1
        asked(sql, 2, "q", "{0,1}")
        assert {hit.key for hit in search.result()} == {"a", "b"}


def test_searched_by_name(sql: Sql, promotable: Hand, client: Client) -> None:
    for model, vector in {1: "{1,0}", 2: "{0,1}"}.items():
        asked(sql, model, "q", vector)
        asked(sql, model, "r", "{0.6,0.8}")
    scores = {
        model: [round(hit.score, 2) for hit in client.search("r", model=model)]
        for model in (None, "m", "other")
    }
    assert scores == {None: [0.6, 0.6], "m": [0.6, 0.6], "other": [0.8, 0.8]}
    assert client.search_vector([0, 1], model="other")[0].score == 1
    assert client.search(like="a", model="other")[0].key == "b"
    assert round(client.search([("q", 1), ("r", 1)], model="other")[0].score, 2) == 0.95
    for name in ("nobody", "other"):
        if name == "other":
            sql("SELECT pgclip.cancel_model('other')")
        with pytest.raises(ModelMismatch, match=f"no model {name} that has vectors"):
            client.search("q", model=name)
    sql("DELETE FROM pgclip.worker")
    with pytest.raises(QueryFailed, match="no worker of model m is alive"):
        client.search("new", model="m", timeout=0.2)


def test_what_a_model_would_cost(sql: Sql, hand: NewHand, client: Client) -> None:
    submit(sql, "a", "b")
    sql("SELECT pgclip.submit_text('c', key => 'c', keep_source => false)")
    sql("SELECT pgclip.submit_image(key => 'd', source => 'file:///d.jpg')")
    worker = hand()
    work_off(worker)
    sql("SELECT pgclip.collect_contents(100)")
    plan = client.plan_model()
    assert (plan.items, plan.images, plan.texts, plan.not_kept) == (4, 1, 3, 1)
    assert plan.size > 0
    assert client.plan_model(1000).size > plan.size + 4 * 4 * 998
    assert plan.seconds is None
    sql("UPDATE pgclip.worker SET fastest = 1.5 WHERE id = %s", worker.id)
    assert client.plan_model().seconds == 2
    with pytest.raises(InvalidItem, match="a dimension is from 1 to 4000"):
        client.plan_model(0)


def test_rates_of_workers(sql: Sql, hand: NewHand) -> None:
    worker = hand()
    sql("UPDATE pgclip.worker SET heartbeat_at = now() - interval '10 s' WHERE id = %s", worker.id)
    worker.sql("SELECT pgclip.heartbeat(%s, 60, NULL, 100)", worker.id)
    ((rate,),) = sql("SELECT rate FROM pgclip.worker")
    assert 4.9 < rate < 5.1
    sql("UPDATE pgclip.worker SET heartbeat_at = now() - interval '10 s' WHERE id = %s", worker.id)
    worker.sql("SELECT pgclip.heartbeat(%s, 60, NULL, 100)", worker.id)
    ((later, highest),) = sql("SELECT rate, fastest FROM pgclip.worker")
    assert 2.4 < later < 2.6
    assert highest == rate
    assert sql("SELECT round(rate::numeric, 1) FROM pgclip.models")[0][0] in (2.4, 2.5, 2.6)
    worker.heartbeat()  # one of an older version says nothing of it
    assert sql("SELECT rate FROM pgclip.worker") == [(None,)]


def test_compared(sql: Sql, promotable: Hand, client: Client) -> None:
    for text in ("kept", "not kept"):
        asked(sql, 1, text, "{1,0}")
        asked(sql, 2, text, "{0,1}")
    sql("INSERT INTO pgclip.kept_query (kind, hash, data) VALUES ('text', sha256('kept'), 'kept')")
    found = client.compare_models("other", labels=False)
    assert (found.old_model, found.new_model) == ("m", "other")
    assert (found.queries[0].asked, found.queries[0].query) == ("query", "kept")
    assert {each.query for each in found.queries if each.asked == "item"} == {"a", "b"}
    assert found.asked == 1
    assert found.overlap == 1
    assert found.best_changed == 0
    assert found.queries[0].old.keys == ["a", "b"]
    assert found.scores() == (1, 1)
    assert found.labels == {}
    assert len(client.compare_models("other", queries=2, labels=False).queries) == 2
    with pytest.raises(InvalidItem, match="not with itself"):
        client.compare_models("m", labels=False)
    with pytest.raises(NotFound):
        client.compare_models("other", collection="nowhere", labels=False)


def test_only_the_owner_changes_models(sql: Sql, promotable: Hand, database_url: str) -> None:
    sql("CREATE ROLE looks_only")
    try:
        sql("SELECT pgclip.grant_access('looks_only', 'client')")
        for call in ("add_model('x')", "promote_model('other', anyway => true)",
                     "rollback_model()", "cancel_model('other')",
                     "pause_model('other')"):  # fmt: skip
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                run_sql(database_url, f"SET ROLE looks_only; SELECT pgclip.{call}")
        run_sql(database_url, "SET ROLE looks_only; SELECT * FROM pgclip.models")
        run_sql(database_url, "SET ROLE looks_only; SELECT * FROM pgclip.model_maps")
    finally:
        sql("SELECT pgclip.revoke_access('looks_only')")
        sql("DROP ROLE looks_only")
