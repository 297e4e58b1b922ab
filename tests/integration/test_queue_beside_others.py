"""The queue while others hold locks, submit and delete the same."""

import json
import threading
import time
from collections.abc import Callable

import psycopg2
import pytest
from support.databases import assert_ledger_is_true
from support.hand import Hand, NewHand, Sql, states, submit

pytestmark = pytest.mark.usefixtures("model")


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


def test_plans_of_an_empty_queue_read_no_full_one(sql: Sql, hand: NewHand) -> None:
    """Plans are kept, and the statistics of a time with nothing to do say that all is in a page."""

    def read() -> int:
        worker.sql("SELECT pg_stat_force_next_flush()")
        (rows,) = sql("SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'job'")[0]
        return int(rows)

    sql("ALTER TABLE pgclip.job SET (autovacuum_enabled = off)")
    submit(sql, "one", "two")
    sql("ANALYZE pgclip.job")
    worker = hand()
    for n in range(8):
        submit(sql, f"few {n}")
        worker.store(*worker.claim(3))
    submit(sql, *(f"many {n}" for n in range(300)))
    before = read()
    for _ in range(3):
        assert len(worker.store(*worker.claim(64))) == 64
    assert read() == before
