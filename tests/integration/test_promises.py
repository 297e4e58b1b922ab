"""Labels that keep a promise: from an empty database, with a real worker."""

from collections.abc import Callable
from typing import Any

import psycopg2
import pytest
from support.processes import WorkerFactory, eventually
from support.promised import decided, is_so, judge_all, submit, the_promise
from support.roles import Roles

from pgclip import Client, InvalidItem, NotFound, PgclipError
from pgclip.local import LocalServices

Sql = Callable[..., list[Any]]


def test_from_nothing_to_a_kept_promise(armed: Client, sql: Sql) -> None:
    assert set(decided(armed).values()) == {"review"}
    assert len(decided(armed)) == 320
    (asked,) = armed.promise("guarded", "weapon", precision=0.95)
    assert (asked.state, asked.lacking, asked.threshold) == ("waiting", 59, None)
    eventually(lambda: the_promise(armed).state == "judging")
    draws = armed.review("guarded", 20, by="ana", purpose="promise")
    assert {draw.purpose for draw in draws} == {"precision"}
    assert all(draw.score is not None for draw in draws)
    for draw in draws:
        armed.judge("guarded", "weapon", draw.key, is_so(draw.key), by="ana")
    assert the_promise(armed).lacking == 39
    # Of 59 right ones 59: the least at which it is kept.
    while the_promise(armed).threshold is None:
        (draw,) = armed.review("guarded", 1, by="ana", purpose="promise")
        armed.judge("guarded", "weapon", draw.key, is_so(draw.key), by="ana")
    kept = the_promise(armed)
    assert (kept.state, kept.judged, kept.right) == ("kept", 59, 59)
    assert kept.bound == pytest.approx(0.05 ** (1 / 59), abs=1e-3)
    assert kept.decides is not None
    assert kept.decides >= 73  # a quarter more than are drawn
    eventually(lambda: len(decided(armed, "yes")) >= 73)
    assert all(map(is_so, decided(armed, "yes")))
    yes = next(one for one in armed.decisions("guarded", decision="yes")
               if one.rests_on == "precision")  # fmt: skip
    assert (yes.share, yes.confidence, yes.threshold) == (0.95, 0.95, kept.threshold)
    assert yes.score is not None
    assert kept.threshold is not None
    assert yes.score >= kept.threshold
    # Further judgements lower the threshold, so that it decides more.
    judge_all(armed)
    assert the_promise(armed).decides in range(105, 121)
    eventually(lambda: len([key for key in decided(armed, "yes") if is_so(key)]) >= 105)
    # What comes later is decided as it is stored.
    submit(armed, "weapon", 20, first=1000)
    later = {key: said for key, said in decided(armed, "yes").items() if "weapon 10" in key}
    assert len(later) >= 10
    assert armed.get("flower 0").labels == ()


def test_a_wrong_one_takes_more_judgements(armed: Client) -> None:
    submit(armed, "weapon", 100, first=1000)
    armed.promise("guarded", "weapon", precision=0.9)
    eventually(lambda: the_promise(armed).state == "judging")
    assert the_promise(armed).lacking == 29
    (draw,) = armed.review("guarded", 1, by="ana", purpose="promise")
    armed.judge("guarded", "weapon", draw.key, False, by="ana")
    judge_all(armed)
    # The first look has failed; a later one, of more draws with one wrong, is passed.
    kept = the_promise(armed)
    assert kept.threshold is not None
    assert kept.judged == 85
    assert kept.right == 84
    # A judgement that is corrected counts as it is now; a worker may be at the campaign.
    armed.judge("guarded", "weapon", draw.key, True, by="ana")
    eventually(lambda: the_promise(armed).right == the_promise(armed).judged)
    assert the_promise(armed).state == "kept"


def test_what_cannot_be_kept_is_not_promised(client: Client, database_url: str,
                                             start_worker: WorkerFactory) -> None:  # fmt: skip
    start_worker(database_url)
    submit(client, "weapon", 200)
    client.define_label_set("guarded", ["weapon"], templates=["{}"], exclusive=False,
                            background=["flower"], decide=True)  # fmt: skip
    client.promise("guarded", "weapon", precision=0.95)
    eventually(lambda: the_promise(client).state == "judging")
    for n in range(100):
        draws = client.review("guarded", 20, by="ana", purpose="promise")
        if not draws:
            break
        for place, draw in enumerate(draws):  # one in five is none
            client.judge("guarded", "weapon", draw.key, (place + n) % 5 > 0, by="ana")
    found = the_promise(client)
    assert (found.state, found.threshold, found.lacking) == ("out of reach", None, None)
    assert found.bound is not None
    assert found.bound < 0.95
    assert {one.decision for one in client.decisions("guarded") if one.rests_on != "judgement"} == {
        "review"
    }


