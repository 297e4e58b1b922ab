"""Metadata and keys are changed without the content; a file goes by one key."""

import asyncio
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgclip import AsyncClient, Client, InvalidItem, NotFound
from pgclip.keys import file_key, file_url, url_key

Sql = Callable[..., list[Any]]
STATE = "SELECT id, generation, content_hash FROM pgclip.item WHERE key = 'k'"


@pytest.fixture
def item(client: Client, sql: Sql) -> Client:
    sql("SELECT pgclip.register_model('m', 2, 10, '{\"fatal\": {}}')")
    client.submit_text("a cat", key="k", metadata={"price": 9, "size": {"x": 1}, "name": "Tom"})
    return client


def test_fields_are_set_and_removed_and_nothing_else(item: Client, sql: Sql) -> None:
    before = sql(STATE)
    jobs = sql("SELECT * FROM pgclip.job")
    changed = item.update_metadata("k", set={"price": 10, "new": None}, remove=["size", "none"])
    assert changed == {"price": 10, "new": None, "name": "Tom"}
    assert item.get("k").metadata == changed
    assert sql("SELECT pgclip.update_metadata('k', set => '{\"a\": 1}', remove => '{new}')") == [
        ({"price": 10, "name": "Tom", "a": 1},)
    ]
    assert item.update_metadata("k", set={"a": 2}, remove=["a"])["a"] == 2
    assert sql(STATE) == before
    assert sql("SELECT * FROM pgclip.job") == jobs
    assert item.get("k").updated_at > item.get("k").created_at


def test_what_can_not_be_set(item: Client, sql: Sql) -> None:
    with pytest.raises(NotFound, match="there is no item nothing"):
        item.update_metadata("nothing", set={"a": 1})
    with pytest.raises(InvalidItem, match="at most 65536 bytes"):
        item.update_metadata("k", set={"a": "x" * 70_000})
    with pytest.raises(InvalidItem, match="remove is a list of texts, not 'price'"):
        item.update_metadata("k", remove="price")
    with pytest.raises(InvalidItem, match="the metadata is not JSON"):
        item.update_metadata("k", set={"a": object()})
    with pytest.raises(psycopg2.Error, match="must be a JSON object"):
        sql("SELECT pgclip.update_metadata('k', set => '[1]')")
    assert item.get("k").metadata["price"] == 9


def test_within_a_transaction_of_the_caller_s(item: Client, database_url: str) -> None:
    connection = psycopg2.connect(database_url)
    item.update_metadata("k", set={"price": 1}, connection=connection)
    item.rename("k", "l", connection=connection)
    assert item.get("k").metadata["price"] == 9
    connection.rollback()
    assert item.get("k").metadata["price"] == 9
    item.rename("k", "l", connection=connection)
    connection.commit()
    connection.close()
    assert item.get("l").metadata["price"] == 9


def test_from_asyncio(item: Client) -> None:
    async def change() -> None:
        urls = {name: getattr(item.settings, name) for name in ("database_url", "redis_url")}
        async with AsyncClient(**urls) as client:
            assert (await client.update_metadata("k", remove=["size"]))["price"] == 9
            await client.rename("k", "l")
            assert (await client.get("l")).metadata["price"] == 9

    asyncio.run(change())


def test_a_renamed_item_is_the_same(item: Client, sql: Sql) -> None:
    before = sql(STATE)
    item.rename("k", "l")
    assert sql(STATE.replace("'k'", "'l'")) == before
    with pytest.raises(NotFound):
        item.rename("k", "m")
    item.submit_text("another", key="m")
    with pytest.raises(InvalidItem, match="there is an item m"):
        item.rename("l", "m")
    with pytest.raises(InvalidItem, match="1 to 1024 bytes"):
        item.rename("l", "x" * 1025)


def test_submitting_merges_if_asked(item: Client) -> None:
    item.submit_text("a cat", key="k", metadata={"price": 1}, merge_metadata=True)
    merged = {"price": 1, "size": {"x": 1}, "name": "Tom"}
    assert item.get("k").metadata == merged
    batch = item.submit_many([
        {"text": "another cat", "key": "k", "metadata": {"price": 2}, "merge_metadata": True},
        {"text": "new", "key": "n", "metadata": {"a": 1}, "merge_metadata": True},
        {"text": "x", "key": "x", "merge_metadata": "yes"},
    ])  # fmt: skip
    assert [refused.key for refused in batch.refused] == ["x"]
    assert item.get("k").metadata == merged | {"price": 2}
    assert item.get("n").metadata == {"a": 1}
    item.submit_text("a cat", key="k", metadata={"price": 3})
    assert item.get("k").metadata == {"price": 3}


