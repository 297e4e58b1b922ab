"""Real workers as processes, and everything that can happen to them. The encoder is planted."""

import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import redis
from support.databases import assert_ledger_is_true, run_sql
from support.pictures import jpeg
from support.places import TESTS
from support.planted_worker import vector_of
from support.processes import WorkerFactory, eventually

from pgclip import Batch, Client, ConnectionFailed, ItemFailed, QueryFailed
from pgclip.local import LocalServices
from pgclip.migrate import migrate

Sql = Callable[..., list[Any]]
WAIT = 120


def texts(count: int, prefix: str = "text") -> list[dict[str, Any]]:
    return [{"text": f"{prefix} {n}", "key": f"{prefix}-{n}"} for n in range(count)]


def assert_vector(client: Client, key: str, text: str) -> None:
    vectors = client.get(key).vectors
    assert vectors.shape == (1, 16)
    np.testing.assert_allclose(vectors[0], vector_of(text.encode()), atol=2e-3)


def leased(sql: Sql) -> int:
    return int(sql("SELECT count(*) FROM pgclip.job WHERE lease IS NOT NULL")[0][0])


def test_a_worker_killed_in_the_middle(
    client: Client, database_url: str, sql: Sql, start_worker: WorkerFactory
) -> None:
    batch = client.submit_many([*texts(150), {"text": "sleep 60", "key": "slow"}])
    worker = start_worker(database_url)
    eventually(lambda: leased(sql) > 64)
    worker.kill()
    worker.wait()
    client.submit_text("instead", key="slow")
    start_worker(database_url)
    batch.wait(WAIT)
    assert_vector(client, "text-149", "text 149")
    assert_vector(client, "slow", "instead")
    assert_ledger_is_true(database_url)
    assert sql("SELECT count(*) FROM pgclip.failure") == [(0,)]


def test_flushall_with_work_queued(
    client: Client, database_url: str, services: LocalServices, start_worker: WorkerFactory
) -> None:
    server = redis.Redis.from_url(services.redis_url)
    batch = client.submit_many(texts(300))
    server.flushall()
    start_worker(database_url)
    batch.wait(WAIT)
    more = client.submit_many(texts(300, "more"))
    server.flushall()
    more.wait(WAIT)
    assert_ledger_is_true(database_url)


def test_a_frozen_worker_that_wakes_late_is_fenced(
    client: Client, database_url: str, sql: Sql, start_worker: WorkerFactory
) -> None:
    frozen = start_worker(database_url)
    client.submit_many([{"text": "sleep 1 again", "key": "slow"}, *texts(10)])
    eventually(lambda: leased(sql))
    frozen.kill(signal.SIGSTOP)
    other = start_worker(database_url)
    client.submit_text("newer", key="slow")
    eventually(lambda: sql("SELECT count(*) FROM pgclip.job") == [(0,)], WAIT)
    stored = sql("SELECT item_id, vector_ids FROM pgclip.embedding_set ORDER BY 1")
    frozen.kill(signal.SIGCONT)
    eventually(lambda: "was given up for dead" in frozen.log.read_text())
    time.sleep(2)  # time in which it would do harm
    assert sql("SELECT item_id, vector_ids FROM pgclip.embedding_set ORDER BY 1") == stored
    assert_vector(client, "slow", "newer")
    other.kill(signal.SIGTERM)
    other.wait()
    client.submit_text("after all", key="later").wait(WAIT)  # and it is of use again
    assert_ledger_is_true(database_url)


def test_a_poison_is_isolated_and_hurts_nobody(
    client: Client, database_url: str, sql: Sql, start_worker: WorkerFactory
) -> None:
    items = texts(20)
    items.insert(10, {"text": "die", "key": "poison"})
    batch = client.submit_many(items)
    stop = threading.Event()

    def keep_one_alive() -> None:
        while not stop.is_set():
            worker = start_worker(database_url, ready=False, PGCLIP_STRIKES="2")
            while worker.process.poll() is None and not stop.wait(0.1):
                pass

    keeper = threading.Thread(target=keep_one_alive)
    keeper.start()
    try:
        with pytest.raises(ItemFailed, match=r"1 of 21 items failed: 'poison': .*died 2 times"):
            batch.wait(WAIT)
    finally:
        stop.set()
        keeper.join()
    assert [failure.reason for failure in batch.failures()] == ["worker_died"]
    assert_vector(client, "text-19", "text 19")
    assert_ledger_is_true(database_url)


