"""Promises and decisions where other things happen meanwhile, and where people do what they do."""

import threading
from collections.abc import Callable
from typing import Any

import psycopg2
import pytest
from support.processes import WorkerFactory, eventually
from support.promised import decided, is_so, judge_all, submit, the_promise

from pgclip import Client

Sql = Callable[..., list[Any]]


def asked(client: Client, **how: Any) -> None:
    client.promise("guarded", "weapon", **({"precision": 0.95} | how))
    eventually(lambda: the_promise(client).state != "waiting")


def test_who_deletes_what_is_wrong_does_not_keep_a_promise_by_that(armed: Client) -> None:
    asked(armed)
    for _ in range(10):
        draws = armed.review("guarded", 20, by="ana", purpose="promise")
        for place, draw in enumerate(draws):
            if place % 5:
                armed.judge("guarded", "weapon", draw.key, True, by="ana")
            else:  # one in five is none, and goes
                armed.delete(draw.key)
        if not draws:
            break
    found = the_promise(armed)
    assert found.threshold is None
    assert found.judged is not None
    assert found.right is not None
    assert found.right < found.judged


def test_what_goes_before_anybody_has_seen_it_makes_place_for_others(
    armed: Client, sql: Sql
) -> None:
    asked(armed, precision=0.9)
    (seen,) = armed.review("guarded", 1, by="ana", purpose="promise")
    drawn = sql("SELECT key FROM pgclip.campaign_draw d JOIN pgclip.item i ON i.id = d.item_id"
                " WHERE NOT shown LIMIT 5")  # fmt: skip
    armed.delete_items(keys=[key for (key,) in drawn])
    judge_all(armed, rounds=3)
    assert not {key for (key,) in drawn} & {one.key for one in armed.judgements("guarded")}
    assert seen.key in {one.key for one in armed.judgements("guarded")}
    assert the_promise(armed).state == "kept"


def test_a_draw_is_shown_by_an_item_that_has_the_content_now(armed: Client, sql: Sql) -> None:
    asked(armed, precision=0.9)
    (key,) = sql("SELECT key FROM pgclip.campaign_draw d JOIN pgclip.item i ON i.id = d.item_id"
                 " LIMIT 1")[0]  # fmt: skip
    armed.submit_text(f"like {key}", key="copy").wait(30)
    armed.submit_text("like flower 1000", key=key).wait(30)
    shown = {draw.key for draw in armed.review("guarded", 59, by="ana", purpose="promise")}
    assert "copy" in shown
    assert key not in shown


def test_too_few_items_wait_for_more(client: Client, database_url: str, start_worker: WorkerFactory,
                                     sql: Sql) -> None:  # fmt: skip
    client.define_label_set("guarded", ["weapon"], templates=["{}"], exclusive=False,
                            background=["flower"], decide=True)  # fmt: skip
    client.promise("guarded", "weapon", precision=0.95)  # before there is a model
    start_worker(database_url)
    submit(client, "weapon", 20)
    eventually(lambda: sql("SELECT count(*) FROM pgclip.item_score") == [(20,)])
    assert the_promise(client).state == "waiting"
    assert client.review("guarded", purpose="promise") == []
    submit(client, "weapon", 60, first=100)
    eventually(lambda: the_promise(client).state == "judging")
    assert the_promise(client).contents == 80
    # Where nobody has judged yet it begins anew with twice as much.
    submit(client, "weapon", 100, first=1000)
    assert the_promise(client).contents == 80
    client.review("guarded", purpose="promise")
    assert the_promise(client).contents == 180


def test_what_was_judged_before_counts_where_it_is_drawn(armed: Client) -> None:
    for n in range(0, 120, 2):
        armed.judge("guarded", "weapon", f"weapon {n}", True, by="ana")
    asked(armed)
    before = the_promise(armed).judged
    assert before is not None
    assert 10 < before < 50
    judge_all(armed, by="ben")
    assert the_promise(armed).threshold is not None
    # Another share is put to the test anew, and what people have said stays.
    asked(armed, precision=0.9)
    assert (the_promise(armed).judged or 0) > 0
    judge_all(armed, by="cid")
    assert (the_promise(armed).share, the_promise(armed).state) == (0.9, "kept")


@pytest.mark.parametrize("opinions", [2, 4])
def test_an_even_number_of_opinions(armed: Client, opinions: int) -> None:
    asked(armed, precision=0.9, opinions=opinions)
    for person in range(opinions):
        judge_all(armed, rounds=6, by=f"person {person}")
    assert the_promise(armed).state == "kept"


