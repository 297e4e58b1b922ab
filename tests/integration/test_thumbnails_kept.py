"""Thumbnails belong to a content: who gets one, how long it stays, how lacking ones are found."""

import hashlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.changing import register
from support.hand import Hand, NewHand

from pgclip import Client

Sql = Callable[..., list[Any]]
pytestmark = pytest.mark.usefixtures("model")
PICTURE = b"a picture"
HASH = hashlib.sha256(PICTURE).digest()
ELSEWHERE = hashlib.sha256(b"what is behind a source").digest()
SOURCE = "https://pictures.example/a.jpg"


def submit(sql: Sql, key: str, data: bytes = PICTURE, *, keep_source: bool = True) -> None:
    sql("SELECT pgclip.submit_image(%s, %s, keep_source => %s)", key, data, keep_source)


def submit_source(sql: Sql, key: str, *, keep_source: bool = True) -> None:
    sql("SELECT * FROM pgclip.submit_batch('{image}', %s, '{NULL}', %s, '{default}', '{\"{}\"}',"
        " '{0}', %s)", [key], [SOURCE], [keep_source])  # fmt: skip


def encode(worker: Hand, *, of_unkept: bool = False, data: bytes | None = b"a JPEG") -> None:
    """Encodes all that waits, with thumbnails where they are due."""
    while (claimed := worker.claim())[1]:
        lease, jobs = claimed
        due = worker.sql("SELECT pgclip.thumbnails_due(%s, %s)", [j[0] for j in jobs], of_unkept)
        hashes = {j[0]: bytes(j[5] or ELSEWHERE) for j in jobs}
        settle(worker, lease, hashes)
        keep(worker, {hashes[job] for job in due[0][0]}, data, of_unkept=of_unkept)


def settle(worker: Hand, lease: str, hashes: dict[int, bytes]) -> None:
    (epoch,) = worker.sql("SELECT epoch FROM pgclip.label_epoch")[0]
    with transaction(worker):
        worker.sql("INSERT INTO pg_temp.staged_vector SELECT unnest(%s), '[1,0]'", list(hashes))
        worker.sql("SELECT pgclip.store(%s, %s, %s, %s, '[]')", lease, epoch, list(hashes),
                   list(hashes.values()))  # fmt: skip


class transaction:
    def __init__(self, worker: Hand) -> None:
        self.connection = worker.connection

    def __enter__(self) -> None:
        self.connection.autocommit = False

    def __exit__(self, failed: object, *_: object) -> None:
        self.connection.rollback() if failed else self.connection.commit()
        self.connection.autocommit = True


def stage(worker: Hand, hashes: set[bytes], data: bytes | None = b"a JPEG", *,
          of_unkept: bool = False) -> None:  # fmt: skip
    worker.sql("SELECT pgclip.open_thumbnails()")
    for each in hashes:
        size = None if data is None else 4
        worker.sql("INSERT INTO pg_temp.staged_thumbnail VALUES (%s, %s, %s, %s)",
                   each, size, size, data)  # fmt: skip
    worker.sql("SELECT pgclip.keep_thumbnails(%s)", of_unkept)


def keep(worker: Hand, hashes: set[bytes], data: bytes | None = b"a JPEG", *,
         of_unkept: bool = False) -> None:  # fmt: skip
    with transaction(worker):
        stage(worker, hashes, data, of_unkept=of_unkept)


def collect(sql: Sql) -> None:
    while sql("SELECT pgclip.collect_contents(100)") > [(0,)]:
        pass


def kept(sql: Sql) -> set[bytes]:
    return {bytes(hash_) for (hash_,) in sql("SELECT hash FROM pgclip.thumbnail")}


def test_pictures_get_one_whose_bytes_are_kept(sql: Sql, hand: NewHand, client: Client) -> None:
    submit(sql, "kept")
    submit(sql, "unkept", b"another", keep_source=False)
    submit_source(sql, "elsewhere")
    sql("SELECT pgclip.submit_text('a text', key => 'text')")
    encode(hand())
    assert kept(sql) == {HASH, ELSEWHERE}
    assert client.thumbnail("kept") == client.thumbnail("elsewhere") == b"a JPEG"
    found = dict(sql("SELECT id, key FROM pgclip.items"))
    small = client.thumbnails(found)
    assert {found[item_id] for item_id in small} == {"kept", "elsewhere"}
    assert set(small.values()) == {b"a JPEG"}