def test_a_new_head_has_to_be_judged_itself(armed: Client) -> None:
    armed.promise("guarded", "weapon", precision=0.9)
    eventually(lambda: the_promise(armed).state == "judging")
    judge_all(armed)
    eventually(lambda: len(decided(armed, "yes")) > 80)
    before = the_promise(armed)
    assert before.state == "kept"
    for n in range(20):
        armed.judge("guarded", "weapon", f"flower {n}", False, by="ana")
    for n in range(20):
        armed.judge("guarded", "weapon", f"weapon {n}", True, by="ana")
    judged = {one.key for one in armed.judgements("guarded")}
    armed.teach("guarded")
    lapsed = the_promise(armed)
    assert lapsed.threshold is None
    # What people said stays; what rested on the promise is to be reviewed, also before a worker
    # has gone through the items.
    assert {key for key, said in decided(armed).items() if said != "review"} == judged
    eventually(lambda: the_promise(armed).state != "waiting")
    now = the_promise(armed)
    assert now.head_version is not None
    assert before.head_version is not None
    assert now.head_version > before.head_version
    # What has taught it does not judge it.
    drawn = armed.review("guarded", 200, by="ben", purpose="promise")
    assert drawn or now.state == "out of reach"
    assert not judged & {draw.key for draw in drawn}


def test_people_win_and_their_word_is_about_the_content(armed: Client, sql: Sql) -> None:
    armed.judge("guarded", "weapon", "weapon 3", False, by="ana")
    assert decided(armed, "no") == {"weapon 3": "no"}
    (one,) = armed.decisions("guarded", decision="no")
    assert (one.rests_on, one.share, one.threshold) == ("judgement", None, None)
    # The same content as another item, at once and later.
    armed.submit_text("like weapon 3", key="copy", collection="more").wait(30)
    assert decided(armed, "no") == {"weapon 3": "no", "copy": "no"}
    assert [one.key for one in armed.decisions("guarded", collection="more")] == ["copy"]
    armed.judge("guarded", "weapon", "copy", True, by="ben", collection="more")
    assert decided(armed, "no") == {}  # as many say yes as no
    armed.judge("guarded", "weapon", "copy", True, by="cid", collection="more")
    assert decided(armed, "yes") == {"weapon 3": "yes", "copy": "yes"}
    # Another content has not been judged.
    armed.submit_text("like flower 999", key="weapon 3").wait(30)
    assert decided(armed, "yes") == {"copy": "yes"}
    armed.judge("guarded", "weapon", "copy", None, by="ben", collection="more")
    armed.judge("guarded", "weapon", "copy", None, by="cid", collection="more")
    assert decided(armed, "yes") == {}


def test_changes_are_followed(armed: Client, sql: Sql, database_url: str) -> None:
    listening = psycopg2.connect(database_url)
    listening.autocommit = True
    listening.cursor().execute("LISTEN pgclip_decision")
    for count, (key, value) in enumerate(
        [("weapon 3", False), ("weapon 3", True), ("weapon 4", False), ("weapon 4", None)], 1
    ):
        armed.judge("guarded", "weapon", key, value, by="ana")
        eventually(lambda wanted=count: len(armed.decision_changes()) == wanted)  # type: ignore[misc]
    changes = armed.decision_changes()
    assert [(one.key, one.was, one.now) for one in changes] == [
        ("weapon 3", "review", "no"), ("weapon 3", "no", "yes"),
        ("weapon 4", "review", "no"), ("weapon 4", "no", "review"),
    ]  # fmt: skip
    listening.poll()
    assert {notice.channel for notice in listening.notifies} == {"pgclip_decision"}
    listening.close()
    positions = [one.position for one in changes]
    assert positions == sorted(positions)
    assert armed.decision_changes(positions[2]) == changes[3:]
    assert armed.decision_changes(limit=1) == changes[:1]
    # Of an item that is gone there is nothing to tell; of others there still is.
    armed.delete("weapon 3")
    assert [one.key for one in armed.decision_changes()] == ["weapon 4", "weapon 4"]
    armed.judge("guarded", "weapon", "weapon 5", True, by="ana")
    eventually(lambda: len(armed.decision_changes()) == 3)
    # Of what is decided the last change is kept.
    sql("UPDATE pgclip.decision_change SET changed_at = now() - interval '31 days'")
    eventually(lambda: [one.key for one in armed.decision_changes()] == ["weapon 5"])


