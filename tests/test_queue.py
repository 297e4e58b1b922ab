"""The queue's state machine, in SQL: claim, heartbeat, sweep, store, and the races between them."""

import json
import threading
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import psycopg2
import pytest
from conftest import assert_ledger_is_true

Sql = Callable[..., list[Any]]
NewHand = Callable[..., "Hand"]


class Hand:
    """Does by hand what a worker does, on a connection of its own."""

    def __init__(self, url: str, lease_seconds: float = 60) -> None:
        self.connection = psycopg2.connect(url)
        self.connection.autocommit = True
        (self.id,) = self.sql(
            "SELECT pgclip.sign_on(1::smallint, 'h', 1, 'cpu', 'float32', 64, %s)", lease_seconds
        )[0]
        self.sql("SELECT pgclip.open_results()")

    def sql(self, statement: str, *arguments: Any) -> list[Any]:
        with self.connection.cursor() as cursor:
            cursor.execute(statement, arguments or None)
            return cursor.fetchall() if cursor.description else []

    def claim(
        self, limit: int = 64, max_bytes: int = 10**9, texts: int = 1
    ) -> tuple[str, list[Any]]:
        lease = str(uuid4())
        arguments = (self.id, lease, limit, max_bytes, texts)
        return lease, self.sql("SELECT * FROM pgclip.claim(%s, %s, %s, %s, %s)", *arguments)

    def store(
        self, lease: str, jobs: list[Any], vector: str = "[1,0]", epoch: int = 0
    ) -> list[int]:
        """Stores one vector for each job; returns the jobs that were settled."""
        ids = [job[0] for job in jobs]
        hashes = [bytes(job[5] or b"\1" * 32) for job in jobs]
        epoch = epoch or self.sql("SELECT epoch FROM pgclip.label_epoch")[0][0]
        self.connection.autocommit = False
        try:
            self.sql("INSERT INTO pg_temp.staged_vector SELECT unnest(%s), %s", ids, vector)
            (settled,) = self.sql(
                "SELECT pgclip.store(%s, %s, %s, %s, '[]')", lease, epoch, ids, hashes
            )[0]
            self.connection.commit()
        finally:
            self.connection.rollback()
            self.connection.autocommit = True
        return list(settled)

    def heartbeat(self, *held: str) -> bool:
        """Beats as a worker does that holds these leases."""
        (leases,) = self.sql("SELECT pgclip.heartbeat(%s, 60)::text[]", self.id)[0]
        if leases is None:
            return False
        unknown = list(set(leases) - set(held))
        self.sql("SELECT pgclip.release(%s, %s::uuid[])", self.id, unknown)
        return True

    def die(self) -> None:
        self.sql(
            "UPDATE pgclip.worker SET expires_at = now() - interval '1 s' WHERE id = %s", self.id
        )


@pytest.fixture(autouse=True)
def model(sql: Sql) -> None:
    sql("SELECT pgclip.register_model('m', 2, 10, '{\"fatal\": {}}')")


@pytest.fixture
def hand(database_url: str) -> NewHand:
    return lambda **options: Hand(database_url, **options)


def submit(sql: Sql, *texts: str, priority: int = 0) -> None:
    for text in texts:
        sql("SELECT pgclip.submit_text(%s, key => %s, priority => %s)", text, text, priority)


def keys(jobs: list[Any]) -> list[str]:
    return [job[3] for job in jobs]


def states(sql: Sql) -> dict[str, str]:
    return dict(sql("SELECT key, state FROM pgclip.items"))


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


def test_a_delete_waits_for_a_store_under_way(sql: Sql, hand: NewHand, database_url: str) -> None:
    submit(sql, "a", "b")
    worker = hand()
    lease, jobs = worker.claim()
    worker.connection.autocommit = False
    epoch = worker.sql("SELECT epoch FROM pgclip.label_epoch")[0][0]
    ids, hashes = [job[0] for job in jobs], [bytes(job[5]) for job in jobs]
    worker.sql("INSERT INTO pg_temp.staged_vector SELECT unnest(%s), '[1,0]'", ids)
    worker.sql("SELECT pgclip.store(%s, %s, %s, %s, '[]')", lease, epoch, ids, hashes)
    deleting = threading.Thread(target=sql, args=("SELECT pgclip.delete('a')",))
    deleting.start()
    time.sleep(0.3)
    assert deleting.is_alive()
    worker.connection.commit()
    deleting.join()
    assert states(sql) == {"b": "done"}
    assert_ledger_is_true(database_url)


