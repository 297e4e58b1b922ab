"""Labels taught by what people said, and checked by it, with a real worker."""

from collections.abc import Callable
from typing import Any

import pytest
from support.processes import WorkerFactory, eventually

from pgclip import Client, NotFound, QueryFailed, WaitTimeout

Sql = Callable[..., list[Any]]


def submit(client: Client, word: str, count: int, **metadata: Any) -> list[str]:
    """Texts whose vectors are near a word's; their keys."""
    keys = [f"{word} {n}" for n in range(count)]
    client.submit_many(
        [{"text": f"like {key}", "key": key, "metadata": {"is": word, **metadata}} for key in keys]
    ).wait(60)
    return keys


def given(sql: Sql, name: str) -> dict[str, set[str]]:
    """By label of a set, the first words of the items that have it now."""
    rows = sql("SELECT label, key FROM pgclip.labels WHERE set = %s AND current", name)
    found: dict[str, set[str]] = {}
    for label, key in rows:
        found.setdefault(label, set()).add(key.split(" ")[0])
    return found


def test_a_label_that_no_prompt_knows_is_taught(
    client: Client, sql: Sql, database_url: str, start_worker: WorkerFactory
) -> None:
    start_worker(database_url)
    scratched, fine = submit(client, "scratched", 40), submit(client, "fine", 40)
    client.define_label_set("defects", ["xyzzy", "plugh"], templates=["{}"], exclusive=False,
                            threshold=0.5)  # fmt: skip
    for keys, value in ((scratched, True), (fine, False)):
        for key in keys[:16]:
            client.judge("defects", "xyzzy", key, value, by="ana")
    before = client.evaluate("defects")
    report = client.teach("defects")
    assert report["examples"] == 32
    assert report["by_heads"] >= 0.9 > report["by_prompts"]
    assert report["labels"][0] == {"label": "xyzzy", "right": 16, "wrong": 16}
    eventually(lambda: given(sql, "defects") == {"xyzzy": {"scratched"}})
    assert len(sql("SELECT key FROM pgclip.labels WHERE label = 'xyzzy'")) >= 36
    after = client.evaluate("defects")
    assert after["held_out"] == 32
    assert after["accuracy"]["share"] > before["accuracy"]["share"]
    # An item that comes later is labelled by the same head.
    client.submit_text("like scratched later", key="scratched later").wait(60)
    assert [label.name for label in client.get("scratched later").labels
            if label.set == "defects"] == ["xyzzy"]  # fmt: skip


def test_a_field_of_the_metadata_is_the_truth(
    client: Client, sql: Sql, database_url: str, start_worker: WorkerFactory
) -> None:
    start_worker(database_url)
    for word in ("cat", "dog", "car", "tree"):
        submit(client, word, 30)
    client.define_label_set(
        "things", {"cat": [], "hound": ["dog"], "car": []}, templates=["{}!"], threshold=0
    )
    report = client.teach("things", truth="is")
    assert report["examples"] == 120
    assert {one["label"]: one["right"] for one in report["labels"]} == {
        "cat": 30, "hound": 30, "car": 30
    }  # fmt: skip
    found = client.evaluate("things", truth="is")
    assert found["held_out"] == 120
    assert found["recall"]["share"] >= 0.9
    assert found["recall"]["of"] == 90
    assert found["none"]["share"] == 1  # of no label, and something has to win
    assert {one["label"] for one in found["labels"]} == {"cat", "hound", "car"}
    with pytest.raises(QueryFailed, match="no item has a text in field 'nothing'"):
        client.evaluate("things", truth="nothing")