def test_recall_says_no(armed: Client) -> None:
    armed.promise("guarded", "weapon", recall=0.6, judgements=60)
    eventually(lambda: the_promise(armed, "recall").state == "judging")
    while the_promise(armed, "recall").state != "kept":
        assert judge_all(armed, rounds=1), the_promise(armed, "recall")
    kept = the_promise(armed, "recall")
    assert kept.threshold is not None
    assert kept.bound is not None
    assert kept.bound >= 0.6
    eventually(lambda: any(one.rests_on == "recall"
                           for one in armed.decisions("guarded", decision="no")))  # fmt: skip
    denied = [one for one in armed.decisions("guarded", decision="no")
              if one.rests_on == "recall"]  # fmt: skip
    # Of 120: those judged may show a second threshold, too, which denies some of what is so.
    assert sum(is_so(one.key) for one in denied) <= 120 * (1 - 0.6)
    is_no = {"$decision": {"guarded": {"weapon": "no"}}}
    eventually(lambda: {hit.key for hit in armed.search("weapon", k=320, filter=is_no)}
                       == set(decided(armed, "no")))  # fmt: skip


def test_two_people_get_different_draws(armed: Client, sql: Sql) -> None:
    armed.promise("guarded", "weapon", precision=0.95)
    eventually(lambda: the_promise(armed).state == "judging")
    anas = {draw.key for draw in armed.review("guarded", 30, by="ana", purpose="promise")}
    bens = {draw.key for draw in armed.review("guarded", 30, by="ben", purpose="promise")}
    assert len(anas) == 30
    assert len(bens) == 29
    assert not anas & bens
    assert armed.review("guarded", 30, by="cid", purpose="promise") == []
    # What nobody has judged within half an hour goes to others.
    sql("UPDATE pgclip.review SET drawn_at = now() - interval '31 min' WHERE judge = 'ana'")
    assert {draw.key for draw in armed.review("guarded", 30, by="cid", purpose="promise")} == anas


def test_more_opinions_than_one(armed: Client) -> None:
    armed.promise("guarded", "weapon", precision=0.9, opinions=3)
    eventually(lambda: the_promise(armed).state == "judging")
    draws = armed.review("guarded", 10, by="ana", purpose="promise")
    for draw in draws:
        armed.judge("guarded", "weapon", draw.key, True, by="ana")
    assert the_promise(armed).judged == 0
    again = {draw.key for draw in armed.review("guarded", 100, by="ben", purpose="promise")}
    assert {draw.key for draw in draws} <= again
    for key in again:
        armed.judge("guarded", "weapon", key, True, by="ben")
    assert the_promise(armed).judged == 10  # two of three agree
    armed.judge("guarded", "weapon", draws[0].key, False, by="ben")
    assert the_promise(armed).judged == 9
    third = armed.review("guarded", 100, by="cid", purpose="promise")
    assert draws[0].key in {draw.key for draw in third}
    assert not {draw.key for draw in draws[1:]} & {draw.key for draw in third}


def test_who_is_unsure_counts_against_it_and_is_not_asked_again(armed: Client) -> None:
    armed.promise("guarded", "weapon", precision=0.95)
    eventually(lambda: the_promise(armed).state == "judging")
    draw, *rest = armed.review("guarded", 59, by="ana", purpose="promise")
    armed.leave_unsure("guarded", "weapon", draw.key, by="ana")
    for each in rest:
        armed.judge("guarded", "weapon", each.key, True, by="ana")
    found = the_promise(armed)
    assert found.threshold is None
    again = armed.review("guarded", 300, by="ana", purpose="promise")
    assert draw.key not in {each.key for each in again}
    with pytest.raises(NotFound, match="no item nothing"):
        armed.leave_unsure("guarded", "weapon", "nothing")


def test_what_labels_learn_from(client: Client, database_url: str, start_worker: WorkerFactory,
                                sql: Sql) -> None:  # fmt: skip
    start_worker(database_url)
    submit(client, "weapon", 30)
    submit(client, "flower", 30)
    client.define_label_set("guarded", ["weapon"], templates=["{}"], exclusive=False,
                            background=["flower"], threshold=0.99999)  # fmt: skip
    # No item has the label: any may be asked of.
    eventually(lambda: sql("SELECT 1 FROM pgclip.relabeling") == [])
    drawn = client.review("guarded", 10, by="ana")
    assert len(drawn) == 10
    assert {draw.purpose for draw in drawn} == {"learn"}
    client.promise("guarded", "weapon", precision=0.9)
    eventually(lambda: the_promise(client).state in ("judging", "out of reach"))
    both = client.review("guarded", 20, by="ben")
    assert {draw.purpose for draw in both} == {"precision", "learn"}
    assert sum(draw.purpose == "precision" for draw in both) == 15
    assert len({draw.key for draw in both}) == 20
    assert {draw.purpose for draw in client.review("guarded", 5, purpose="learn")} == {"learn"}