def test_a_users_open_transaction_does_not_hold_up_the_batch(
    sql: Sql, hand: NewHand, database_url: str
) -> None:
    submit(sql, "a", "b")
    worker = hand()
    lease, jobs = worker.claim()
    user = psycopg2.connect(database_url)
    with user.cursor() as cursor:
        cursor.execute("SELECT pgclip.submit_text('replaced', key => 'a')")
    assert len(worker.store(lease, jobs)) == 1  # not the one being replaced
    user.rollback()
    user.close()
    assert states(sql) == {"a": "leased", "b": "done"}
    assert worker.heartbeat()  # it holds nothing any more
    assert states(sql) == {"a": "queued", "b": "done"}


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


def test_a_job_that_a_frozen_transaction_locks_does_not_stop_the_sweep(
    sql: Sql, hand: NewHand
) -> None:
    submit(sql, "a", "b", "c")
    frozen = hand()
    frozen.claim()
    frozen.die()
    frozen.connection.autocommit = False
    frozen.sql("SELECT FROM pgclip.job ORDER BY id LIMIT 2 FOR UPDATE")
    assert sql("SELECT pgclip.sweep(6)") == [(1,)]
    assert states(sql) == {"a": "leased", "b": "leased", "c": "queued"}
    frozen.connection.rollback()
    assert sql("SELECT pgclip.sweep(6)") == [(2,)]
    # It held three when it died, so none of them was alone.
    assert sql("SELECT DISTINCT strikes FROM pgclip.job") == [(0,)]
    assert sql("SELECT count(*) FROM pgclip.worker") == [(0,)]


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


def test_enqueue_missing_heals(sql: Sql, hand: NewHand, database_url: str) -> None:
    submit(sql, "a", "b")
    worker = hand()
    worker.store(*worker.claim(1))
    sql("DELETE FROM pgclip.job")  # as no code of ours does
    assert states(sql) == {"a": "done", "b": "queued"}
    assert sql("SELECT pgclip.enqueue_missing(1::smallint)") == [(1,)]
    worker.store(*worker.claim())
    assert_ledger_is_true(database_url)


def test_models_are_added_filled_and_promoted(sql: Sql, hand: NewHand) -> None:
    submit(sql, "a")
    worker = hand()
    worker.store(*worker.claim())
    with pytest.raises(psycopg2.Error, match="holds vectors of model m, not of other") as caught:
        sql("SELECT pgclip.register_model('other', 3, 10, '{\"fatal\": {}}')")
    assert "add_model" in str(caught.value)
    with pytest.raises(psycopg2.Error, match="is not the one whose vectors are stored"):
        sql("SELECT pgclip.register_model('m', 2, 10, '{\"fatal\": {\"weights\": 1}}')")
    sql("SELECT pgclip.add_model('other')")
    sql("SELECT pgclip.register_model('other', 2, 10, '{\"fatal\": {}}')")
    assert states(sql) == {"a": "done"}
    with pytest.raises(psycopg2.Error, match="has 1 jobs to do yet"):
        sql("SELECT pgclip.promote_model('other')")
    sql("UPDATE pgclip.worker SET model_id = 2")
    worker.store(*worker.claim(), vector="[0,1]")
    sql("SELECT pgclip.promote_model('other')")
    assert sql("SELECT name, state FROM pgclip.model ORDER BY id") == [
        ("m", "retired"), ("other", "live"),
    ]  # fmt: skip
    assert sql("SELECT pgclip.vectors_of(id)::text FROM pgclip.item") == [("[0,1]",)]
    with pytest.raises(psycopg2.Error, match="model m is retired"):
        sql("SELECT pgclip.register_model('m', 2, 10, '{\"fatal\": {}}')")


