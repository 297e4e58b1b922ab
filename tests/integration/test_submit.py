"""Submitting, without a worker: what is accepted, what is refused, and what it leaves."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from support.pictures import jpeg

from pgclip import Client, InvalidItem, NotFound, WaitTimeout

Sql = Callable[..., list[Any]]
JOBS = "SELECT count(*) FROM pgclip.job"


@pytest.fixture(autouse=True)
def model(sql: Sql) -> int:
    return int(sql("SELECT pgclip.register_model('m', 2, 10, '{\"fatal\": {}}')")[0][0])


def finish_all(sql: Sql) -> None:
    """Settles every job as a worker would, with the vector (1, 0)."""
    (worker,) = sql("SELECT pgclip.sign_on(1::smallint, 'test', 1, 'cpu', 'float32', 64, 60)")[0]
    lease = "00000000-0000-0000-0000-000000000001"
    sql("SELECT pgclip.open_results()")
    while jobs := sql("SELECT * FROM pgclip.claim(%s, %s, 1000, 1000000000)", worker, lease):
        ids = [job[0] for job in jobs]
        hashes = [job[5] or b"\1" * 32 for job in jobs]
        sql(
            "BEGIN; INSERT INTO pg_temp.staged_vector SELECT unnest(%s), '[1,0]';"
            "SELECT pgclip.store(%s, (SELECT epoch FROM pgclip.label_epoch), %s, %s, '[]'); COMMIT",
            ids, lease, ids, hashes,
        )  # fmt: skip
    sql("SELECT pgclip.sign_off(%s)", worker)


def test_an_item_is_queued_and_can_be_read(client: Client, sql: Sql) -> None:
    job = client.submit_text(
        "a cat", key="k", collection="c", metadata={"price": 9, "ü": [1, None]}
    )
    item = client.get("k", collection="c")
    assert (item.key, item.collection, item.kind, item.state) == ("k", "c", "text", "queued")
    assert item.metadata == {"price": 9, "ü": [1, None]}
    assert item.vectors.shape == (0, 0)
    assert item.labels == ()
    assert job.status().state == "queued"
    with pytest.raises(WaitTimeout, match=r"'k' in collection 'c' is still queued"):
        job.wait(timeout=0.1)


def test_keys_are_made_from_the_content(client: Client) -> None:
    picture = jpeg(1)
    assert client.submit_image(picture).key == f"sha256:{hashlib.sha256(picture).hexdigest()}"
    assert client.submit_text("x").key == f"sha256:{hashlib.sha256(b'x').hexdigest()}"
    assert client.submit_image(Path("/data/a b.jpg")).key == "/data/a b.jpg"
    assert client.submit_image("https://example.org/a.jpg").key == "https://example.org/a.jpg"


@pytest.mark.parametrize("size", [10, 200_000])
def test_the_same_content_changes_metadata_only(client: Client, sql: Sql, size: int) -> None:
    picture = b"x" * size
    client.submit_image(picture, key="k", metadata={"a": 1})
    finish_all(sql)
    client.submit_image(picture, key="k", metadata={"b": 2}).wait(5)
    assert sql(JOBS) == [(0,)]
    assert client.get("k").metadata == {"b": 2}


def test_new_content_is_queued_and_the_old_vectors_stay(client: Client, sql: Sql) -> None:
    first = client.submit_text("one", key="k")
    finish_all(sql)
    second = client.submit_text("two", key="k")
    item = client.get("k")
    assert item.state == "queued"
    assert item.vectors.shape == (1, 2)
    assert second.generation == first.generation + 1
    assert first.status().superseded
    first.wait(5)
    assert sql("SELECT convert_from(data, 'UTF8') FROM pgclip.content ORDER BY 1") == [
        ("one",), ("two",),
    ]  # fmt: skip
    finish_all(sql)
    assert sql("SELECT count(*) FROM pgclip.embedding_1_1") == [(1,)]


def test_contents_that_nobody_refers_to_are_collected(client: Client, sql: Sql) -> None:
    client.submit_text("one", key="a")
    client.submit_text("one", key="b")
    client.submit_text("two", key="a")
    sql("SELECT pgclip.collect_contents(100)")
    contents = "SELECT convert_from(data, 'UTF8') FROM pgclip.content ORDER BY 1"
    assert sql(contents) == [("one",), ("two",)]
    client.submit_text("two", key="b")
    assert sql("SELECT pgclip.collect_contents(100)") == [(1,)]
    assert sql(contents) == [("two",)]


def test_a_text_becomes_a_picture(client: Client, sql: Sql) -> None:
    client.submit_text("one", key="k")
    finish_all(sql)
    client.submit_image(b"...", key="k")
    finish_all(sql)
    assert client.get("k").kind == "image"
    assert sql("SELECT kind FROM pgclip.embedding_1_1") == [("image",)]


def test_a_source_is_read_again_when_it_is_submitted_again(client: Client, sql: Sql) -> None:
    client.submit_image(Path("/a.jpg"), key="k")
    finish_all(sql)
    client.submit_image(Path("/a.jpg"), key="k")
    assert sql(JOBS) == [(1,)]


def test_delete(client: Client, sql: Sql) -> None:
    client.submit_text("one", key="k")
    finish_all(sql)
    client.submit_text("two", key="k")
    client.delete("k")
    for table in ("item", "job", "embedding_set", "embedding_1_1", "item_label"):
        assert sql(f"SELECT count(*) FROM pgclip.{table}") == [(0,)], table
    with pytest.raises(NotFound, match="no item 'k' in collection 'default'"):
        client.delete("k")
    with pytest.raises(NotFound):
        client.get("k")


def test_deleting_while_it_is_waited_for(client: Client) -> None:
    job = client.submit_text("one", key="k")
    client.delete("k")
    with pytest.raises(NotFound, match="the item was deleted"):
        job.wait(5)


@pytest.mark.parametrize(
    ("submit", "message"),
    [
        (lambda c: c.submit_text(""), "the text is empty"),
        (lambda c: c.submit_text(" \n "), "the text is blank"),
        (lambda c: c.submit_text(5), "a text is a str, not int"),
        (lambda c: c.submit_text("a\0b", key="k"), "text 'k': the text has a NUL"),
        (lambda c: c.submit_text("\ud800"), "not valid Unicode"),
        (lambda c: c.submit_text("x" * 262_145), "more than 256 KiB"),
        (lambda c: c.submit_text("x", key=""), "key must have 1 to 1024 bytes"),
        (lambda c: c.submit_text("x", key="k" * 1025), "key must have 1 to 1024 bytes"),
        (lambda c: c.submit_text("x", key="a\0"), "the key has a NUL"),
        (lambda c: c.submit_text("x", key=7), "the key is a str, not int"),
        (lambda c: c.submit_text("x", collection=""), "collection's name must have 1 to 200"),
        (lambda c: c.submit_text("x", collection="c" * 201), "collection's name must have"),
        (lambda c: c.submit_text("x", metadata={"a": {1}}), "the metadata is not JSON"),
        (lambda c: c.submit_text("x", metadata={"a": float("nan")}), "the metadata is not JSON"),
        (lambda c: c.submit_text("x", metadata={"a": "\0"}), "NUL"),
        (lambda c: c.submit_text("x", metadata=[1]), "metadata is a mapping, not list"),
        (lambda c: c.submit_text("x", metadata={"a": "x" * 70_000}), "65536 bytes"),
        (lambda c: c.submit_image(b"", key="k"), "image 'k' in collection 'default'.*is empty"),
        (lambda c: c.submit_image("cat.jpg"), "is a string but not a URL"),
        (
            lambda c: c.submit_image(5),
            "an image is bytes, a binary file, .* or a URL, not int",
        ),
        (lambda c: c.submit_image(b"x" * 67_108_865), "more than 64 MiB"),
        (lambda c: c.submit_image("https://x/" + "y" * 5000, key="k"), "at most 4096 bytes"),
    ],
)
def test_what_is_refused_leaves_nothing(
    client: Client, sql: Sql, submit: Callable[[Any], object], message: str
) -> None:
    with pytest.raises(InvalidItem, match=message):
        submit(client)
    for table in ("item", "job", "content", "collection"):
        assert sql(f"SELECT count(*) FROM pgclip.{table}") == [(0,)], table


def test_submit_many(client: Client, sql: Sql) -> None:
    def items() -> Iterator[dict[str, Any]]:
        for n in range(2500):
            yield {"text": f"text {n}", "key": f"t{n}", "metadata": {"n": n}, "collection": "c"}
        yield {"image": jpeg(1), "key": "p"}
        yield {"image": Path("/a.jpg")}

    batch = client.submit_many(items())
    assert (batch.submitted, batch.accepted, batch.refused) == (2502, 2502, [])
    assert batch.counts() == {"queued": 2502, "leased": 0, "done": 0, "failed": 0}
    finish_all(sql)
    batch.wait(5)
    assert batch.counts() == {"queued": 0, "leased": 0, "done": 2502, "failed": 0}
    assert client.get("t2499", collection="c").metadata == {"n": 2499}


def test_a_bad_item_does_not_hurt_its_chunk(client: Client, sql: Sql) -> None:
    bad: list[Any] = [
        {"text": ""}, {"text": "x", "key": "k" * 2000}, {"image": "cat.jpg", "key": "b"}, 5,
        {"text": "x", "image": b"y"}, {"text": "x", "colour": "red"},
    ]  # fmt: skip
    good = [{"text": f"text {n}", "key": f"g{n}"} for n in range(4)]
    batch = client.submit_many([good[0], *bad, *good[1:]])
    assert batch.accepted == 4
    assert [failure.position for failure in batch.failures()] == [1, 2, 3, 4, 5, 6]
    assert batch.failures()[2].key == "b"
    assert "not a URL" in batch.failures()[2].message
    assert sql("SELECT key FROM pgclip.item ORDER BY 1") == [("g0",), ("g1",), ("g2",), ("g3",)]


def test_of_one_key_twice_in_a_chunk_the_last_counts(client: Client, sql: Sql) -> None:
    batch = client.submit_many([{"text": t, "key": "k"} for t in ("one", "two", "three")])
    assert batch.accepted == 3
    assert sql(JOBS) == [(1,)]
    sql("SELECT pgclip.collect_contents(10)")
    finish_all(sql)
    batch.wait(5)
    assert sql("SELECT encode(content_hash, 'hex') FROM pgclip.embedding_set") == [
        (hashlib.sha256(b"three").hexdigest(),)
    ]


def test_a_rolled_back_transaction_leaves_nothing(database_url: str, sql: Sql) -> None:
    connection = psycopg2.connect(database_url)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pgclip.submit_text('hello', key => 'k', collection => 'c')")
        cursor.execute("SELECT pgclip.submit_image(source => 'file:///x.jpg')")
    connection.rollback()
    connection.close()
    for table in ("item", "job", "content", "collection"):
        assert sql(f"SELECT count(*) FROM pgclip.{table}") == [(0,)], table


def test_sql_alone(client: Client, sql: Sql) -> None:
    sql("SELECT pgclip.submit_image(key => 'cat-1', source => 'https://x.org/a.jpg',"
        " metadata => '{\"price\": 9}')")  # fmt: skip
    sql("SELECT pgclip.submit_text(key => 'note-7', body => 'a black cat asleep')")
    assert client.get("cat-1").metadata == {"price": 9}
    assert client.get("note-7").kind == "text"
    with pytest.raises(psycopg2.Error, match="the text is empty") as caught:
        sql("SELECT pgclip.submit_text('')")
    assert caught.value.pgcode == "PC001"
    with pytest.raises(psycopg2.Error, match="exactly one of content and source"):
        sql("SELECT pgclip.submit_image(key => 'k')")
    assert sql("SELECT pgclip.delete('note-7')") == [(True,)]
    assert sql("SELECT pgclip.delete('note-7')") == [(False,)]


def test_items_submitted_before_any_model_get_jobs_when_it_comes(
    new_database: Callable[[], str], services: Any
) -> None:
    from conftest import run_sql

    url = new_database()
    with Client(database_url=url, redis_url=services.redis_url) as client:
        client.submit_text("early", key="k")
        assert client.get("k").state == "queued"
    run_sql(url, "SELECT pgclip.register_model('m', 2, 10, '{\"fatal\": {}}')")
    assert run_sql(url, JOBS) == [(1,)]


def test_without_redis_submissions_are_accepted(database_url: str) -> None:
    with Client(database_url=database_url, redis_url="redis://127.0.0.1:1/0") as client:
        client.submit_text("hello", key="k")
        assert client.get("k").state == "queued"


def test_a_source_too_long_to_be_a_key(client: Client, sql: Sql) -> None:
    long = "https://example.org/" + "x" * 1100
    with pytest.raises(InvalidItem, match="can't be the key; give one"):
        client.submit_image(long)
    batch = client.submit_many([{"image": long}, {"image": long, "key": "k"}, {"text": "t"}])
    assert (batch.accepted, len(batch.refused)) == (2, 1)


def test_refused_bulk_items_leave_no_content(client: Client, sql: Sql) -> None:
    client.submit_many([{"text": "refused", "key": "k" * 2000}, {"text": "kept", "key": "k"}])
    sql("SELECT pgclip.collect_contents(100)")
    assert sql("SELECT convert_from(data, 'UTF8') FROM pgclip.content") == [("kept",)]


def test_a_backslash_is_no_nul(client: Client) -> None:
    client.submit_text("x", key="k", metadata={"path": "C:\\u0000"})
    assert client.get("k").metadata == {"path": "C:\\u0000"}