def test_what_is_merged_has_a_limit_too(item: Client) -> None:
    item.update_metadata("k", set={"long": "x" * 60_000})
    with pytest.raises(InvalidItem, match="with those that the item has"):
        item.submit_text("a cat", key="k", metadata={"more": "x" * 6_000}, merge_metadata=True)
    item.submit_text("a cat", key="k", metadata={"long": "x" * 60_001}, merge_metadata=True)
    about = {"metadata": {"long": "x" * 60_000}, "merge_metadata": True}
    item.submit_image(Path("/pictures/a b.jpg"), **about)
    with pytest.raises(InvalidItem, match="with those that the item has"):
        item.submit_image(Path("/pictures/a b.jpg"), **about | {"metadata": {"m": "x" * 6_000}})


def test_a_session_from_before_goes_on_submitting(item: Client, database_url: str) -> None:
    """Its temporary table lacks what is new; a pooler keeps sessions for longer than a release."""
    with psycopg2.connect(database_url) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pgclip.open_staging()")
        cursor.execute("ALTER TABLE pg_temp.staged_submission DROP COLUMN merge")
        connection.commit()
        batch = item.submit_many([{"text": "one"}, {"text": "two"}], connection=connection)
        connection.commit()
    connection.close()
    assert batch.accepted == 2


def test_renaming_waits_for_no_store_and_a_store_not_for_it(
    item: Client, database_url: str, hand: Callable[..., Any]
) -> None:
    worker = hand()
    lease, jobs = worker.claim()
    connection = psycopg2.connect(database_url)
    item.rename("k", "l", connection=connection)
    worker.sql("SET lock_timeout = '2s'")
    assert worker.store(lease, jobs) == []  # passed over, as one that is being replaced
    item.submit_text("another cat", key="l", connection=connection)
    connection.commit()
    connection.close()
    assert item.get("l").state == "queued"


def test_merging_within_a_transaction_and_in_sql(item: Client, database_url: str, sql: Sql) -> None:
    with psycopg2.connect(database_url) as connection:
        item.submit_text("a cat", key="k", metadata={"a": 1}, merge_metadata=True,
                         connection=connection)  # fmt: skip
    connection.close()
    assert item.get("k").metadata["name"] == "Tom"
    sql("SELECT pgclip.merge_batch('{text}', '{k}', ARRAY['a cat'::bytea], '{null}', '{default}',"
        " ARRAY['{\"b\": 2}'], '{0}', '{true}')")  # fmt: skip
    assert item.get("k").metadata == {"price": 9, "size": {"x": 1}, "name": "Tom", "a": 1, "b": 2}


def test_a_file_goes_by_one_key_however_it_is_spelled(
    item: Client, tmp_path: Path, sql: Sql
) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Käse 1%.jpg") for form in ("NFC", "NFD"))
    key = f"{tmp_path}/{composed}"
    spellings = [tmp_path / composed, tmp_path / "b" / ".." / decomposed, tmp_path / decomposed]
    for path in spellings:
        assert item.submit_image(path).key == key
        assert item.get(path).key == key
    batch = item.submit_many({"image": path} for path in spellings)
    assert batch.accepted == 3
    assert sql(
        "SELECT item_key FROM pgclip.submit_image(source => %s)", file_url(spellings[2])
    ) == [(key,)]
    assert item.count()["queued"] == 2  # and the text
    item.update_metadata(tmp_path / decomposed, set={"a": 1})
    item.rename(tmp_path / decomposed, tmp_path / "other.jpg")
    item.delete(tmp_path / "other.jpg")


def test_names_that_are_no_text_go_by_their_url(item: Client, tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/k\xe4tzchen.jpg"))
    key = f"file://{tmp_path}/k%E4tzchen.jpg"
    assert item.submit_image(path).key == key
    assert item.get(path).source == key


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(min_size=1, max_size=40).filter(lambda name: not {0, 47} & set(name)))
def test_the_key_of_any_name_is_the_same_in_python_and_in_sql(sql: Sql, name: bytes) -> None:
    path = Path(os.fsdecode(b"/pictures/" + name))
    if os.path.abspath(path) == str(path):  # else it is "." or ".."
        assert sql("SELECT pgclip._file_key(%s)", file_url(path)) == [(file_key(path),)]
        assert url_key(file_url(path)) == file_key(path)