class Churn:
    """Submitters, deleters and workers on ten keys, at once, for some seconds."""

    def __init__(self, url: str, seconds: float) -> None:
        self.url = url
        self.end = time.monotonic() + seconds
        self.errors: list[BaseException] = []

    def repeat(self, step: Callable[[Hand, int], None]) -> None:
        hand, n = Hand(self.url), 0
        while time.monotonic() < self.end:
            n += 1
            try:
                step(hand, n)
            except psycopg2.Error as error:
                self.errors.append(error)

    def singles(self, hand: Hand, n: int) -> None:
        if n % 5 == 0:
            hand.sql("SELECT pgclip.delete(%s)", f"k{n * 7 % 10}")
        else:
            hand.sql("SELECT pgclip.submit_text(%s, key => %s)", f"t{n % 13}", f"k{n * 7 % 10}")

    def bulk(self, hand: Hand, n: int) -> None:
        hand.sql("SELECT pgclip.open_staging()")
        hand.sql(
            "BEGIN; INSERT INTO pg_temp.staged_submission (place, collection, key, kind, data)"
            " SELECT n, 'default', 'k' || n, 'text', convert_to('b' || (random() * 9)::int, 'UTF8')"
            f" FROM generate_series(0, 9) n ORDER BY n {('ASC', 'DESC')[n % 2]};"
            "SELECT count(*) FROM pgclip.submit_staged(); COMMIT"
        )

    def work(self, hand: Hand, n: int) -> None:
        lease, jobs = hand.claim(4)
        if jobs:
            hand.store(lease, jobs)
        hand.heartbeat()
        hand.sql("SELECT pgclip.collect_contents(50)")


def test_submissions_and_deletions_of_the_same_keys_at_once(
    sql: Sql, hand: NewHand, database_url: str
) -> None:
    churn = Churn(database_url, seconds=4)
    steps = [churn.singles, churn.singles, churn.bulk, churn.bulk, churn.work, churn.work]
    threads = [threading.Thread(target=churn.repeat, args=(step,)) for step in steps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert churn.errors == []  # no deadlock among them
    last = hand()
    sql("SELECT pgclip.release(id) FROM pgclip.worker")
    while (claimed := last.claim())[1]:
        last.store(*claimed)
    sql("SELECT pgclip.collect_contents(1000000)")
    assert_ledger_is_true(database_url)
    unreferenced = """
        SELECT count(*) FROM pgclip.content c WHERE NOT EXISTS (
            SELECT FROM pgclip.item i WHERE i.kind = c.kind AND i.content_hash = c.hash)
    """
    assert sql(unreferenced) == [(0,)]


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


def test_submitting_again_while_a_failure_is_being_stored(
    sql: Sql, hand: NewHand, database_url: str
) -> None:
    submit(sql, "a")
    worker = hand()
    lease, jobs = worker.claim()
    epoch = sql("SELECT epoch FROM pgclip.label_epoch")[0][0]
    failed = json.dumps([{"job_id": jobs[0][0], "reason": "r", "message": "m"}])
    worker.connection.autocommit = False
    worker.sql("SELECT pgclip.store(%s, %s, '{}', '{}', %s)", lease, epoch, failed)
    again = threading.Thread(target=submit, args=(sql, "a"))
    again.start()
    time.sleep(0.3)
    worker.connection.commit()
    again.join()
    worker.connection.autocommit = True
    assert states(sql) == {"a": "queued"}
    worker.store(*worker.claim())
    assert sql("SELECT state, reason FROM pgclip.items") == [("done", None)]
    assert_ledger_is_true(database_url)


def test_enqueue_missing_waits_for_open_submissions(
    sql: Sql, hand: NewHand, database_url: str
) -> None:
    submit(sql, "a")
    user = psycopg2.connect(database_url)
    with user.cursor() as cursor:
        cursor.execute("SELECT pgclip.submit_text('newer', key => 'a')")
    healing = threading.Thread(target=sql, args=("SELECT pgclip.enqueue_missing(1::smallint)",))
    healing.start()
    time.sleep(0.3)
    assert healing.is_alive()
    user.commit()
    user.close()
    healing.join()
    assert sql("SELECT generation FROM pgclip.job") == [(2,)]
