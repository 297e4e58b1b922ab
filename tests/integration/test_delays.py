"""A source that can't be had is tried again later, and in nobody's way until then."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from support.hand import Hand

from pgclip import Client, QueueFull

Sql = Callable[..., list[Any]]
NewHand = Callable[..., Hand]
URL = "https://example.org/a.jpg"
DELAY = "SELECT extract(epoch FROM not_before - now())::float FROM pgclip.job"


@pytest.fixture
def waiting(model: None, client: Client, hand: NewHand) -> Hand:
    """One picture whose site was away the first time."""
    client.submit_image(URL, key="a")
    worker = hand()
    assert put_off(worker)
    return worker


def put_off(worker: Hand, retry_after: float | None = 0, retry_for: float = 3600) -> bool:
    """Claims one job and tells that its source could not be had; whether it waits now."""
    lease, [job] = worker.claim()
    failed = [{"job_id": job[0], "reason": "fetch_failed", "message": "HTTP status 503",
               "retry_after": retry_after, "retry_for": retry_for}]  # fmt: skip
    (settled,) = worker.sql(
        "SELECT pgclip.store(%s, (SELECT epoch FROM pgclip.label_epoch), '{}', '{}', %s)",
        lease, json.dumps(failed),
    )[0]  # fmt: skip
    return settled == []


def wake(sql: Sql) -> int:
    """As the steward does once the time has come."""
    sql("UPDATE pgclip.job SET not_before = now() WHERE not_before IS NOT NULL")
    return int(sql("SELECT pgclip.wake_jobs(1000)")[0][0])


def test_it_stays_queued_with_the_reason_and_the_time(
    waiting: Hand, client: Client, sql: Sql
) -> None:
    item = client.get("a")
    assert (item.state, item.reason, item.error) == ("queued", "fetch_failed", "HTTP status 503")
    assert item.retry_at is not None
    assert next(client.items()).retry_at == item.retry_at
    assert client.count()["queued"] == 1
    assert sql("SELECT state, jobs FROM pgclip.queue") == [("delayed", 1)]
    assert sql("SELECT key, reason, error, tries, retry_at FROM pgclip.delayed") == [
        ("a", "fetch_failed", "HTTP status 503", 1, item.retry_at)
    ]
    assert sql("SELECT reason FROM pgclip.missing") == [("queued",)]


def test_nobody_is_given_it_until_its_time_has_come(waiting: Hand, sql: Sql) -> None:
    assert waiting.claim()[1] == []
    assert sql("SELECT pgclip.wake_jobs(1000)") == [(0,)]
    assert sql("SELECT queued FROM pgclip.backlog(10)") == [(0,)]
    assert sql("SELECT pgclip.waiting(10)") == [(0,)]
    assert wake(sql) == 1
    assert sql("SELECT queued FROM pgclip.backlog(10)") == [(1,)]
    lease, jobs = waiting.claim()
    assert waiting.store(lease, jobs) == [jobs[0][0]]
    assert sql("SELECT state, reason FROM pgclip.items") == [("done", None)]
    assert sql("SELECT * FROM pgclip.delayed") == []


def test_it_waits_twice_as_long_each_time(waiting: Hand, sql: Sql) -> None:
    delays = [sql(DELAY)[0][0]]
    for _ in range(11):
        wake(sql)
        assert put_off(waiting, retry_for=10**6)
        delays += sql(DELAY)[0]
    for delay, expected in zip(delays, [5 * 2**n for n in range(10)] + [3600, 3600], strict=True):
        assert 0.89 * expected - 1 <= delay <= 1.1 * expected


def test_what_a_site_asks_for_is_honoured(
    model: None, client: Client, hand: NewHand, sql: Sql
) -> None:
    client.submit_image(URL, key="a")
    assert put_off(hand(), retry_after=300)
    assert 299 < sql(DELAY)[0][0] <= 300


def test_in_the_end_it_fails(waiting: Hand, client: Client, sql: Sql) -> None:
    wake(sql)
    sql("UPDATE pgclip.job SET delayed_since = delayed_since - interval '1 hour'")
    assert not put_off(waiting)
    item = client.get("a")
    assert (item.state, item.reason, item.retry_at) == ("failed", "fetch_failed", None)
    assert client.retry() == 1  # from the beginning
    assert put_off(waiting)


@pytest.mark.parametrize(("retry_after", "retry_for"), [(None, 3600), (0, 0), (60, 30)])
def test_what_is_for_good_or_would_take_too_long_fails_at_once(
    model: None, client: Client, hand: NewHand, retry_after: float | None, retry_for: float
) -> None:
    client.submit_image(URL, key="a")
    assert not put_off(hand(), retry_after, retry_for)
    assert client.get("a").state == "failed"


def test_submitted_again_it_is_tried_at_once(waiting: Hand, client: Client, sql: Sql) -> None:
    client.submit_image(URL, key="a")
    assert sql("SELECT not_before, delayed_since, tries, reason FROM pgclip.job") == [
        (None, None, 0, None)
    ]
    assert len(waiting.claim()[1]) == 1


def test_it_can_be_cancelled_and_deleted(waiting: Hand, client: Client, sql: Sql) -> None:
    assert client.cancel() == 1
    assert client.get("a").reason == "cancelled"
    client.submit_image(URL, key="a")
    assert put_off(waiting)
    client.delete("a")
    assert sql("SELECT count(*) FROM pgclip.job") == [(0,)]


def test_it_takes_no_room_in_the_queue(waiting: Hand, client: Client) -> None:
    urls = {name: getattr(client.settings, name) for name in ("database_url", "redis_url")}
    with Client(**urls, max_queued=1) as bounded:
        bounded.submit_text("one")
        with pytest.raises(QueueFull):
            bounded.submit_text("two")


def test_claims_and_the_steward_pass_over_a_hundred_thousand_that_wait(
    waiting: Hand, client: Client, sql: Sql
) -> None:
    """By their indexes: none of those that wait is read."""
    sql(
        """WITH item AS (
               INSERT INTO pgclip.item (collection_id, key, kind, source)
               SELECT (SELECT id FROM pgclip.collection), 'w' || n, 'image', 'https://x/' || n
               FROM generate_series(1, 100000) n RETURNING id)
           INSERT INTO pgclip.job (item_id, model_id, generation, kind, rank, not_before)
           SELECT id, 1, 1, 'image', now() - interval '1 day', now() + interval '1 hour'
           FROM item"""
    )
    sql("ANALYZE pgclip.job")
    client.submit_text("a text", key="t")
    for statement, index in (
        ("SELECT id FROM pgclip.job WHERE model_id = 1 AND lease IS NULL AND not_before IS NULL"
         " ORDER BY rank, id LIMIT 1", "job_queue"),
        ("SELECT id FROM pgclip.job WHERE not_before <= now()"
         " ORDER BY not_before LIMIT 1000", "job_delayed"),
    ):  # fmt: skip
        plan = str(sql(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}"))
        assert index in plan
        assert "Seq Scan" not in plan
        assert "Rows Removed by Filter" not in plan
    assert [job[3] for job in waiting.claim()[1]] == ["t"]