def test_a_promise_is_taken_back(armed: Client, sql: Sql) -> None:
    armed.promise("guarded", "weapon", precision=0.9)
    eventually(lambda: the_promise(armed).state == "judging")
    judge_all(armed)
    judged = sum(one.value for one in armed.judgements("guarded"))
    eventually(lambda: len(decided(armed, "yes")) > judged)
    armed.withdraw_promise("guarded", "weapon")
    assert armed.promises() == []
    assert len(decided(armed, "yes")) == judged
    assert sql("SELECT count(*) FROM pgclip.item_score") == [(0,)]
    eventually(lambda: sql("SELECT count(*) FROM pgclip.decision_change"
                           " WHERE is_last AND now") == [(judged,)])  # fmt: skip
    with pytest.raises(NotFound, match="nothing is promised"):
        armed.withdraw_promise("guarded", "weapon")


def test_labels_say_what_is_decided(armed: Client, sql: Sql) -> None:
    eventually(lambda: sql("SELECT 1 FROM pgclip.relabeling") == [])
    (label,) = [one for one in armed.get("weapon 1").labels if one.set == "guarded"]
    assert label.decision == "review"
    armed.judge("guarded", "weapon", "weapon 1", True, by="ana")
    (label,) = [one for one in armed.get("weapon 1").labels if one.set == "guarded"]
    assert label.decision == "yes"
    assert sql("SELECT decision FROM pgclip.labels WHERE set = 'guarded' AND key = 'weapon 1'") == [
        ("yes",)
    ]
    armed.define_label_set("free", ["weapon", "flower"], templates=["{}"])
    eventually(lambda: any(one.set == "free" for one in armed.get("weapon 1").labels))
    assert {one.decision for one in armed.get("weapon 1").labels if one.set == "free"} == {None}


def test_filters_take_decisions(armed: Client) -> None:
    armed.judge("guarded", "weapon", "weapon 1", True, by="ana")
    armed.judge("guarded", "weapon", "weapon 2", False, by="ana")

    def found(wanted: Any) -> set[str]:
        return {hit.key for hit in armed.search("weapon", k=400, filter={"$decision": wanted})}

    assert found({"guarded": {"weapon": "yes"}}) == {"weapon 1"}
    assert found({"guarded": {"weapon": ["yes", "no"]}}) == {"weapon 1", "weapon 2"}
    rest = found({"guarded": {"weapon": "review"}})
    assert len(rest) == 318
    assert not rest & {"weapon 1", "weapon 2"}
    assert len(found({"guarded": {"weapon": ["review", "no"]}})) == 319
    for wanted, why in (
        ({"weapon": "maybe"}, '"yes", "no" or "review"'),
        ({"weapon": "no"}, "more than one label weapon"), ({"tulip": "no"}, "no label tulip"),
        ({}, "takes"), ("weapon", "takes"), ({"guarded": {}}, "names a set and no label"),
        ({"weapon": 3}, "list"), ({"general": {"animal": "no"}}, "no label animal of set general"),
    ):  # fmt: skip
        with pytest.raises((InvalidItem, NotFound), match=why):
            found(wanted)


def test_what_is_refused(armed: Client) -> None:
    for call, error, why in (
        (lambda: armed.promise("guarded", "weapon", precision=1.0), InvalidItem, "from 0.5"),
        (lambda: armed.promise("guarded", "weapon", precision=0.95, confidence=2), InvalidItem,
         "from 0.5"),
        (lambda: armed.promise("guarded", "weapon", precision=0.95, judgements=20), InvalidItem,
         "from 59 to 5000"),
        (lambda: armed.promise("guarded", "weapon", precision=0.95, opinions=0), InvalidItem,
         "opinions are 1 to 9"),
        (lambda: armed.promise("guarded", "sword", precision=0.95), NotFound, "no label sword"),
        (lambda: armed.promise("none", "weapon", precision=0.95), NotFound, "no label weapon"),
        (lambda: armed.review("none"), NotFound, "no label set none"),
        (lambda: armed.review("guarded", 0), InvalidItem, "n is from 1"),
        (lambda: armed.review("guarded", purpose="fun"), InvalidItem, "purpose"),  # type: ignore[arg-type]
        (lambda: list(armed.decisions("none")), NotFound, "no label set none"),
        (lambda: list(armed.decisions("guarded", decision="maybe")), InvalidItem, "maybe"),  # type: ignore[arg-type]
    ):  # fmt: skip
        with pytest.raises(error, match=why):
            call()
    armed.relabel("guarded", stop=True)
    with pytest.raises(InvalidItem, match="does not label items that are there"):
        armed.promise("guarded", "weapon", precision=0.95)