def test_who_leaves_goes_on_later(armed: Client) -> None:
    asked(armed)
    first = {draw.key for draw in armed.review("guarded", 59, by="ana", purpose="promise")}
    assert armed.review("guarded", 59, by="ben", purpose="promise") == []
    again = {draw.key for draw in armed.review("guarded", 59, by="ana", purpose="promise")}
    assert again == first


def test_a_worker_of_a_version_before_leaves_scores_to_others(
    armed: Client, sql: Sql, database_url: str
) -> None:
    asked(armed, precision=0.9)
    (model,) = sql("SELECT pgclip._live_model()")[0]
    with psycopg2.connect(database_url) as before, before.cursor() as cursor:
        cursor.execute("UPDATE pgclip.label_set SET version = version + 1 WHERE name = 'guarded'")
        cursor.execute("SELECT pgclip._begin_relabeling()")
        cursor.execute("SELECT * FROM pgclip.labels_due(%s::smallint, 10)", (model,))
        assert cursor.fetchall() == []
        before.rollback()
        # It stores an item: as one whose labels are still due.
        cursor.execute("SELECT pgclip.submit_text('like weapon old', key => 'old')")
        cursor.execute("SELECT pgclip.sign_on(%s::smallint, 'h', 1, '', '', 1, 60)", (model,))
        cursor.execute("SELECT * FROM pgclip.claim(%s, gen_random_uuid(), 10, 1000000)",
                       cursor.fetchone())  # fmt: skip
        job = cursor.fetchone()
        assert job is not None
        cursor.execute("SELECT lease FROM pgclip.job WHERE id = %s", (job[0],))
        (lease,) = cursor.fetchone() or ("",)
        cursor.execute("SELECT pgclip.open_results()")
        cursor.execute("INSERT INTO pg_temp.staged_vector"
                       " SELECT %s, array_fill(0.25, ARRAY[16])::halfvec", (job[0],))  # fmt: skip
        cursor.execute("SELECT pgclip.store(%s::uuid, (SELECT epoch FROM pgclip.label_epoch),"
                       " ARRAY[%s]::bigint[], ARRAY[%s]::bytea[], '[]')",
                       (lease, job[0], job[5]))  # fmt: skip
    sql("SELECT pgclip._begin_relabeling()")
    eventually(lambda: sql("SELECT count(*) FROM pgclip.item_score s JOIN pgclip.item i"
                           " ON i.id = s.item_id WHERE key = 'old'") == [(1,)])  # fmt: skip


def test_taken_back_and_asked_again_all_items_get_scores(armed: Client, sql: Sql) -> None:
    asked(armed)
    armed.withdraw_promise("guarded", "weapon")
    sql("""INSERT INTO pgclip.item_score SELECT i.id, 1, l.id, 1, i.id, 0.5
           FROM pgclip.item i, pgclip.label l JOIN pgclip.label_set s ON s.id = l.set_id
           WHERE s.name = 'guarded' AND NOT l.is_background LIMIT 100""")  # a store was open
    asked(armed)
    assert the_promise(armed).contents == 320


def test_a_judgement_beside_labelling_anew_wins(armed: Client, sql: Sql, database_url: str) -> None:
    asked(armed, precision=0.9)
    judge_all(armed, rounds=3)
    key = next(one.key for one in armed.decisions("guarded", decision="yes")
               if one.rests_on == "precision")  # fmt: skip
    with psycopg2.connect(database_url) as open_, open_.cursor() as cursor:
        cursor.execute("SELECT pgclip.judge('guarded', 'weapon', %s, false, 'ben')", (key,))
        armed.define_label_set("guarded", ["weapon"], templates=["{}"], exclusive=False, top_k=2,
                               background=["flower"], threshold=0.5, decide=True)  # fmt: skip
        eventually(lambda: sql("SELECT 1 FROM pgclip.relabeling") == [])
    assert decided(armed, "no").get(key) == "no"
    eventually(lambda: any((one.key, one.now) == (key, "no") for one in armed.decision_changes()))


def test_a_copy_that_is_stored_while_its_content_is_judged_is_told(
    armed: Client, sql: Sql, database_url: str
) -> None:
    with psycopg2.connect(database_url) as open_, open_.cursor() as cursor:
        cursor.execute("SELECT pg_current_xact_id()")  # begun before the judgement
        armed.judge("guarded", "weapon", "weapon 1", False, by="ana")
        eventually(lambda: len(armed.decision_changes()) == 1)
        (hash_,) = sql("SELECT content_hash FROM pgclip.judgement")[0]
        cursor.execute(
            """INSERT INTO pgclip.item (collection_id, key, kind, content_hash)
               SELECT collection_id, 'copy', kind, content_hash FROM pgclip.item
               WHERE key = 'weapon 1' RETURNING id""")  # fmt: skip
        (copy,) = cursor.fetchone() or (0,)
        cursor.execute(
            """INSERT INTO pgclip.embedding_set
               SELECT %s, model_id, i.generation, e.kind, %s, '{99999}' FROM pgclip.embedding_set e
               JOIN pgclip.item i ON i.id = %s LIMIT 1""", (copy, hash_, copy))  # fmt: skip
    eventually(lambda: {one.key for one in armed.decision_changes()} == {"weapon 1", "copy"})


