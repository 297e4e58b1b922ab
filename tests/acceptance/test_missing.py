"""What lacks a current vector or label, why, and how it is healed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.pictures import jpeg
from support.processes import WorkerFactory, WorkerProcess, eventually

from pgclip import Client, Healed, Missing
from pgclip.local import LocalServices

Sql = Callable[..., list[Any]]
WEATHER = ["sunny", "rainy", "snowy"]


@pytest.fixture
def start_worker(start_worker: WorkerFactory, sql: Sql) -> Callable[..., WorkerProcess]:
    """Workers whose steward has gone through all items for the model."""

    def start(*given: Any, **environ: str) -> WorkerProcess:
        worker = start_worker(*given, **environ)
        eventually(lambda: sql("SELECT count(*) FROM pgclip.model_walk") == [(0,)])
        return worker

    return start


def reasons(client: Client) -> dict[tuple[str, str | None], str]:
    """By key and label set."""
    return {(found.key, found.label_set): found.reason for found in client.missing()}


def labels_in(sql: Sql, key: str, name: str) -> list[tuple[str, float, bool]]:
    return sql("SELECT label, score, current FROM pgclip.labels WHERE key = %s AND set = %s "
               "ORDER BY label", key, name)  # fmt: skip


def test_vectors_that_are_missing_and_why(
    client: Client, database_url: str, start_worker: WorkerFactory, sql: Sql
) -> None:
    start_worker(database_url)
    client.submit_text("done", key="done").wait(60)
    client.submit_text("fail", key="failed")
    eventually(lambda: reasons(client) == {("failed", None): "encoding_failed"})
    (failed,) = client.missing()
    assert failed.collection == "default"
    assert (failed.model, failed.kind) == ("planted", "text")
    assert failed.error is not None
    assert "the model failed" in failed.error
    # Somebody's hand took a job and a vector away.
    sql("DELETE FROM pgclip.failure")
    sql("DELETE FROM pgclip.embedding_set")
    assert reasons(client) == dict.fromkeys([("done", None), ("failed", None)], "never_queued")
    assert client.missing(collection="another") == []
    assert len(client.missing(limit=1)) == 1
    assert client.heal() == Healed(jobs=2, relabeled=0)
    eventually(lambda: reasons(client) == {("failed", None): "encoding_failed"})
    # What failed is left alone, what is whole stays so.
    assert client.heal() == Healed(jobs=0, relabeled=0)


def test_what_waits_is_missing_and_will_come(
    client: Client, sql: Sql, database_url: str, start_worker: WorkerFactory
) -> None:
    start_worker(database_url)
    client.submit_text("sleep 3", key="a")
    eventually(lambda: reasons(client) == {("a", None): "leased"})
    client.submit_text("another", key="a")
    assert client.heal().jobs == 0
    eventually(lambda: reasons(client) == {})
    # A model beside it, for which no worker runs.
    sql("SELECT pgclip.add_model('second')")
    (found,) = client.missing()
    assert (found.model, found.reason) == ("second", "queued")


def test_healing_goes_through_pages(
    client: Client, database_url: str, start_worker: WorkerFactory, sql: Sql
) -> None:
    start_worker(database_url).kill(signal.SIGSTOP)
    for n in range(5):
        client.submit_text(f"text {n}")
    sql("DELETE FROM pgclip.job")
    pages, last = [], 0
    while last is not None:
        ((jobs, last),) = sql('SELECT jobs, last_id FROM pgclip.heal(%s, "limit" => 2)', last)
        pages.append(jobs)
    assert pages == [2, 2, 1]
    assert sql("SELECT count(*) FROM pgclip.job") == [(5,)]


def test_only_labels_of_sets_for_its_kind_are_missing(
    client: Client, database_url: str, start_worker: WorkerFactory
) -> None:
    start_worker(database_url)
    client.submit_text("a text", key="a").wait(60)
    client.define_label_set("only pictures", ["cat", "dog"], applies_to="image")
    assert client.missing() == []
    assert client.heal() == Healed(jobs=0, relabeled=0)


def test_a_replaced_item_lacks_its_new_vector(
    client: Client, database_url: str, start_worker: WorkerFactory, sql: Sql
) -> None:
    start_worker(database_url)
    client.submit_text("before", key="a").wait(60)
    sql("UPDATE pgclip.item SET generation = generation + 1")
    assert reasons(client) == {("a", None): "never_queued"}
    assert client.heal().jobs == 1
    eventually(lambda: reasons(client) == {})


def test_labels_older_than_their_set_are_made_anew_from_the_vectors(
    client: Client, database_url: str, start_worker: WorkerFactory, sql: Sql
) -> None:
    start_worker(database_url)
    client.define_label_set("only pictures", ["cat", "dog"], applies_to="image", threshold=0)
    pictures = [client.submit_image(jpeg(n), key=f"picture {n}") for n in range(3)]
    texts = [client.submit_text(f"text {n}", key=f"text {n}") for n in range(3)]
    for job in (*pictures, *texts):
        job.wait(60)
    assert client.missing() == []
    stored = sql("SELECT item_id, vector_ids, stored_at FROM pgclip.embedding_set ORDER BY 1")
    before = labels_in(sql, "picture 0", "only pictures")
    client.define_label_set("weather", WEATHER, top_k=3, threshold=0, relabel=False)
    client.define_label_set(
        "only pictures", ["dog", "fox"], applies_to="image", threshold=0, relabel=False
    )
    lacking = reasons(client)
    assert lacking == {
        **{
            (f"{kind} {n}", "weather"): "outdated" for kind in ("picture", "text") for n in range(3)
        },
        **{(f"picture {n}", "only pictures"): "outdated" for n in range(3)},
    }
    assert client.heal() == Healed(jobs=0, relabeled=6)
    eventually(lambda: client.missing() == [])
    for key in ("picture 0", "text 1"):
        found = labels_in(sql, key, "weather")
        assert [label for label, _, _ in found] == sorted(WEATHER)
        assert all(current for _, _, current in found)
        assert sum(score for _, score, _ in found) == pytest.approx(1, abs=1e-5)
    after = labels_in(sql, "picture 0", "only pictures")
    assert [label for label, _, _ in before] == ["cat", "dog"]
    assert [label for label, _, _ in after] == ["dog", "fox"]
    assert labels_in(sql, "text 0", "only pictures") == []
    # Nothing was encoded or stored again.
    now = sql("SELECT item_id, vector_ids, stored_at FROM pgclip.embedding_set ORDER BY 1")
    assert now == stored
    # The same scores as an item gets that is stored from now on, but for the halves of the vectors.
    client.submit_text("text 1", key="the same").wait(60)
    anew = [score for _, score, _ in labels_in(sql, "text 1", "weather")]
    fresh = [score for _, score, _ in labels_in(sql, "the same", "weather")]
    np.testing.assert_allclose(anew, fresh, atol=2e-3)


def test_labels_of_a_set_that_is_not_active_stay(
    client: Client, database_url: str, start_worker: WorkerFactory, sql: Sql
) -> None:
    start_worker(database_url)
    client.define_label_set("weather", WEATHER, threshold=0)
    client.submit_text("a text", key="a").wait(60)
    client.define_label_set("weather", WEATHER, threshold=0, active=False)
    client.define_label_set("other", ["one", "two"], threshold=0, relabel=False)
    assert set(reasons(client)) == {("a", "other")}
    client.heal()
    eventually(lambda: client.missing() == [])
    assert len(labels_in(sql, "a", "weather")) == 3
    assert len(labels_in(sql, "a", "other")) == 2


def test_labels_are_made_anew_while_items_are_replaced_and_deleted(
    client: Client, database_url: str, start_worker: WorkerFactory, sql: Sql
) -> None:
    start_worker(database_url)
    start_worker(database_url)
    client.submit_many({"text": f"text {n}", "key": f"{n}"} for n in range(3000)).wait(120)
    client.define_label_set("weather", WEATHER, threshold=0)
    for n in range(0, 3000, 10):
        client.submit_text(f"another {n}", key=f"{n}")
        client.delete(f"{n + 1}")
        if n == 1000:
            client.define_label_set("weather", [*WEATHER, "foggy"], threshold=0, top_k=4)
    eventually(lambda: client.count()["done"] == 2700)
    eventually(lambda: client.missing() == [])
    counted = sql("SELECT count(*), count(DISTINCT item_id), bool_and(current) FROM pgclip.labels "
                  "WHERE set = 'weather'")  # fmt: skip
    assert counted == [(4 * 2700, 2700, True)]


def test_the_command(
    client: Client,
    database_url: str,
    services: LocalServices,
    start_worker: WorkerFactory,
    sql: Sql,
) -> None:
    environ = {
        "PGCLIP_DATABASE_URL": database_url,
        "PGCLIP_REDIS_URL": services.redis_url,
        "PGCLIP_MODEL": "planted",
    }

    def pgclip(*arguments: str) -> str:
        command = [sys.executable, "-m", "pgclip", *arguments]
        done = subprocess.run(
            command, env={**os.environ, **environ}, capture_output=True, text=True, check=True
        )
        return done.stdout

    start_worker(database_url)
    client.submit_text("a text", key="the key").wait(60)
    assert pgclip("missing") == "Nothing is missing.\n"
    client.define_label_set("weather", WEATHER, relabel=False)
    told = pgclip("missing")
    assert "the key" in told
    assert "labels of weather" in told
    assert "outdated" in told
    (found,) = json.loads(pgclip("missing", "--json"))
    assert Missing(**found) == client.missing()[0]
    doctor = {f["what"]: f for f in json.loads(pgclip("doctor", "--json"))}
    assert doctor["completeness"]["state"] == "warning"
    assert pgclip("missing", "--heal") == "queued: 0; to be labelled anew: 1\n"
    eventually(lambda: client.missing() == [])
    doctor = {f["what"]: f for f in json.loads(pgclip("doctor", "--json"))}
    assert doctor["completeness"]["state"] == "ok"
    sql("DELETE FROM pgclip.embedding_set")
    assert json.loads(pgclip("missing", "--heal", "--json")) == {"jobs": 1, "relabeled": 0}