def test_where_it_is_asked_for_others_get_one_too(sql: Sql, hand: NewHand) -> None:
    submit(sql, "unkept", keep_source=False)
    submit_source(sql, "elsewhere", keep_source=False)
    encode(hand(), of_unkept=True)
    collect(sql)
    assert kept(sql) == {HASH, ELSEWHERE}
    assert sql("SELECT data IS NULL FROM pgclip.content") == [(True,)]
    for key in ("unkept", "elsewhere"):
        sql("SELECT pgclip.delete(%s)", key)
    assert kept(sql) == set()


def test_one_that_is_there_is_not_made_again(sql: Sql, hand: NewHand) -> None:
    worker = hand()
    submit(sql, "a")
    encode(worker)
    submit(sql, "b")
    lease, jobs = worker.claim()
    assert worker.sql("SELECT pgclip.thumbnails_due(%s, false)", [jobs[0][0]]) == [([],)]
    settle(worker, lease, {jobs[0][0]: HASH})
    assert sql("SELECT key FROM pgclip.thumbnails ORDER BY 1") == [("a",), ("b",)]


def test_what_no_item_has_is_not_kept(sql: Sql, hand: NewHand) -> None:
    keep(hand(), {HASH})  # of a job that was taken back meanwhile
    assert kept(sql) == set()


@pytest.mark.parametrize("put", [submit, submit_source])
def test_it_goes_at_once_with_the_last_item(
    put: Callable[[Sql, str], None], sql: Sql, hand: NewHand
) -> None:
    put(sql, "a")
    put(sql, "b")
    encode(hand())
    sql("SELECT pgclip.delete('a')")
    collect(sql)
    assert len(kept(sql)) == 1
    sql("SELECT * FROM pgclip.delete_items(keys => '{b}')")
    assert kept(sql) == set()


@pytest.mark.parametrize("put", [submit, submit_source])
def test_it_goes_when_the_picture_has_been_replaced(
    put: Callable[[Sql, str], None], sql: Sql, hand: NewHand, client: Client
) -> None:
    put(sql, "a")
    encode(hand())
    submit(sql, "a", b"another picture")
    collect(sql)
    assert client.thumbnail("a") == b"a JPEG"  # of what is found
    encode(hand(), data=b"another JPEG")
    collect(sql)
    assert kept(sql) == {hashlib.sha256(b"another picture").digest()}
    assert client.thumbnail("a") == b"another JPEG"
    sql("SELECT pgclip.submit_text('a text now', key => 'a')")
    encode(hand())
    collect(sql)
    assert kept(sql) == set()


@pytest.mark.parametrize("put", [submit, submit_source])
def test_it_goes_when_the_bytes_are_not_to_be_kept_any_more(
    put: Callable[..., None], sql: Sql, hand: NewHand
) -> None:
    put(sql, "a")
    encode(hand())
    put(sql, "a", keep_source=False)
    encode(hand())
    collect(sql)
    assert kept(sql) == set()


def test_it_outlives_a_model(sql: Sql, hand: NewHand) -> None:
    submit_source(sql, "a")
    encode(hand())
    sql("SELECT pgclip.add_model('other')")
    register(sql)
    sql("DELETE FROM pgclip.embedding_set WHERE model_id = 2")
    sql("INSERT INTO pgclip.embedding_set (item_id, model_id, generation, kind, content_hash,"
        " vector_ids) SELECT item_id, 2, generation, kind, content_hash, '{1}'"
        " FROM pgclip.embedding_set")  # fmt: skip
    sql("DELETE FROM pgclip.embedding_set WHERE model_id = 1")
    collect(sql)
    assert kept(sql) == {ELSEWHERE}
    sql("DELETE FROM pgclip.embedding_set")
    collect(sql)
    assert kept(sql) == set()


