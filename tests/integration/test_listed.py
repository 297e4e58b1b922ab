"""Lists by a filter, reasons of failures, and sizes of what is kept."""

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import psycopg2
import pytest
from support.databases import run_sql
from support.processes import WorkerFactory, eventually

from pgclip import Client, InvalidItem, ItemFailed, NotFound

Sql = Callable[..., list[Any]]
WAITS = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"


@pytest.fixture
def listed(client: Client, database_url: str, start_worker: WorkerFactory) -> Client:
    """Three texts that are done and one that failed; and one that waits for no worker."""
    worker = start_worker(database_url)
    batch = client.submit_many(
        {"text": text, "key": text, "metadata": {"n": n}}
        for n, text in enumerate(["one", "two", "three", "fail four"])
    )
    with pytest.raises(ItemFailed):
        batch.wait(60)
    worker.kill()
    worker.wait()
    client.submit_text("five", key="five", collection="other")
    return client


def test_by_a_filter(listed: Client) -> None:
    def keys(**conditions: Any) -> list[str]:
        return sorted(item.key for item in listed.items(**conditions))

    assert keys(filter={"n": {"ge": 1}}) == ["fail four", "three", "two"]
    assert keys(filter={"$key": {"starts_with": "f"}}, state="queued") == ["five"]
    assert keys(filter={}, collection="other") == ["five"]
    with pytest.raises(InvalidItem, match="unknown field"):
        keys(filter={"$nothing": 1})
    with pytest.raises(NotFound, match="no label"):
        keys(filter={"$label": "nothing of the kind"})


def test_reasons_and_sizes(listed: Client, sql: Sql) -> None:
    assert [(each.reason, each.items) for each in listed.failures()] == [("encoding_failed", 1)]
    listed.submit_text("not kept", key="six", keep_source=False)
    ids = dict(sql("SELECT key, id FROM pgclip.items"))
    sizes = listed.content_sizes([ids["one"], ids["fail four"], 10**12])
    assert sizes == {ids["one"]: 3, ids["fail four"]: 9}
    assert listed.content_sizes([]) == {}


def test_duplicates_go_if_nothing_has_changed(listed: Client, database_url: str) -> None:
    items = {item.key: item for item in listed.items()}
    one, two, three = (items[key] for key in ("one", "two", "three"))
    listed.update_metadata("two", set={"n": 7})
    assert listed.delete_duplicates([two], [one, three]) == []  # what was to be kept has changed
    assert listed.delete_duplicates([], [one]) == []
    assert listed.delete_duplicates([one], [two, three, one]) == [("default", "three")]
    assert listed.delete_duplicates([three], [one]) == []
    assert {item.key for item in listed.items(collection="default")} == {"one", "two", "fail four"}


def test_what_is_changed_while_duplicates_go_stays(listed: Client, database_url: str) -> None:
    items = {item.key: item for item in listed.items()}
    gone: list[tuple[str, str]] = []
    deleting = threading.Thread(
        target=lambda: gone.extend(listed.delete_duplicates([items["one"]], [items["two"]]))
    )
    with contextlib.closing(psycopg2.connect(database_url)) as user, user.cursor() as cursor:
        cursor.execute("SELECT pgclip.update_metadata('two', set => '{\"mine\": 1}')")
        deleting.start()
        eventually(lambda: run_sql(database_url, WAITS) == [(True,)])
        user.commit()
    deleting.join()
    assert gone == []
    assert listed.get("two").metadata["mine"] == 1