def test_a_client_reviews_and_the_owner_promises(
    ordinary: Roles, services: LocalServices, start_worker: WorkerFactory
) -> None:
    start_worker(ordinary.of("worker"))
    with (
        Client(database_url=ordinary.of("owner"), redis_url=services.redis_url) as owner,
        Client(database_url=ordinary.of("client"), redis_url=services.redis_url) as clerk,
    ):
        submit(clerk, "weapon", 60)
        owner.define_label_set("guarded", ["weapon"], templates=["{}"], exclusive=False,
                               background=["flower"], decide=True)  # fmt: skip
        with pytest.raises(PgclipError, match="permission denied"):
            clerk.promise("guarded", "weapon", precision=0.9)
        owner.promise("guarded", "weapon", precision=0.9)
        eventually(lambda: clerk.promises("guarded")[0].state == "judging")
        assert judge_all(clerk) >= 29
        assert the_promise(clerk).state == "kept"
        eventually(lambda: len(decided(clerk, "yes")) > 35)
        eventually(lambda: len(clerk.decision_changes()) > 35)
        assert clerk.search("weapon", k=3, filter={"$decision": {"guarded": {"weapon": "yes"}}})


def test_groups_are_compared(
    client: Client, database_url: str, start_worker: WorkerFactory
) -> None:
    start_worker(database_url)
    submit(client, "weapon", 20, camera={"name": "old"}, true="weapon")
    submit(client, "flower", 20, camera={"name": "new"}, true="flower")
    submit(client, "weapon", 10, first=100, true="weapon")
    client.define_label_set("guarded", ["weapon", "flower"], templates=["{}"])
    found = client.evaluate("guarded", truth="true", groups="camera.name")
    assert {one["group"]: one["examples"] for one in found["groups"]} == {"old": 20, "new": 20}
    assert all(0 <= one["accuracy"]["share"] <= 1 for one in found["groups"])
    assert client.evaluate("guarded", truth="true")["groups"] == []
    with pytest.raises(InvalidItem, match="is not a path"):
        client.evaluate("guarded", truth="true", groups="camera..name")


def test_a_model_is_changed(
    armed: Client, sql: Sql, database_url: str, start_worker: WorkerFactory
) -> None:
    armed.promise("guarded", "weapon", precision=0.9)
    eventually(lambda: the_promise(armed).state == "judging")
    judge_all(armed, rounds=2)
    eventually(lambda: the_promise(armed).state == "kept")
    eventually(lambda: len(decided(armed, "yes")) > len(armed.judgements("guarded")))
    sql("SELECT pgclip.add_model('second')")
    start_worker(database_url, PGCLIP_MODEL_NAME="second", PLANTED_WEIGHTS="other")
    eventually(lambda: sql("SELECT count(*) FROM pgclip.item_score WHERE model_id = 2")
               == [(320,)], 60)  # fmt: skip
    sql("SELECT pgclip.promote_model('second')")
    # At once: what people said stays, and nothing else is decided.
    judged = {one.key: "yes" if one.value else "no" for one in armed.judgements("guarded")}
    assert {key: said for key, said in decided(armed).items() if said != "review"} == judged
    assert the_promise(armed).model == "second"
    eventually(lambda: the_promise(armed).state in ("judging", "kept"))
    sql("SELECT pgclip.drop_model('planted')")
    eventually(lambda: sql("SELECT name FROM pgclip.model") == [("second",)], 60)
    assert sql("SELECT DISTINCT m.name FROM pgclip.campaign k JOIN pgclip.model m"
               " ON m.id = k.model_id") == [("second",)]  # fmt: skip
    assert sql("SELECT DISTINCT model_id FROM pgclip.item_score") == [(2,)]
    assert {key: said for key, said in decided(armed).items() if said != "review"}.items() >= (
        judged.items()
    )
