"""Claims, leases, stores and blame, one step after the other."""

import json
import threading

import psycopg2
import pytest
from support.databases import assert_ledger_is_true
from support.hand import Hand, NewHand, Sql, keys, states, submit

pytestmark = pytest.mark.usefixtures("model")


def test_claims_in_order_and_never_twice(sql: Sql, hand: NewHand) -> None:
    submit(sql, "bulk 1", "bulk 2", priority=1)
    submit(sql, "now 1", "now 2")
    first, second = hand(), hand()
    assert keys(first.claim(3)[1]) == ["now 1", "now 2", "bulk 1"]
    assert keys(second.claim(3)[1]) == ["bulk 2"]
    assert keys(second.claim(3)[1]) == []


def test_bulk_work_that_waits_long_enough_comes_first(sql: Sql, hand: NewHand) -> None:
    submit(sql, "bulk", priority=1)
    sql("UPDATE pgclip.job SET rank = rank - interval '31 s'")
    submit(sql, "now")
    assert keys(hand().claim(1)[1]) == ["bulk"]


def test_concurrent_claims_share_nothing(sql: Sql, hand: NewHand) -> None:
    submit(sql, *(f"t{n}" for n in range(200)))
    claimed: list[str] = []

    def work(worker: Hand) -> None:
        while jobs := worker.claim(7)[1]:
            claimed.extend(keys(jobs))

    threads = [threading.Thread(target=work, args=(hand(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == sorted(f"t{n}" for n in range(200))


def test_a_claim_is_bounded_in_bytes(sql: Sql, hand: NewHand) -> None:
    submit(sql, "x" * 100, "y" * 100, "z" * 100)
    worker = hand()
    assert len(worker.claim(64, max_bytes=512 * 250)[1]) == 2
    assert len(worker.claim(64, max_bytes=1)[1]) == 1  # one alone is always allowed


def test_several_texts_may_come_in_place_of_a_picture(hand: NewHand, sql: Sql) -> None:
    for n in range(3):
        sql("SELECT pgclip.submit_image(key => %s, source => 'file:///x')", f"picture {n}")
    for n in range(20):
        sql("SELECT pgclip.submit_text(key => %s, body => %s)", f"text {n}", f"text {n}")
    worker = hand()
    assert len(worker.claim(4, texts=4)[1]) == 3 + 4
    assert len(worker.claim(2, texts=4)[1]) == 8
    assert len(worker.claim(2, texts=4)[1]) == 8
    assert worker.claim(2, texts=4)[1] == []


def test_the_same_content_is_leased_once(sql: Sql, hand: NewHand) -> None:
    for key in ("a", "b"):
        sql("SELECT pgclip.submit_text('same', key => %s)", key)
    submit(sql, "other")
    first, second = hand(), hand()
    lease, jobs = first.claim(1)
    assert keys(jobs) == ["a"]
    assert keys(second.claim()[1]) == ["other"]
    first.store(lease, jobs)
    assert keys(second.claim()[1]) == ["b"]
    known = "SELECT embedding FROM pgclip.known_embeddings(1::smallint, 'text', ARRAY[%s::bytea])"
    assert sql(known, jobs[0][5]) == [([1.0, 0.0],)]


def test_a_store_is_the_ledgers_only_truth(sql: Sql, hand: NewHand, database_url: str) -> None:
    submit(sql, "a", "b")
    worker = hand()
    lease, jobs = worker.claim()
    assert len(worker.store(lease, jobs)) == 2
    assert states(sql) == {"a": "done", "b": "done"}
    assert worker.store(lease, jobs) == []  # again: settled already
    sql("SELECT pgclip.submit_text('new', key => 'a')")
    lease, jobs = worker.claim()
    worker.store(lease, jobs, "[0,1]")
    assert sql("SELECT embedding::text FROM pgclip.embedding_1_1 ORDER BY id") == [
        ("[1,0]",),
        ("[0,1]",),
    ]
    assert_ledger_is_true(database_url)


def test_a_vector_that_is_not_of_unit_norm_is_refused(sql: Sql, hand: NewHand) -> None:
    submit(sql, "a")
    worker = hand()
    lease, jobs = worker.claim()
    with pytest.raises(psycopg2.errors.CheckViolation):
        worker.store(lease, jobs, "[1,1]")
    assert states(sql) == {"a": "leased"}


def test_a_swept_worker_is_fenced(sql: Sql, hand: NewHand, database_url: str) -> None:
    submit(sql, "a", "b")
    frozen, other = hand(), hand()
    lease, jobs = frozen.claim()
    frozen.die()
    assert sql("SELECT pgclip.sweep(6)") == [(2,)]
    assert not frozen.heartbeat(lease)
    new_lease, new_jobs = other.claim(1)
    assert frozen.store(lease, jobs, "[0,1]") == []
    other.store(new_lease, new_jobs)
    other.store(*other.claim(1))
    assert sql("SELECT DISTINCT embedding::text FROM pgclip.embedding_1_1") == [("[1,0]",)]
    assert_ledger_is_true(database_url)


def test_a_replaced_item_fences_the_older_content(sql: Sql, hand: NewHand) -> None:
    submit(sql, "a")
    worker = hand()
    lease, jobs = worker.claim()
    sql("SELECT pgclip.submit_text('newer', key => 'a')")
    assert worker.store(lease, jobs) == []
    assert states(sql) == {"a": "queued"}
    assert len(worker.claim()[1]) == 1


def test_an_item_deleted_while_leased(sql: Sql, hand: NewHand, database_url: str) -> None:
    submit(sql, "a", "b")
    worker = hand()
    lease, jobs = worker.claim()
    sql("SELECT pgclip.delete('a')")
    assert len(worker.store(lease, jobs)) == 1
    assert states(sql) == {"b": "done"}
    assert_ledger_is_true(database_url)


def test_a_heartbeat_takes_back_what_the_worker_does_not_know(sql: Sql, hand: NewHand) -> None:
    submit(sql, "a", "b")
    worker = hand()
    known, _ = worker.claim(1)
    worker.claim(1)  # its answer was lost
    assert worker.heartbeat(known)
    assert states(sql) == {"a": "leased", "b": "queued"}


def test_handing_back_and_signing_off_blame_nobody(sql: Sql, hand: NewHand) -> None:
    submit(sql, "a", "b")
    worker = hand()
    lease, _ = worker.claim(1)
    worker.sql("SELECT pgclip.release(%s, %s::uuid[])", worker.id, [lease])
    worker.claim()
    worker.sql("SELECT pgclip.sign_off(%s)", worker.id)
    assert sql("SELECT DISTINCT group_limit, strikes, lease, worker_id FROM pgclip.job") == [
        (None, 0, None, None)
    ]


def test_crashes_isolate_and_only_the_lonely_one_is_blamed(sql: Sql, hand: NewHand) -> None:
    submit(sql, *(f"t{n:02}" for n in range(20)))

    def crash(expected: int) -> list[str]:
        worker = hand()
        jobs = worker.claim()[1]
        assert len(jobs) == expected
        worker.die()
        sql("SELECT pgclip.sweep(2)")
        return keys(jobs)

    crash(20)
    assert sql("SELECT DISTINCT group_limit, strikes FROM pgclip.job") == [(8, 0)]
    suspects = crash(8)
    (first,) = crash(1)
    assert first == suspects[0]
    assert sql("SELECT strikes FROM pgclip.job j JOIN pgclip.item i ON i.id = item_id"
               " WHERE key = %s", first) == [(1,)]  # fmt: skip
    assert crash(1) == [first]
    assert sql("SELECT key, state, reason FROM pgclip.items WHERE state <> 'queued'") == [
        (first, "failed", "worker_died")
    ]
    assert sql("SELECT sum(strikes) FROM pgclip.job") == [(0,)]


def test_suspects_run_alone_in_the_process(sql: Sql, hand: NewHand) -> None:
    submit(sql, "a", "b", "c")
    dead = hand()
    dead.claim(2)
    dead.die()
    sql("SELECT pgclip.sweep(6)")
    sql("UPDATE pgclip.job SET rank = now() - interval '1 h' WHERE group_limit IS NULL")
    worker = hand()
    lease, jobs = worker.claim()
    assert keys(jobs) == ["c"]
    assert worker.claim()[1] == []  # suspects wait until it holds nothing
    worker.store(lease, jobs)
    assert keys(worker.claim()[1]) == ["a"]
    submit(sql, "d")
    assert worker.claim()[1] == []  # and nothing runs beside them
    assert keys(hand().claim()[1]) == ["b"]


def test_changed_label_sets_refuse_a_store(sql: Sql, hand: NewHand) -> None:
    submit(sql, "a")
    worker = hand()
    lease, jobs = worker.claim()
    epoch = sql("SELECT epoch FROM pgclip.label_epoch")[0][0]
    sql("SELECT pgclip.define_label_set('mine', ARRAY['x', 'y'])")
    with pytest.raises(psycopg2.Error, match="label sets have changed") as caught:
        worker.store(lease, jobs, epoch=epoch)
    assert caught.value.pgcode == "PC007"
    assert len(worker.store(lease, jobs)) == 1


def test_a_failed_replacement_leaves_the_vectors_and_can_be_tried_again(
    sql: Sql, hand: NewHand
) -> None:
    submit(sql, "a")
    worker = hand()
    worker.store(*worker.claim())
    sql("SELECT pgclip.submit_text('broken', key => 'a')")
    lease, jobs = worker.claim()
    failed = json.dumps([{"job_id": jobs[0][0], "reason": "r", "message": "m"}])
    epoch = sql("SELECT epoch FROM pgclip.label_epoch")[0][0]
    worker.sql("SELECT pgclip.store(%s, %s, '{}', '{}', %s)", lease, epoch, failed)
    assert sql("SELECT state, reason, error FROM pgclip.items") == [("failed", "r", "m")]
    assert sql("SELECT count(*) FROM pgclip.embedding_1_1") == [(1,)]
    sql("SELECT pgclip.submit_text('broken', key => 'a')")
    assert states(sql) == {"a": "queued"}
    worker.store(*worker.claim())
    assert sql("SELECT state, reason FROM pgclip.items") == [("done", None)]


def test_a_restart_of_postgres_gives_workers_their_time_again(sql: Sql, hand: NewHand) -> None:
    submit(sql, "a")
    worker = hand()
    worker.claim()
    sql("UPDATE pgclip.worker SET heartbeat_at = now() - interval '1 day', expires_at = now()")
    assert sql("SELECT pgclip.sweep(6)") == [(0,)]  # this server has not been up for a day
    assert states(sql) == {"a": "leased"}


def test_a_poison_under_many_keys_fails_under_all_of_them(sql: Sql, hand: NewHand) -> None:
    for key in ("a", "b", "c"):
        sql("SELECT pgclip.submit_text('poison', key => %s)", key)
    submit(sql, "healthy")
    for _ in range(2):
        worker = hand()
        worker.claim(1)
        worker.die()
        sql("SELECT pgclip.sweep(2)")
    assert states(sql) == {"a": "failed", "b": "failed", "c": "failed", "healthy": "queued"}
