"""Listing and control, backpressure, contents that are not kept: the client over real SQL."""

import io
import threading
from collections.abc import Callable
from typing import Any

import psycopg2
import pytest
from support.databases import assert_ledger_is_true, run_sql
from support.pictures import jpeg
from support.places import ROOT
from support.processes import Live, WorkerFactory, eventually

from pgclip import (
    Batch,
    Client,
    ConnectionFailed,
    InvalidItem,
    ItemFailed,
    Job,
    NotFound,
    PgclipError,
    QueryFailed,
    QueueFull,
    WaitTimeout,
)
from pgclip.local import LocalServices

Sql = Callable[..., list[Any]]


@pytest.fixture
def shelf(client: Client, database_url: str, start_worker: WorkerFactory) -> Client:
    """A client with five texts: three done, one failed, one waiting for no worker."""
    worker = start_worker(database_url)
    batch = client.submit_many(
        {"text": text, "key": text, "collection": "shop", "metadata": {"n": n, "even": n % 2 == 0}}
        for n, text in enumerate(["one", "two", "three", "fail four"])
    )
    with pytest.raises(ItemFailed):
        batch.wait(60)
    worker.kill()
    worker.wait()
    client.submit_text("five", key="five", collection="other")
    return client


def test_listing_and_counting(shelf: Client) -> None:
    def keys(**conditions: Any) -> list[str]:
        return sorted(item.key for item in shelf.items(**conditions))

    assert keys() == ["fail four", "five", "one", "three", "two"]
    assert keys(collection="shop", state="done") == ["one", "three", "two"]
    assert keys(state="failed") == keys(reason="encoding_failed") == ["fail four"]
    assert keys(state="queued") == ["five"]
    assert keys(state="leased") == keys(kind="image") == keys(reason="too_large") == []
    assert keys(metadata={"even": True}) == ["one", "three"]
    assert keys(metadata={"even": True, "n": 2}, keys=["three", "two"]) == ["three"]
    assert shelf.count() == {"queued": 1, "leased": 0, "done": 3, "failed": 1}
    assert shelf.count(collection="shop", metadata={"even": True})["done"] == 2
    with pytest.raises(InvalidItem, match="state is 'queued'"):
        keys(state="lost")
    (failed,) = shelf.items(state="failed")
    assert (failed.collection, failed.kept, failed.metadata["n"]) == ("shop", True, 3)
    assert "the model failed" in (failed.error or "")


