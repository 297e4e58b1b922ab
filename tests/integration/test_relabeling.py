"""Items are labelled anew by themselves when a set has changed, from the vectors they have."""

import json
from collections.abc import Callable
from typing import Any

import psycopg2
import pytest
from support.commands import pgclip
from support.hand import Hand
from support.processes import WorkerFactory, eventually

from pgclip import Client, InvalidItem, NotFound
from pgclip.local import LocalServices

Sql = Callable[..., list[Any]]


def submit(client: Client, count: int, **more: Any) -> None:
    client.submit_many(
        [{"text": f"text {n}", "key": f"{n}", **more} for n in range(count)]
    ).wait(60)  # fmt: skip


def scores(sql: Sql, name: str) -> dict[tuple[str, str], tuple[float, bool, int]]:
    rows = sql("SELECT key, label, score, current, version FROM pgclip.labels WHERE set = %s", name)
    return {(key, label): tuple(rest) for key, label, *rest in rows}  # type: ignore[misc]


def test_by_themselves_and_only_what_has_changed(
    client: Client, sql: Sql, database_url: str, start_worker: WorkerFactory
) -> None:
    start_worker(database_url)
    client.define_label_set("size", ["big", "small"], threshold=0)
    submit(client, 50)
    client.define_label_set("colour", ["red", "blue"], threshold=0)
    eventually(lambda: client.missing() == [])
    assert len(scores(sql, "colour")) == 100
    before, rows = scores(sql, "size"), "SELECT ctid, xmin FROM pgclip.item_label ORDER BY 1"
    written = sql(rows)
    client.define_label_set("size", ["big", "small"], threshold=0)  # the same once more
    assert client.missing() == []
    client.define_label_set("size", ["big", "small"], threshold=0, top_k=2)
    eventually(lambda: client.missing() == [])
    after = scores(sql, "size")
    assert {one: (score, current) for one, (score, current, _) in after.items()} == {
        one: (score, True) for one, (score, _, _) in before.items()
    }  # fmt: skip
    assert sql(rows) == written  # what is the same was not written again
    assert [one.version for one in client.label_sets() if one.name == "size"] == [2]


def test_put_off_stopped_and_told(
    client: Client, sql: Sql, database_url: str, services: LocalServices,
    start_worker: WorkerFactory,
) -> None:  # fmt: skip
    worker = start_worker(database_url)
    submit(client, 20)
    client.define_label_set("size", ["big", "small"], threshold=0, relabel=False)
    assert sql("SELECT * FROM pgclip.relabelings") == []
    assert {one.reason for one in client.missing()} == {"outdated"}
    client.submit_text("new", key="new").wait(60)
    assert {key for key, _ in scores(sql, "size")} == {"new"}
    worker.process.terminate()
    worker.process.wait(60)
    client.relabel("size")
    told = json.loads(pgclip("status", "--json", PGCLIP_DATABASE_URL=database_url,
                             PGCLIP_REDIS_URL=services.redis_url).stdout)  # fmt: skip
    assert told["relabelings"] == [{"model": "planted", "labelled": 0, "share": 0.0}]
    assert {one.reason for one in client.missing()} == {"queued"}
    client.relabel("size", stop=True)
    start_worker(database_url)
    eventually(lambda: sql("SELECT * FROM pgclip.relabelings") == [])
    assert len(client.missing()) == 20
    client.relabel("size")
    eventually(lambda: client.missing() == [])
    assert len(scores(sql, "size")) == 42
    with pytest.raises(NotFound, match="there is no label set nothing"):
        client.relabel("nothing")


def test_sets_of_collections(
    client: Client, sql: Sql, database_url: str, start_worker: WorkerFactory
) -> None:
    start_worker(database_url)
    client.define_label_set("size", ["big", "small"], threshold=0, collections=["shop", "later"])
    submit(client, 3)
    submit(client, 3, collection="shop")

    def labelled() -> set[str]:
        return {name for (name,) in sql("SELECT collection FROM pgclip.labels WHERE set = 'size'")}

    assert labelled() == {"shop"}
    client.define_label_set("size", ["big", "small"], threshold=0, collections=["default"])
    eventually(lambda: labelled() == {"default"})
    assert client.missing() == []
    client.define_label_set("size", ["big", "small"], threshold=0)
    eventually(lambda: labelled() == {"default", "shop"})


def test_a_page_goes_on_beside_stores(sql: Sql, hand: Callable[..., Hand], model: None) -> None:
    """Items that a transaction has locked are waited for; the next worker takes none meanwhile."""
    sql("SELECT pgclip.submit_text('text ' || n, key => n::text) FROM generate_series(1, 5) n")
    one = hand()
    one.store(*one.claim())
    sql("SELECT pgclip.define_label_set('size', ARRAY['big', 'small'])")
    assert sql("SELECT labelled, share FROM pgclip.relabelings") == [(0, 0)]
    due = "SELECT count(*) FROM pgclip.labels_due(1::smallint, 3)"
    assert sql(due) == [(3,)]
    assert sql("SELECT labelled, round(share::numeric, 1) FROM pgclip.relabelings")[0][0] == 3
    assert sql(due) == [(2,)]
    assert sql(due) == [(3,)]  # nobody stored their labels: once more from the beginning


@pytest.mark.parametrize(
    ("labels", "changes", "message"),
    [
        (["one"], {}, "at least two labels"),
        (["a", "b"], {"background": ["c", "c"]}, "all different"),
        (["a"], {"background": ["A"]}, "at least two labels"),  # that is the label
        (["a", "b"], {"background": ["B"], "exclusive": False}, "background that is none of"),
        (["a", "b"], {"background": "rare"}, 'background is "common" or a list'),
        (["a", "b"], {"templates": "nine"}, "templates are named one, seven or eighty"),
        ({"a": ["c"], "b": [""]}, {}, "forms as"),
        ({"a": "c"}, {}, "is a list of texts"),
        (["a", "b"], {"collections": "shop"}, "collections is a list of texts"),
        (["a", "b"], {"exclusive": "yes"}, "exclusive is True or False"),
        (["a" + str(n) for n in range(10_001)], {}, "at most 10,000"),
    ],
)
def test_definitions_that_make_no_sense(
    client: Client, labels: Any, changes: Any, message: str
) -> None:
    with pytest.raises(InvalidItem, match=message):
        client.define_label_set("bad", labels, **changes)
    assert "bad" not in {one.name for one in client.label_sets()}


def test_what_a_definition_says(client: Client, sql: Sql) -> None:
    client.define_label_set(
        "rooms", {"sofa": ["couch", "settee"], "chair": []}, templates="eighty", exclusive=False,
        background=["wall"], collections=["shop"], relabel=False,
    )  # fmt: skip
    (rooms,) = [one for one in client.label_sets() if one.name == "rooms"]
    assert rooms.labels == ("sofa", "chair")
    assert rooms.forms == {"sofa": ("couch", "settee")}
    assert len(set(rooms.templates)) == 80
    assert (rooms.exclusive, rooms.background, rooms.collections, rooms.relabel, rooms.taught) == (
        False, ("wall",), ("shop",), False, 0
    )  # fmt: skip
    client.define_label_set("one", ["alone"], exclusive=False)
    (one,) = [each for each in client.label_sets() if each.name == "one"]
    assert len(one.background) == 250
    unknown = (
        """SELECT pgclip.define_label_set('x', ARRAY['a', 'b'], forms => '{"bed": ["cot"]}')"""
    )
    with pytest.raises(psycopg2.Error, match="label 'bed', which forms are given of"):
        sql(unknown)