def test_a_crash_that_does_not_repeat_fails_nothing(
    client: Client, database_url: str, tmp_path: Path, start_worker: WorkerFactory
) -> None:
    batch = client.submit_many([*texts(5), {"text": f"die once {tmp_path / 'x'}", "key": "x"}])
    start_worker(database_url, ready=False).wait()
    start_worker(database_url)
    batch.wait(WAIT)
    assert_ledger_is_true(database_url)


def test_sigterm_finishes_or_hands_back(
    client: Client, database_url: str, sql: Sql, start_worker: WorkerFactory
) -> None:
    client.submit_many([{"text": f"sleep 0.05 {n}", "key": f"k{n}"} for n in range(300)])
    worker = start_worker(database_url, PGCLIP_BATCH_SIZE="16")
    eventually(lambda: sql("SELECT count(*) > 0 FROM pgclip.embedding_set") == [(True,)])
    worker.kill(signal.SIGTERM)
    assert worker.wait(20) == 0
    assert "Traceback" not in worker.log.read_text()
    ((done, queued, blamed),) = sql("""
        SELECT (SELECT count(*) FROM pgclip.embedding_set), count(*) FILTER (WHERE lease IS NULL),
               count(*) FILTER (WHERE strikes > 0 OR group_limit IS NOT NULL) FROM pgclip.job
    """)
    assert (done + queued, blamed) == (300, 0)
    assert 0 < done < 300
    assert sql("SELECT count(*) FROM pgclip.worker") == [(0,)]


def test_decoders_that_crash_hang_and_eat_memory(
    client: Client, database_url: str, start_worker: WorkerFactory
) -> None:
    start_worker(
        database_url,
        PYTHONPATH=str(TESTS / "support" / "planted"),
        PGCLIP_DECODE_TIMEOUT="2",
        PGCLIP_DECODERS="2",
    )
    planted = [b"ABORT", b"HANG", b"EAT MEMORY", b"corrupt"]
    good = [{"image": jpeg(n), "key": f"good-{n}"} for n in range(30)]
    bad = [{"image": data, "key": data.decode()} for data in planted]
    batch = client.submit_many([*good[:15], *bad, *good[15:]])
    with pytest.raises(ItemFailed, match="4 of 34 items failed"):
        batch.wait(WAIT)
    assert {failure.key: failure.reason for failure in batch.failures()} == {
        "ABORT": "decoder_died", "HANG": "decoder_timeout", "EAT MEMORY": "decoder_memory",
        "corrupt": "not_an_image",
    }  # fmt: skip
    with pytest.raises(ItemFailed, match=r"item 'ABORT' in collection 'default'.*SIGABRT"):
        client.submit_image(b"ABORT", key="ABORT").wait(WAIT)
    assert_ledger_is_true(database_url)


def test_one_corrupt_picture_among_63_good_ones(
    client: Client, database_url: str, start_worker: WorkerFactory
) -> None:
    items = [{"image": jpeg(n), "key": str(n)} for n in range(64)]
    items[31]["image"] = jpeg(31)[:900]
    batch = client.submit_many(items)
    start_worker(database_url)
    with pytest.raises(ItemFailed, match="1 of 64 items failed: '31': the image can't be decoded"):
        batch.wait(WAIT)
    assert batch.counts() == {"queued": 0, "leased": 0, "done": 63, "failed": 1}
    assert_ledger_is_true(database_url)


def test_inputs_that_the_model_fails_on(
    client: Client, database_url: str, start_worker: WorkerFactory
) -> None:
    start_worker(database_url)
    bad = {"out of memory": "out_of_memory", "not finite": "not_finite", "fail": "encoding_failed"}
    batch = client.submit_many([*texts(20), *({"text": text, "key": text} for text in bad)])
    with pytest.raises(ItemFailed, match="3 of 23"):
        batch.wait(WAIT)
    assert {failure.key: failure.reason for failure in batch.failures()} == bad
    with pytest.raises(QueryFailed, match="the model failed"):
        client.search("fail")
    assert_ledger_is_true(database_url)


def test_a_stuck_forward_pass_ends_the_process(
    client: Client, database_url: str, sql: Sql, start_worker: WorkerFactory
) -> None:
    client.submit_text("sleep 600", key="stuck")
    stuck = start_worker(database_url, PGCLIP_ENCODE_TIMEOUT="1")
    assert stuck.wait() == 70
    assert "has not returned for 1 s" in stuck.log.read_text()
    client.submit_text("fine", key="stuck")
    start_worker(database_url)
    eventually(lambda: client.get("stuck").state == "done", WAIT)