def test_people_who_judge_the_same_in_another_order_wait_for_nobody(
    armed: Client, database_url: str
) -> None:
    asked(armed)
    keys = [draw.key for draw in armed.review("guarded", 40, by="ana", purpose="promise")]
    errors: list[BaseException] = []
    together = threading.Barrier(2)

    def judge(by: str, order: list[str]) -> None:
        try:
            with psycopg2.connect(database_url) as connection, connection.cursor() as cursor:
                for place, key in enumerate(order):
                    cursor.execute("SELECT pgclip.judge('guarded', 'weapon', %s, %s, %s)",
                                   (key, by == "ana", by))  # fmt: skip
                    if place == len(order) // 2:
                        together.wait(20)
        except BaseException as error:
            errors.append(error)

    people = [threading.Thread(target=judge, args=("ana", keys)),
              threading.Thread(target=judge, args=("ben", keys[::-1]))]  # fmt: skip
    for person in people:
        person.start()
    for person in people:
        person.join(60)
    assert errors == []
    # One says yes, one no: nothing is decided, whoever came last.
    assert not set(keys) & {key for key, said in decided(armed).items() if said != "review"}
    eventually(lambda: (the_promise(armed).judged or 0) >= 40)


def test_a_replacement_that_fails_is_to_be_reviewed(armed: Client) -> None:
    armed.judge("guarded", "weapon", "weapon 1", True, by="ana")
    eventually(lambda: len(armed.decision_changes()) == 1)
    armed.submit_image(b"no picture", key="weapon 1")
    eventually(lambda: armed.get("weapon 1").state == "failed")
    (one,) = [one for one in armed.decisions("moderation") if one.label == "weapon"]
    assert (one.key, one.decision) == ("weapon 1", "review")
    assert decided(armed, "yes") == {}
    eventually(lambda: [change.now for change in armed.decision_changes()] == ["yes", "review"])


def test_of_labels_that_exclude_each_other_yes_to_one_is_no_to_others(armed: Client) -> None:
    armed.define_label_set("kinds", ["weapon", "flower", "tool"], templates=["{}"], decide=True)

    def known() -> dict[str, str]:
        every = armed.decisions("kinds")
        return {one.label: one.decision for one in every if one.key == "flower 1"}

    armed.judge("kinds", "flower", "flower 1", True, by="ana")
    assert known() == {"flower": "yes", "weapon": "no", "tool": "no"}
    armed.judge("kinds", "tool", "flower 1", True, by="ana")
    assert known() == {"flower": "yes", "weapon": "no", "tool": "yes"}


def test_all_pages_of_decisions_are_read(armed: Client, sql: Sql) -> None:
    armed.judge_many(
        {"set": "guarded", "label": "weapon", "key": f"{word} {n}", "value": word == "weapon"}
        for word, count in (("weapon", 120), ("flower", 200)) for n in range(count)
    )  # fmt: skip
    assert len(decided(armed, "yes")) == 120
    paged = sql("SELECT key FROM pgclip.decisions('guarded', decision => 'no', \"limit\" => 150)")
    assert len(paged) == 150
    last = sql("SELECT max(item_id) FROM pgclip.decisions('guarded', decision => 'no',"
               " \"limit\" => 150)")[0][0]  # fmt: skip
    rest = sql("SELECT key FROM pgclip.decisions('guarded', decision => 'no', after => %s,"
               " after_label => 'weapon', \"limit\" => 2147483647)", last)  # fmt: skip
    assert len(rest) == 50
    assert sql("SELECT count(*) FROM pgclip.decisions('guarded', after => NULL)") == [(320,)]


def test_many_judgements_at_once_advance_a_promise(armed: Client) -> None:
    asked(armed, precision=0.9)
    draws = armed.review("guarded", 29, by="ana", purpose="promise")
    refused = armed.judge_many(
        [{"set": "guarded", "label": draw.label, "key": draw.key, "value": is_so(draw.key),
          "judge": "ana"} for draw in draws] + [{"set": "guarded"}]
    )  # fmt: skip
    assert [place for place, _ in refused] == [30]
    assert (the_promise(armed).state, the_promise(armed).judged) == ("kept", 29)