def test_judgements_are_of_contents_and_people(
    client: Client, sql: Sql, database_url: str, start_worker: WorkerFactory
) -> None:
    start_worker(database_url)
    client.define_label_set("weather", ["sunny", "rainy"])
    (key,) = submit(client, "day", 1)
    client.judge("weather", "sunny", key, by="ana")
    client.judge("weather", "sunny", key, False, by="ben")
    client.judge("weather", "rainy", key, False)
    assert [(one.judge, one.label, one.value, one.counts) for one in client.judgements("weather")
            ] == [("ana", "sunny", True, True), ("ben", "sunny", False, True),
                  ("postgres", "rainy", False, True)]  # fmt: skip
    report = client.teach("weather")
    assert (report["examples"], report["disagreed"]) == (1, 1)
    client.judge("weather", "sunny", key, True, by="ben")
    client.judge("weather", "sunny", key, None, by="ana")
    assert [(one.judge, one.value) for one in client.judgements("weather")] == [
        ("postgres", False), ("ben", True)
    ]  # fmt: skip
    # Left out of its set a label keeps them, and has them when it comes back.
    client.define_label_set("weather", ["rainy", "snowy"])
    assert [one.is_archived for one in client.judgements("weather")] == [False, True]
    assert client.label_sets()[-1].labels == ("rainy", "snowy")
    client.define_label_set("weather", ["sunny", "rainy"])
    assert [one.is_archived for one in client.judgements("weather")] == [False, False]
    # Other content is another thing.
    client.submit_text("like night", key=key).wait(60)
    assert {one.counts for one in client.judgements()} == {False}
    with pytest.raises(QueryFailed, match="nobody has judged what is stored now"):
        client.teach("weather")
    client.delete(key)
    assert client.judgements() == []


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("nothing", "sunny", "day 0"), NotFound, "label set nothing has no label sunny"),
        (("weather", "air", "day 0"), NotFound, "has no label air"),  # of the background
        (("weather", "sunny", "day 9"), NotFound, "there is no item day 9"),
        (("weather", "sunny", "failed"), QueryFailed, "item failed has no vector yet"),
    ],
)
def test_judgements_that_can_t_be_taken(
    client: Client, database_url: str, start_worker: WorkerFactory,
    arguments: Any, error: type[Exception], message: str,
) -> None:  # fmt: skip
    start_worker(database_url)
    client.define_label_set("weather", ["sunny", "rainy"], background="common")
    submit(client, "day", 1)
    client.submit_text("fail", key="failed")
    eventually(lambda: client.count()["failed"] == 1)
    with pytest.raises(error, match=message):
        client.judge(*arguments)
    assert client.judgements() == []


def test_many_at_once_each_for_itself(
    client: Client, database_url: str, start_worker: WorkerFactory
) -> None:
    start_worker(database_url)
    client.define_label_set("weather", ["sunny", "rainy"])
    keys = submit(client, "day", 3)
    one = {"set": "weather", "label": "sunny", "value": True, "judge": "ana"}
    refused = client.judge_many(
        [
            {**one, "key": keys[0]},
            {**one, "key": "nobody"},
            {**one, "key": keys[1], "value": "perhaps"},
            {**one, "key": keys[1], "content_hash": "00"},
            {**one, "key": keys[1], "judged_at": "2020-02-30"},
            {"set": "weather"},
            {**one, "key": keys[2], "judged_at": "2020-02-29T12:00:00+00:00", "value": "no"},
        ]
    )
    assert [place for place, _ in refused] == [2, 3, 4, 5, 6]
    assert "other content than that which was judged" in refused[2][1]
    found = client.judgements()
    assert [(each.key, each.value) for each in found] == [(keys[2], False), (keys[0], True)]
    assert client.judge_many(found) == []
    assert client.judgements() == found


def test_without_a_worker_it_says_so(client: Client, sql: Sql) -> None:
    sql("SELECT pgclip.register_model('demo', 4, 100, '{}')")
    with pytest.raises(WaitTimeout, match="no worker has done it within"):
        client.evaluate("general", timeout=0.2)
    with pytest.raises(NotFound, match="there is no label set nothing"):
        client.teach("nothing")


def test_another_model_learns_the_same(
    client: Client, sql: Sql, database_url: str, start_worker: WorkerFactory
) -> None:
    start_worker(database_url)
    client.define_label_set("defects", ["xyzzy", "plugh"], templates=["{}"], exclusive=False)
    for word, value in (("scratched", True), ("fine", False)):
        for key in submit(client, word, 8):
            client.judge("defects", "xyzzy", key, value)
    client.teach("defects")
    sql("SELECT pgclip.add_model('second')")
    start_worker(database_url, PGCLIP_MODEL_NAME="second", PLANTED_WEIGHTS="other")
    eventually(
        lambda: sql(
            "SELECT count(*) FROM pgclip.label_teaching t JOIN pgclip.model m ON m.id = model_id "
            "WHERE m.name = 'second'"
        ) == [(1,)], 60
    )  # fmt: skip
    heads = "SELECT count(*) FROM pgclip.label_head GROUP BY model_id"
    assert len(set(sql(heads))) == 1
    assert len(sql(heads)) == 2