def test_a_query_that_sticks_ends_the_process_too(
    client: Client, database_url: str, start_worker: WorkerFactory
) -> None:
    stuck = start_worker(database_url, PGCLIP_ENCODE_TIMEOUT="1")
    with pytest.raises(QueryFailed):
        client.search("sleep 600", timeout=3)
    assert stuck.wait() == 70


def test_a_lost_device_ends_the_process_and_blames_nobody(
    client: Client, database_url: str, start_worker: WorkerFactory, tmp_path: Path
) -> None:
    texts = [f"lose the device {tmp_path / 'lost'}", *(f"text {n}" for n in range(20))]
    batch = client.submit_many({"text": text} for text in texts)
    lost = start_worker(database_url)
    assert lost.wait() == 70
    assert "the device is lost to this process" in lost.log.read_text()
    start_worker(database_url)
    batch.wait(WAIT)
    assert_ledger_is_true(database_url)


def test_replacing_and_deleting_while_work_is_under_way(
    client: Client, database_url: str, sql: Sql, start_worker: WorkerFactory
) -> None:
    start_worker(database_url)
    for key in ("kept", "replaced", "deleted"):
        client.submit_text(f"first {key}", key=key).wait(WAIT)
    client.submit_many({"text": f"sleep 0.5 {key}", "key": key} for key in ("replaced", "deleted"))
    eventually(lambda: leased(sql) == 2)
    assert_vector(client, "replaced", "first replaced")  # never without
    job = client.submit_text("second", key="replaced")
    client.delete("deleted")
    job.wait(WAIT)
    assert_vector(client, "replaced", "second")
    assert_vector(client, "kept", "first kept")
    eventually(lambda: sql("SELECT count(*) FROM pgclip.job") == [(0,)])
    assert sql("SELECT key FROM pgclip.item ORDER BY 1") == [("kept",), ("replaced",)]
    assert_ledger_is_true(database_url)


def test_the_same_content_is_encoded_once(
    client: Client, database_url: str, tmp_path: Path, start_worker: WorkerFactory
) -> None:
    picture = jpeg(1)
    (tmp_path / "copy.jpg").write_bytes(picture)
    start_worker(database_url, PGCLIP_ROOTS=str(tmp_path))
    client.submit_image(picture, key="first").wait(WAIT)
    # If it were encoded again, this would show.
    planted = str([1] + [0] * 15)
    run_sql(database_url, "UPDATE pgclip.embedding_1_1 SET embedding = %s", planted)
    batch = client.submit_many({"image": picture, "key": key} for key in ("again", "more"))
    client.submit_image(tmp_path / "copy.jpg", key="reference").wait(WAIT)
    batch.wait(WAIT)
    for key in ("again", "more", "reference"):
        assert client.get(key).vectors[0, 0] == 1
    stored = "SELECT DISTINCT encode(content_hash, 'hex') FROM pgclip.embedding_set"
    assert run_sql(database_url, stored) == [(hashlib.sha256(picture).hexdigest(),)]
    assert_ledger_is_true(database_url)


def test_a_reference_whose_file_changed(
    client: Client, database_url: str, tmp_path: Path, start_worker: WorkerFactory
) -> None:
    start_worker(database_url, PGCLIP_ROOTS=str(tmp_path))
    file = tmp_path / "a.jpg"
    seen = []
    for seed in (1, 1, 2):
        file.write_bytes(jpeg(seed))
        client.submit_image(file, key="k").wait(WAIT)
        seen.append(client.get("k").vectors.tolist())
    assert seen[0] == seen[1] != seen[2]


def test_a_worker_without_redis_works_all_the_same(
    database_url: str, start_worker: WorkerFactory
) -> None:
    dead = "redis://127.0.0.1:1/0"
    worker = start_worker(database_url, PGCLIP_REDIS_URL=dead)
    with Client(database_url=database_url, redis_url=dead) as client:
        client.submit_text("hello", key="k").wait(WAIT)
    worker.kill(signal.SIGTERM)
    worker.wait(20)


def test_postgres_connections_that_break_are_made_again(
    client: Client, database_url: str, sql: Sql, start_worker: WorkerFactory
) -> None:
    start_worker(database_url)
    batch = client.submit_many({"text": f"sleep 0.01 {n}", "key": f"k{n}"} for n in range(400))
    cut = """
        SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE application_name = 'pgclip worker' AND datname = current_database()
    """
    for _ in range(6):
        assert sql(cut) > [(0,)]
        time.sleep(0.5)
    batch.wait(WAIT)
    client.search("still answering", timeout=WAIT)
    assert_ledger_is_true(database_url)