def test_listing_goes_on_beyond_a_page(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgclip.controlling._FIRST_PAGE", 2)
    monkeypatch.setattr("pgclip.controlling._PAGE", 3)
    client.submit_many({"text": str(n), "key": str(n)} for n in range(10))
    assert [item.key for item in client.items()] == [str(n) for n in range(10)]
    assert client.cancel() == 0  # no worker has brought a model: there are no jobs yet
    assert client.delete_items(collection="default") == 10


def test_collections(shelf: Client) -> None:
    other, shop = shelf.collections()
    assert (other.name, other.items, other.queued) == ("other", 1, 1)
    assert (shop.texts, shop.images, shop.done, shop.failed) == (4, 0, 3, 1)
    assert shop.updated_at is not None


def test_cancel_retry_delete(
    shelf: Client, database_url: str, start_worker: WorkerFactory, sql: Sql
) -> None:
    assert shelf.cancel(collection="shop") == 0
    assert shelf.cancel(keys=["five"]) == 1
    (cancelled,) = shelf.items(reason="cancelled")
    assert cancelled.key == "five"
    assert sql("SELECT count(*) FROM pgclip.job") == [(0,)]

    assert shelf.retry(reason="nothing of the kind") == 0
    assert shelf.retry(reason="cancelled") == 1
    assert shelf.count()["queued"] == 1
    start_worker(database_url)
    eventually(lambda: shelf.count()["done"] == 4)
    assert shelf.retry() == 1  # the one that fails: it may fail again
    eventually(lambda: shelf.count()["failed"] == 1)

    with pytest.raises(InvalidItem, match="at least one condition"):
        shelf.delete_items()
    assert shelf.delete_items(metadata={"even": True}) == 2
    assert shelf.delete_items(state="failed") == 1
    assert [item.key for item in shelf.items()] == ["two", "five"]
    assert_ledger_is_true(database_url)


def test_control_looks_again_once_it_has_the_lock(shelf: Client, database_url: str) -> None:
    """An item that a submission is just changing does not match any longer."""
    with psycopg2.connect(database_url) as other:
        shelf.submit_text("new", key="fail four", collection="shop", connection=other)
        deleted: list[int] = []
        deleting = threading.Thread(
            target=lambda: deleted.append(shelf.delete_items(state="failed"))
        )
        deleting.start()
        locks = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        eventually(lambda: run_sql(database_url, locks)[0][0] > 0)
        other.commit()
        deleting.join(30)
    assert deleted == [0]
    assert shelf.get("fail four", collection="shop").state == "queued"


def test_control_and_bulk_do_not_deadlock(client: Client, sql: Sql) -> None:
    sql("SELECT pgclip.register_model('m', 4, 10, '{\"fatal\": {}}')")
    for n in range(60, 0, -1):  # ids and keys in opposite orders
        client.submit_text(f"text {n}", key=f"{n:03}")
    stop = threading.Event()
    errors: list[Exception] = []

    def again(work: Callable[[int], object]) -> None:
        n = 0
        while not stop.is_set():
            n += 1
            try:
                work(n)
            except Exception as error:
                errors.append(error)

    works: list[Callable[[int], object]] = [
        lambda n: client.submit_many({"text": f"{n} {k}", "key": f"{k:03}"} for k in range(1, 61)),
        lambda n: client.cancel(collection="default"),
        lambda n: client.retry(collection="default"),
        lambda n: client.delete_items(keys=[f"{k:03}" for k in range(1, 61, 3)]),
    ]
    threads = [threading.Thread(target=again, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    stop.wait(5)
    stop.set()
    for thread in threads:
        thread.join(30)
    assert errors == []


def test_retry_goes_through_the_failures_once(
    client: Client, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    sql("SELECT pgclip.register_model('m', 4, 10, '{\"fatal\": {}}')")
    monkeypatch.setattr("pgclip.controlling._PAGE", 2)
    client.submit_many({"text": str(n), "key": str(n)} for n in range(7))
    assert client.cancel() == 7
    # What is retried fails again at once.
    sql("""CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO pgclip.failure VALUES (NEW.item_id, NEW.model_id, NEW.generation, 'r', 'm');
        RETURN NULL; END $$""")
    sql("CREATE TRIGGER fail BEFORE INSERT ON pgclip.job FOR EACH ROW EXECUTE FUNCTION fail()")
    assert client.retry() == 7


def test_filters_that_say_nothing_delete_nothing(client: Client) -> None:
    client.submit_text("text", key="g")
    for empty in ({"metadata": {}}, {}):
        with pytest.raises(InvalidItem, match="at least one condition"):
            client.delete_items(**empty)
    with pytest.raises(InvalidItem, match="a list of keys"):
        client.delete_items(keys="g")
    assert client.delete_items(keys=[]) == 0
    assert client.count()["queued"] == 1


def test_a_model_that_is_being_filled_is_no_backlog(
    database_url: str, services: LocalServices, sql: Sql
) -> None:
    sql("SELECT pgclip.register_model('m', 4, 10, '{\"fatal\": {}}')")
    urls = {"database_url": database_url, "redis_url": services.redis_url}
    with Client(**urls, max_queued=1) as client:
        client.submit_text("text")
        sql("DELETE FROM pgclip.job")
        sql("SELECT pgclip.add_model('other')")
        assert client.submit_text("another")


def test_contents_are_not_collected_by_an_old_snapshot(sql: Sql) -> None:
    sql("SET default_transaction_isolation = 'repeatable read'")
    with pytest.raises(psycopg2.Error, match="READ COMMITTED"):
        sql("SELECT pgclip.collect_contents(10)")


def test_a_cancelled_replacement_leaves_the_old_vectors(shelf: Client) -> None:
    before = shelf.get("one", collection="shop").vectors
    shelf.submit_text("one and more", key="one", collection="shop")
    assert shelf.cancel(collection="shop") == 1
    item = shelf.get("one", collection="shop")
    assert (item.state, item.reason) == ("failed", "cancelled")
    assert (item.vectors == before).all()


def test_what_a_worker_is_at_is_not_cancelled(
    client: Client, database_url: str, start_worker: WorkerFactory
) -> None:
    start_worker(database_url)
    job = client.submit_text("sleep 2 seconds")
    eventually(lambda: job.status().state == "leased")
    assert client.cancel() == 0
    job.wait(60)


def test_the_queue_has_a_ceiling(database_url: str, services: LocalServices, sql: Sql) -> None:
    sql("SELECT pgclip.register_model('m', 4, 10, '{\"fatal\": {}}')")
    urls = {"database_url": database_url, "redis_url": services.redis_url}
    with Client(**urls, max_queued=3) as client:
        for n in range(3):
            client.submit_text(f"text {n}")
        with pytest.raises(QueueFull, match="PGCLIP_MAX_QUEUED"):
            client.submit_text("one too many")
        with pytest.raises(QueueFull, match="0 items were accepted before"):
            client.submit_many([{"text": "another"}])
        assert sum(client.count().values()) == 3
        client.cancel()
        client.submit_text("now there is room")


def test_a_submission_waits_for_room_if_asked(
    database_url: str, services: LocalServices, sql: Sql
) -> None:
    sql("SELECT pgclip.register_model('m', 4, 10, '{\"fatal\": {}}')")
    urls = {"database_url": database_url, "redis_url": services.redis_url}
    with Client(**urls, max_queued=1, queue_wait=60) as client:
        client.submit_text("first")
        second = threading.Thread(target=client.submit_text, args=("second",))
        second.start()
        second.join(0.3)
        assert second.is_alive()
        client.cancel()
        second.join(30)
        assert not second.is_alive()
    assert sql("SELECT count(*) FROM pgclip.job") == [(1,)]


def test_bytes_are_dropped_once_they_are_encoded(
    client: Client, database_url: str, start_worker: WorkerFactory, sql: Sql
) -> None:
    client.submit_image(jpeg(1), key="dropped", keep_source=False)
    client.submit_image(jpeg(2), key="kept")
    client.submit_image(jpeg(3), key="broken"[:6], keep_source=True)
    shared = client.submit_image(jpeg(2), key="shared", keep_source=False)
    client.submit_text("fail to be encoded", key="failing", keep_source=False)
    assert client.content("dropped") == jpeg(1)
    worker = start_worker(database_url)
    shared.wait(60)
    eventually(lambda: not next(client.items(keys=["dropped"])).kept)
    kept = {item.key: item.kept for item in client.items()}
    assert kept == {"dropped": False, "kept": True, "broken": True, "shared": True, "failing": True}
    with pytest.raises(NotFound, match="no bytes are kept"):
        client.content("dropped")
    assert len(client.get("dropped").vectors) == 1

    # The item that kept them goes: so do the bytes.
    client.delete("kept")
    sql("SELECT pgclip.collect_contents(100)")
    eventually(lambda: not next(client.items(keys=["shared"])).kept)

    # Another model can't encode it; submitted again, it can.
    sql("SELECT pgclip.add_model('other')")
    worker.kill()
    worker.wait()
    start_worker(database_url, PGCLIP_MODEL_NAME="other")
    failure = "SELECT reason FROM pgclip.failure f JOIN pgclip.item i ON i.id = f.item_id"
    eventually(lambda: ("content_dropped",) in sql(f"{failure} WHERE i.key = 'dropped'"))
    client.submit_image(jpeg(1), key="dropped")
    assert client.content("dropped") == jpeg(1)
    eventually(lambda: sql(f"{failure} WHERE i.key = 'dropped'") == [])


def test_releases_that_drop_nothing_hold_up_no_others(client: Client, sql: Sql) -> None:
    """A new item's store releases its bytes; the steward goes on while there are releases."""
    sql("SELECT pgclip.register_model('m', 4, 10, '{\"fatal\": {}}')")
    client.submit_many({"text": str(n), "keep_source": False} for n in range(5))
    assert sql("SELECT count(*) FROM pgclip.content_release") == [(0,)]
    client.submit_many({"text": str(n), "keep_source": False} for n in range(5))
    assert sql("SELECT pgclip.collect_contents(3)") == [(3,)]
    assert sql("SELECT pgclip.collect_contents(3)") == [(2,)]
    assert sql("SELECT pgclip.collect_contents(3)") == [(0,)]
    assert sql("SELECT count(*) FROM pgclip.content WHERE data IS NULL") == [(0,)]


def test_the_setting_drops_bytes_too(
    database_url: str, services: LocalServices, start_worker: WorkerFactory
) -> None:
    urls = {"database_url": database_url, "redis_url": services.redis_url}
    start_worker(database_url)
    with Client(**urls, keep_source=False) as client:
        client.submit_many([{"text": "a", "key": "a"}, {"text": "b", "keep_source": True}]).wait(60)
        eventually(lambda: [item.kept for item in client.items()] == [False, True])
        # Kept from now on: the same bytes come back.
        client.submit_text("a", key="a", keep_source=True)
        assert client.content("a") == b"a"


def test_priorities_are_checked_and_passed_on(client: Client, sql: Sql) -> None:
    sql("SELECT pgclip.register_model('m', 4, 10, '{\"fatal\": {}}')")
    client.submit_text("last", key="last", priority=9)
    client.submit_many([{"text": "bulk", "key": "bulk"}, {"text": "x", "key": "x", "priority": 0}])
    client.submit_text("first", key="first")
    order = "SELECT i.key FROM pgclip.job j JOIN pgclip.item i ON i.id = j.item_id ORDER BY rank"
    assert [key for (key,) in sql(order)] == ["x", "first", "bulk", "last"]
    for priority in (-1, 10, "high"):
        with pytest.raises(InvalidItem, match="priority"):
            client.submit_text("x", priority=priority)  # type: ignore[arg-type]
    with pytest.raises(InvalidItem, match="keep_source"):
        client.submit_image(b"x", keep_source="no")  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["a\0b", "a\ud800b", 5])
def test_keys_that_postgres_can_not_take(client: Client, key: Any) -> None:
    for ask in (client.get, client.content, client.delete):
        with pytest.raises(InvalidItem, match="key"):
            ask(key)
        with pytest.raises(InvalidItem, match="collection"):
            ask("k", collection=key)
    with pytest.raises(InvalidItem):
        client.search(like=key)
    with pytest.raises(InvalidItem):
        client.search("x", collection=key)


def test_a_query_for_sql_of_ones_own(live: Live) -> None:
    job = live.client.submit_text("a trombone", key="trombone", collection="own sql")
    job.wait(60)
    live.client.embed("some brass instrument")
    found = "SELECT item_id FROM pgclip.search('some brass instrument', collection => 'own sql')"
    hits = live.client.search("some brass instrument", collection="own sql")
    assert run_sql(live.database_url, found) == [(job.item_id,)] == [(hits[0].item_id,)]
    live.client.embed(image=next((ROOT / "demo" / "pictures").glob("guitar.*")))
    for nothing in ({}, {"query": "x", "image": b"x"}):
        with pytest.raises(InvalidItem, match="one of"):
            live.client.embed(**nothing)


def test_file_objects(live: Live) -> None:
    picture = next((ROOT / "demo" / "pictures").glob("banana.*"))
    with picture.open("rb") as file:
        live.client.submit_image(file, key="from a file").wait(60)
    with picture.open("rb") as file:
        assert live.client.search(image=file, k=1)[0].score > 0.99
    live.client.submit_many([{"image": io.BytesIO(picture.read_bytes())}]).wait(60)
    with pytest.raises(InvalidItem, match="binary"):
        live.client.submit_image(io.StringIO("text"))  # type: ignore[arg-type]
    with picture.open("rb") as file:
        file.close()
        with pytest.raises(InvalidItem, match="the file can't be read"):
            live.client.submit_image(file)


def test_many_wait_over_one_connection(
    client: Client, database_url: str, start_worker: WorkerFactory, sql: Sql
) -> None:
    """Three hundred threads wait, and the database sees one listener and few queries."""
    jobs = [client.submit_text(f"text {n}") for n in range(300)]
    ended: list[int] = []
    threads = [
        threading.Thread(target=lambda n=n, job=job: (job.wait(120), ended.append(n)))
        for n, job in enumerate(jobs)
    ]
    for thread in threads:
        thread.start()
    listeners = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN pgclip_settled%%'"
    eventually(lambda: len(client._follower._waiting) == 300)
    start_worker(database_url)
    for thread in threads:
        thread.join(60)
    assert sorted(ended) == list(range(300))
    assert sql(listeners)[0][0] <= 1
    assert client._follower._waiting == {}


def test_waiting_sees_what_is_not_notified(client: Client, sql: Sql) -> None:
    sql("SELECT pgclip.register_model('m', 4, 10, '{\"fatal\": {}}')")
    superseded = client.submit_text("old", key="a")
    deleted = client.submit_text("deleted", key="b")
    outcomes: list[object] = []

    def wait(job: Any) -> None:
        try:
            job.wait(60)
            outcomes.append("done")
        except NotFound as error:
            outcomes.append(error)

    threads = [threading.Thread(target=wait, args=(job,)) for job in (superseded, deleted)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(client._follower._waiting) == 2)
    client.submit_text("new", key="a")
    client.delete("b")
    for thread in threads:
        thread.join(30)
    assert "done" in outcomes
    assert any(isinstance(outcome, NotFound) for outcome in outcomes)


def test_waiting_outlives_a_lost_connection(
    client: Client, database_url: str, start_worker: WorkerFactory, sql: Sql
) -> None:
    job = client.submit_text("text")
    with pytest.raises(WaitTimeout, match="still queued"):
        job.wait(0.2)
    batch = client.submit_many({"text": f"text {n}"} for n in range(3))
    ended: list[object] = []

    def wait(one: Job | Batch) -> None:
        try:
            ended.append(one.wait(60))
        except Exception as error:
            ended.append(error)

    waiting = [threading.Thread(target=wait, args=(one,)) for one in (job, batch)]
    for thread in waiting:
        thread.start()
    listening = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                   WHERE datname = current_database() AND application_name = 'pgclip'"""
    eventually(lambda: sql(listening))
    start_worker(database_url)
    for thread in waiting:
        thread.join(30)
    assert ended == [None, None]


@pytest.mark.parametrize("is_batch", [False, True])
def test_a_connection_that_is_lost_while_a_look_is_taken(
    client: Client, database_url: str, start_worker: WorkerFactory, sql: Sql, is_batch: bool
) -> None:
    start_worker(database_url)
    job, batch = client.submit_text("text"), client.submit_many([{"text": "another"}])
    ended: list[object] = []

    def wait() -> None:
        try:
            ended.append((batch if is_batch else job).wait(60))
        except Exception as error:
            ended.append(error)

    with psycopg2.connect(database_url) as other:
        other.cursor().execute("LOCK TABLE pgclip.job, pgclip.failure")
        waiting = threading.Thread(target=wait)
        waiting.start()
        blocked = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                     WHERE datname = current_database() AND application_name = 'pgclip'
                       AND wait_event_type = 'Lock'"""
        eventually(lambda: sql(blocked))
    other.close()
    waiting.join(30)
    assert ended == [None]


def test_a_statement_that_takes_too_long(
    database_url: str, services: LocalServices, sql: Sql
) -> None:
    urls = {"database_url": database_url, "redis_url": services.redis_url}
    with Client(**urls, statement_timeout=0.3) as client, psycopg2.connect(database_url) as other:
        client.submit_text("text", key="held")
        other.cursor().execute("SELECT FROM pgclip.item FOR UPDATE")
        with pytest.raises(ConnectionFailed, match="PGCLIP_STATEMENT_TIMEOUT"):
            client.submit_text("other text", key="held")
        other.rollback()
        client.submit_text("other text", key="held")
        sql("SELECT pgclip.register_model('m', 4, 10, '{\"fatal\": {}}')")
        with pytest.raises(QueryFailed, match="no worker is alive"):  # a wait of its own
            client.search("a query", timeout=0.6)


def test_closing_wakes_those_who_wait(client: Client) -> None:
    job = client.submit_text("text")
    ended = threading.Event()

    def wait() -> None:
        with pytest.raises(PgclipError, match="the client is closed"):
            job.wait()
        ended.set()

    threading.Thread(target=wait, daemon=True).start()
    eventually(lambda: client._follower._waiting)
    client.close()
    assert ended.wait(30)
