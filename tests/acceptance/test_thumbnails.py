"""Thumbnails as a worker makes them: with the vectors, or later, when somebody asks."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from PIL import Image
from support.pictures import encoded, jpeg, noise
from support.processes import WorkerFactory, eventually

from pgclip import Client, ItemFailed, NotFound

Sql = Callable[..., list[Any]]


def test_they_come_with_the_vectors(
    client: Client, database_url: str, start_worker: WorkerFactory, sql: Sql, tmp_path: Path
) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(1, 800, 600))
    start_worker(database_url, PGCLIP_THUMBNAILS="100", PGCLIP_ROOTS=str(tmp_path))
    batch = client.submit_many([
        {"image": jpeg(2, 600, 800), "key": "inline"},
        {"image": jpeg(2, 600, 800), "key": "same"},
        {"image": encoded(noise(3, 50, 40), "PNG"), "key": "small"},
        {"image": tmp_path / "a.jpg", "key": "file"},
        {"image": jpeg(4), "key": "unkept", "keep_source": False},
        {"image": b"no picture", "key": "broken"},
        {"text": "a text", "key": "text"},
    ])  # fmt: skip
    with pytest.raises(ItemFailed, match="broken"):
        batch.wait(60)
    eventually(lambda: sql("SELECT count(*) FROM pgclip.thumbnails") == [(4,)])
    sizes = {
        key: Image.open(io.BytesIO(client.thumbnail(key))).size
        for key in ("inline", "same", "small", "file")
    }
    assert sizes == {"inline": (75, 100), "same": (75, 100), "small": (50, 40), "file": (100, 75)}
    for key in ("unkept", "broken", "text", "nobody"):
        with pytest.raises(NotFound, match=key):
            client.thumbnail(key)
    hits = client.search("a text", kind="image", k=10)
    small = client.thumbnails(hits)
    assert {hit.key for hit in hits if hit.item_id in small} == set(sizes)


def test_lacking_ones_are_made_when_somebody_asks(
    client: Client, database_url: str, start_worker: WorkerFactory, sql: Sql, tmp_path: Path
) -> None:
    file, changed = tmp_path / "a.jpg", tmp_path / "b.jpg"
    file.write_bytes(jpeg(1))
    changed.write_bytes(jpeg(2))
    first = start_worker(database_url, PGCLIP_THUMBNAILS="0", PGCLIP_ROOTS=str(tmp_path))
    client.submit_many([
        *({"image": jpeg(10 + n), "key": f"k{n}"} for n in range(40)),
        {"image": file, "key": "file"},
        {"image": changed, "key": "changed"},
        {"image": jpeg(3), "key": "unkept", "keep_source": False},
    ]).wait(60)  # fmt: skip
    assert sql("SELECT count(*) FROM pgclip.thumbnail") == [(0,)]
    first.kill()
    first.wait()
    changed.write_bytes(jpeg(5))
    start_worker(database_url, PGCLIP_ROOTS=str(tmp_path))
    client.heal()
    eventually(lambda: sql("SELECT 1 FROM pgclip.thumbnail_walk") == [])
    there = {key for (key,) in sql("SELECT key FROM pgclip.thumbnails")}
    assert there == {*(f"k{n}" for n in range(40)), "file"}
    assert sql("SELECT count(*) FROM pgclip.thumbnail WHERE data IS NULL") == [(1,)]
    client.submit_image(changed, key="changed").wait(60)
    eventually(lambda: sql("SELECT 1 FROM pgclip.thumbnails WHERE key = 'changed'") != [])


def test_the_kept_twin_of_one_that_is_not_kept_gets_one(
    client: Client, database_url: str, start_worker: WorkerFactory, sql: Sql
) -> None:
    start_worker(database_url)
    client.submit_image(jpeg(1), key="unkept", keep_source=False).wait(60)
    assert sql("SELECT count(*) FROM pgclip.thumbnail") == [(0,)]
    client.submit_image(jpeg(1), key="kept").wait(60)
    eventually(lambda: sql("SELECT count(*) FROM pgclip.thumbnails") == [(2,)])
    assert client.thumbnail("kept")


def test_somebody_who_holds_items_for_long_holds_up_no_vectors(
    client: Client, database_url: str, start_worker: WorkerFactory, sql: Sql
) -> None:
    start_worker(database_url)
    client.submit_image(jpeg(1), key="a").wait(60)
    with psycopg2.connect(database_url) as other, other.cursor() as cursor:
        cursor.execute("SELECT FROM pgclip.thumbnail FOR UPDATE")
        cursor.execute("DELETE FROM pgclip.thumbnail")
        client.submit_many([{"image": jpeg(1), "key": "b"}, {"image": jpeg(2), "key": "c"}]).wait(
            60
        )
        other.rollback()
    other.close()
    assert client.count()["done"] == 3


def test_what_was_stored_before_another_was_refused_has_its_thumbnail(
    client: Client, database_url: str, sql: Sql, start_worker: WorkerFactory
) -> None:
    batch = client.submit_many({"image": jpeg(n), "key": str(n)} for n in range(3))
    sql("""
        CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF (SELECT key = '2' FROM pgclip.item WHERE id = NEW.item_id) THEN
                RAISE EXCEPTION 'not this one (planted)' USING ERRCODE = '42501';
            END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER planted BEFORE INSERT ON pgclip.embedding_set
        FOR EACH ROW EXECUTE FUNCTION public.refuse()
    """)
    start_worker(database_url)
    eventually(lambda: len(client.thumbnails([1, 2, 3])) == 2)
    assert batch.counts()["done"] == 2  # the third is waited for, and nobody heals anything
    sql("DROP TRIGGER planted ON pgclip.embedding_set")
    batch.wait(60)
    eventually(lambda: len(client.thumbnails([1, 2, 3])) == 3)