def test_a_worker_with_another_model_is_refused(
    client: Client, database_url: str, start_worker: WorkerFactory
) -> None:
    start_worker(database_url)
    other = start_worker(database_url, ready=False, PGCLIP_MODEL_NAME="another")
    assert other.wait() == 1
    log = other.log.read_text()
    assert "this database holds vectors of model planted, not of another" in log
    assert "add_model" in log
    assert "Traceback" not in log


def test_no_process_is_left_behind(database_url: str, start_worker: WorkerFactory) -> None:
    worker = start_worker(database_url)
    children = psutil.Process(worker.process.pid).children(recursive=True)
    assert len(children) > 2  # the server of decoding processes and those themselves
    worker.kill()
    worker.wait()
    assert_gone(children)


def test_no_decoder_that_hangs_outlives_its_worker(
    client: Client, database_url: str, sql: Sql, start_worker: WorkerFactory
) -> None:
    planted = str(TESTS / "support" / "planted")
    worker = start_worker(database_url, PYTHONPATH=planted, PGCLIP_DECODE_TIMEOUT="2")
    client.submit_image(b"HANG for an hour")
    eventually(lambda: leased(sql) == 1)
    time.sleep(0.5)  # until the picture is being decoded
    children = psutil.Process(worker.process.pid).children(recursive=True)
    worker.kill()
    worker.wait()
    assert_gone(children)


def assert_gone(processes: list[psutil.Process]) -> None:
    psutil.wait_procs(processes, timeout=30)
    left = [each for each in processes if each.is_running() and each.status() != "zombie"]
    assert left == []


def test_postgres_and_redis_die_and_come_back(tmp_path: Path) -> None:
    with LocalServices(tmp_path / "own") as own:
        migrate(own.database_url)
        factory = WorkerFactory(tmp_path, own.redis_url)
        try:
            factory(own.database_url)
            with Client(database_url=own.database_url, redis_url=own.redis_url) as client:
                items = ({"text": f"sleep 0.01 {n}", "key": f"k{n}"} for n in range(300))
                batch = client.submit_many(items)
                for pid in (own.postgres_pid, own.redis_pid):
                    assert pid is not None
                    os.kill(pid, signal.SIGKILL)
                    time.sleep(1)
                    own.start()
                eventually(lambda: settled(batch), WAIT)
                client.submit_text("and on it goes", key="last").wait(WAIT)
                assert client.search("and on it goes", k=1)[0].key == "last"
            assert_ledger_is_true(own.database_url)
        finally:
            factory.stop()


def settled(batch: Batch) -> bool:
    """Whether all items of the batch are done; a broken connection says nothing about it."""
    try:
        return batch.counts()["done"] == batch.accepted
    except ConnectionFailed:
        return False


def test_sigterm_while_pictures_decode(
    client: Client, database_url: str, sql: Sql, start_worker: WorkerFactory
) -> None:
    client.submit_many({"image": f"HANG {n}".encode(), "key": f"k{n}"} for n in range(8))
    worker = start_worker(database_url, PYTHONPATH=str(TESTS / "support" / "planted"))
    eventually(lambda: leased(sql))
    worker.kill(signal.SIGTERM)
    assert worker.wait(20) == 0
    assert sql("SELECT count(*) FROM pgclip.job WHERE lease IS NULL AND strikes = 0") == [(8,)]


def test_a_refusal_that_lies_in_no_item_fails_no_item(
    client: Client, database_url: str, sql: Sql, start_worker: WorkerFactory
) -> None:
    worker = start_worker(database_url)
    sql("UPDATE pgclip.segment SET state = 'sealed'")
    batch = client.submit_many(texts(5))
    eventually(lambda: "5 jobs go back" in worker.log.read_text())
    assert batch.counts()["failed"] == 0
    sql("UPDATE pgclip.segment SET state = 'hot'")
    batch.wait(WAIT)
    assert_ledger_is_true(database_url)


def test_sigterm_while_a_query_picture_decodes(
    client: Client, database_url: str, sql: Sql, start_worker: WorkerFactory
) -> None:
    worker = start_worker(database_url, PYTHONPATH=str(TESTS / "support" / "planted"))
    sql("SELECT pgclip.request_embedding(image => %s)", b"HANG")
    taken = "SELECT count(*) FROM pgclip.query_request WHERE taken_at IS NOT NULL"
    eventually(lambda: sql(taken) == [(1,)])
    worker.kill(signal.SIGTERM)
    assert worker.wait(20) == 0  # the decoder alone would take 30 s
