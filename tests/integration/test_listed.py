"""Lists by a filter, reasons of failures, and sizes of what is kept."""

from collections.abc import Callable
from typing import Any

import pytest
from support.processes import WorkerFactory

from pgclip import Client, InvalidItem, ItemFailed, NotFound

Sql = Callable[..., list[Any]]


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