def lacking(sql: Sql, worker: Hand, put: Callable[..., None], *keys: str) -> bytes:
    """Encodes items of one picture, which has no thumbnail yet; gives its hash."""
    for key in keys:
        put(sql, key)
    encode(worker)
    ((hash_,),) = sql("DELETE FROM pgclip.thumbnail RETURNING hash")
    return bytes(hash_)


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ"])
@pytest.mark.parametrize("put", [submit, submit_source])
def test_a_deletion_that_is_open_takes_it_along(
    put: Callable[..., None], isolation: str, sql: Sql, hand: NewHand
) -> None:
    worker, user = hand(), hand()
    hash_ = lacking(sql, worker, put, "a")
    user.sql(f"BEGIN ISOLATION LEVEL {isolation}")
    user.sql("SELECT pgclip.delete('a')")
    keep(worker, {hash_})
    user.sql("COMMIT")
    collect(sql)
    assert kept(sql) == set()


@pytest.mark.parametrize("put", [submit, submit_source])
def test_a_deletion_under_an_old_snapshot_takes_it_along(
    put: Callable[..., None], sql: Sql, hand: NewHand
) -> None:
    worker, user = hand(), hand()
    hash_ = lacking(sql, worker, put, "a")
    user.sql("BEGIN ISOLATION LEVEL REPEATABLE READ")
    user.sql("SELECT count(*) FROM pgclip.items")
    keep(worker, {hash_})
    user.sql("SELECT pgclip.delete('a')")
    user.sql("COMMIT")
    collect(sql)
    assert kept(sql) == set()


def test_a_deletion_waits_for_one_that_is_being_kept(sql: Sql, hand: NewHand) -> None:
    worker, user = hand(), hand()
    hash_ = lacking(sql, worker, submit, "a")
    with ThreadPoolExecutor() as threads:
        with transaction(worker):
            stage(worker, {hash_})
            deleted = threads.submit(user.sql, "SELECT pgclip.delete('a')")
            time.sleep(0.3)
            assert not deleted.done()
        deleted.result(10)
    assert kept(sql) == set()


@pytest.mark.parametrize("put", [submit, submit_source])
def test_one_that_came_too_late_is_not_kept(
    put: Callable[..., None], sql: Sql, hand: NewHand
) -> None:
    worker = hand()
    hash_ = lacking(sql, worker, put, "a")
    put(sql, "a", keep_source=False)
    keep(worker, {hash_})
    assert kept(sql) == set()


def test_of_items_of_one_picture_the_kept_ones_count(sql: Sql, hand: NewHand) -> None:
    worker = hand()
    submit_source(sql, "kept")
    submit_source(sql, "unkept", keep_source=False)
    encode(worker)
    assert kept(sql) == {ELSEWHERE}
    sql("SELECT pgclip.delete('kept')")
    collect(sql)
    assert kept(sql) == set()
    keep(worker, {ELSEWHERE})
    assert kept(sql) == set()


def test_whoever_is_just_changing_an_item_is_not_waited_for(sql: Sql, hand: NewHand) -> None:
    worker, user = hand(), hand()
    hash_ = lacking(sql, worker, submit, "a")
    user.sql("BEGIN")
    user.sql("UPDATE pgclip.item SET metadata = '{\"n\": 1}'")
    keep(worker, {hash_})
    assert kept(sql) == set()
    user.sql("ROLLBACK")
    keep(worker, {hash_})
    assert kept(sql) == {hash_}


def test_collecting_comes_to_an_end_beside_those_who_hold_contents(sql: Sql, hand: NewHand) -> None:
    for key, data in (("a", b"1"), ("b", b"2"), ("c", b"2")):
        submit(sql, key, data)
    encode(hand())
    first, second = hand(), hand()
    first.sql("BEGIN")
    first.sql("SELECT pgclip.submit_image('again', %s)", b"1")
    second.sql("BEGIN")
    second.sql("SELECT FROM pgclip.thumbnail FOR UPDATE")
    for key in "abc":
        sql("SELECT pgclip.delete(%s)", key)
    passes = [sql("SELECT pgclip.collect_contents(100)") for _ in range(3)]
    assert passes[-1] == [(0,)]
    first.sql("ROLLBACK")
    second.sql("ROLLBACK")
    collect(sql)
    assert kept(sql) == set()
    assert sql("SELECT count(*) FROM pgclip.content") == [(0,)]


def next_page(sql: Sql, items: int = 10, *, of_unkept: bool = False) -> dict[bytes, str] | None:
    ((hashes, sources, _),) = sql("SELECT * FROM pgclip.next_thumbnails(%s, %s)", items, of_unkept)
    return None if hashes is None else dict(zip(map(bytes, hashes), sources, strict=True))


def test_lacking_ones_are_found_once_it_is_asked_for(sql: Sql, hand: NewHand) -> None:
    worker = hand()
    submit(sql, "a")
    submit(sql, "same")
    submit(sql, "unkept", b"another", keep_source=False)
    submit_source(sql, "elsewhere")
    sql("SELECT pgclip.submit_text('a text')")
    encode(worker)
    collect(sql)
    assert next_page(sql) is None
    sql("DELETE FROM pgclip.thumbnail")
    sql("SELECT pgclip.heal()")
    assert next_page(sql) == {HASH: None, ELSEWHERE: SOURCE}
    keep(worker, {HASH})
    keep(worker, {ELSEWHERE}, None)  # it can't be read any more
    assert next_page(sql) == {}  # at the end: once more
    assert next_page(sql) == {}
    assert next_page(sql) is None
    assert sql("SELECT 1 FROM pgclip.thumbnail_walk") == []
    sql("SELECT pgclip.heal()")
    assert next_page(sql) == {ELSEWHERE: SOURCE}


def test_what_a_worker_took_and_left_is_found_again(sql: Sql, hand: NewHand) -> None:
    for n in range(6):
        submit(sql, f"k{n}", f"picture {n}".encode())
    encode(hand())
    sql("DELETE FROM pgclip.thumbnail")
    sql("SELECT pgclip.heal()")
    first = [next_page(sql, 2) for _ in range(3)]
    assert [len(page or ()) for page in first] == [2, 2, 2]
    assert next_page(sql, 2) == {}
    again = [next_page(sql, 2) for _ in range(3)]
    assert again == first
    for page in again:
        keep(hand(), set(page or ()))
    pages = [next_page(sql, 2) for _ in range(6)]
    assert pages[-1] is None
    assert not any(pages)


def test_of_unkept_ones_those_that_can_still_be_had(sql: Sql, hand: NewHand) -> None:
    submit(sql, "gone", keep_source=False)
    submit_source(sql, "elsewhere", keep_source=False)
    encode(hand())
    collect(sql)
    sql("SELECT pgclip.heal()")
    assert next_page(sql) == {}
    sql("SELECT pgclip.heal()")
    assert next_page(sql, of_unkept=True) == {ELSEWHERE: SOURCE}


def test_what_does_not_come_is_given_again_some_times(sql: Sql, hand: NewHand) -> None:
    lacking(sql, hand(), submit_source, "a")
    sql("SELECT pgclip.heal()")
    rounds = 0
    while sql("SELECT 1 FROM pgclip.thumbnail_walk"):
        page = next_page(sql)
        rounds += bool(page)
        if page is None:  # it waits
            sql("UPDATE pgclip.thumbnail_walk SET not_before = now()")
    assert rounds == 6


def test_bytes_that_are_here_count_more_than_a_source_that_is_gone(sql: Sql, hand: NewHand) -> None:
    worker = hand()
    submit_source(sql, "a")
    encode(worker)
    sql("UPDATE pgclip.thumbnail SET data = NULL, width = NULL, height = NULL")
    submit(sql, "b")
    sql("UPDATE pgclip.embedding_set SET content_hash = %s", HASH)
    sql("UPDATE pgclip.thumbnail SET hash = %s", HASH)
    lease, jobs = worker.claim()
    settle(worker, lease, {jobs[0][0]: HASH})
    sql("INSERT INTO pgclip.thumbnail_walk DEFAULT VALUES")
    assert next_page(sql) == {HASH: None}
    keep(worker, {HASH})
    assert sql("SELECT data FROM pgclip.thumbnails WHERE key = 'a'")
