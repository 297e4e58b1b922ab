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
    found = client.evaluate("weather")
    assert (found["examples"], found["disagreed"]) == (1, 1)
    with pytest.raises(QueryFailed, match="there is nothing to compare"):
        client.teach("weather")
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
            {**one, "key": keys[1], "judged_at": "20000-01-01"},
            {**one, "key": keys[1] + "\0"},
            {**one, "key": 5},
            5,
            {**one, "key": keys[2], "judged_at": "2020-02-29T12:00:00+00:00", "value": "no"},
        ]
    )
    assert [place for place, _ in refused] == [*range(2, 11)]
    assert "a judgement was made in the past" in refused[5][1]
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


def test_another_model_learns_as_soon_as_what_was_judged_is_there(
    client: Client, sql: Sql, database_url: str, start_worker: WorkerFactory
) -> None:
    """Other items may go on waiting: a busy system never has an empty queue."""
    worker = start_worker(database_url)
    client.define_label_set("things", ["cat", "dog"])
    judged, other = submit(client, "cat", 2)
    client.judge("things", "cat", judged)
    client.teach("things")
    worker.process.terminate()
    worker.process.wait(60)
    sql("""SELECT pgclip.add_model('second');
        SELECT pgclip.register_model('second', 16, 10, '{"fatal": {}}');
        DELETE FROM pgclip.model_walk; DELETE FROM pgclip.job""")
    (second,) = sql("SELECT id FROM pgclip.model WHERE name = 'second'")[0]
    taken = "SELECT what FROM pgclip.take_label_task(%s::smallint, 1)"
    for key in (judged, other):
        sql("""INSERT INTO pgclip.job (item_id, model_id, generation, kind, content_hash, rank)
               SELECT id, %s, generation, kind, content_hash, now() FROM pgclip.item
               WHERE key = %s""", second, key)  # fmt: skip
    assert sql(taken, second) == []
    sql("""INSERT INTO pgclip.embedding_set
                  (item_id, model_id, generation, kind, content_hash, vector_ids)
           SELECT e.item_id, %s, e.generation, e.kind, e.content_hash, e.vector_ids
           FROM pgclip.embedding_set e JOIN pgclip.item i ON i.id = e.item_id
           WHERE i.key = %s""", second, judged)  # fmt: skip
    assert sql(taken, second) == [("teach",)]


def taught(sql: Sql) -> list[tuple[str, int]]:
    """Of each set that was taught its name and which teaching it has learnt."""
    return sql("SELECT s.name, t.teaching FROM pgclip.label_teaching t JOIN pgclip.label_set s "
               "ON s.id = t.set_id WHERE t.words_version = s.words_version")  # fmt: skip


def test_a_taught_set_with_other_words_is_taught_again(
    client: Client, sql: Sql, database_url: str, start_worker: WorkerFactory
) -> None:
    start_worker(database_url)
    keys = {word: submit(client, word, 12) for word in ("cat", "dog", "car")}
    define = {"templates": ["{}!"], "threshold": 0, "background": ["air", "sun"]}
    client.define_label_set("things", ["cat", "dog"], **define)
    for word in ("cat", "dog", "car"):
        for key in keys[word][:6]:
            if word != "car":
                client.judge("things", word, key)
    client.teach("things")
    assert taught(sql) == [("things", 1)]
    first = client.evaluate("things", truth="is", sample=1000)
    client.define_label_set("things", ["car", "dog", "cat"], **define)
    eventually(lambda: taught(sql) == [("things", 2)])
    for key in keys["car"][:6]:
        client.judge("things", "car", key)
    again = client.evaluate("things")
    assert (again["examples"], again["held_out"], again["left_out"]) == (18, 12, 0)
    report = client.teach("things")
    assert report["examples"] == 18
    last = client.evaluate("things", truth="is")
    assert last["held_out"] == 18
    assert last["accuracy"]["share"] >= first["accuracy"]["share"]
    # What does not concern words leaves the teaching as it is.
    client.define_label_set("things", ["car", "dog", "cat"], **{**define, "threshold": 0.1})
    assert taught(sql) == [("things", 3)]
    for changes in ({"exclusive": False}, {"templates": ["a {}"]}, {"background": ["air"]}):
        client.define_label_set("things", ["car", "dog", "cat"], **{**define, **changes})
        assert taught(sql) == []
        (latest,) = sql("SELECT teaching FROM pgclip.label_set WHERE name = 'things'")
        eventually(lambda latest=latest: taught(sql) == [("things", *latest)])
        client.evaluate("things")


def test_lessons_that_are_gone(
    client: Client, database_url: str, start_worker: WorkerFactory
) -> None:
    """What taught the heads judges them only where it is known what it taught."""
    start_worker(database_url)
    keys = [*submit(client, "cat", 10), *submit(client, "dog", 10)]
    client.define_label_set("things", ["cat", "dog"], templates=["{}!"], threshold=0)
    for key in keys[5:15]:
        client.judge("things", key.split(" ")[0], key)
    client.teach("things")
    found = client.evaluate("things", truth="is")
    assert (found["examples"], found["held_out"], found["left_out"]) == (20, 10, 0)
    for key in keys[5:10]:
        client.judge("things", "cat", key, None)
    found = client.evaluate("things", truth="is")
    assert (found["examples"], found["held_out"], found["left_out"]) == (15, 5, 5)
    for key in keys[10:15]:
        client.judge("things", "dog", key, None)
    found = client.evaluate("things", truth="is")
    assert (found["examples"], found["held_out"], found["left_out"]) == (10, 0, 10)


def test_one_content_of_two_items(
    client: Client, database_url: str, start_worker: WorkerFactory
) -> None:
    start_worker(database_url)
    client.define_label_set("weather", ["sunny", "rainy"])
    for key in ("a", "b"):
        client.submit_text("like day", key=key).wait(60)
        client.judge("weather", "sunny", key, by="ana")
    assert client.evaluate("weather")["recall"]["of"] == 1
    client.judge("weather", "sunny", "b", False, by="ana")
    assert client.evaluate("weather")["recall"]["of"] == 0  # her last word
    client.submit_text("like night", key="b").wait(60)
    assert client.evaluate("weather")["recall"]["of"] == 1
    client.judge("weather", "rainy", "a", by="ben")  # of two that exclude each other
    assert client.evaluate("weather")["disagreed"] == 1


def test_tasks_that_fail_end(
    client: Client, sql: Sql, database_url: str, start_worker: WorkerFactory
) -> None:
    start_worker(database_url)
    client.define_label_set("weather", ["sunny", "rainy"])
    (key,) = submit(client, "day", 1)
    with pytest.raises(QueryFailed, match="nobody has judged"):
        client.teach("weather")
    client.judge("weather", "sunny", key)
    # Another's, who died, is taken at once; a third time that it ends with its worker is the last.
    sql("""INSERT INTO pgclip.label_task (set_id, model_id, what, sample, worker_id, attempts)
           SELECT id, 1, 'evaluate', 100, 999999, n
           FROM pgclip.label_set, generate_series(1, 3, 2) n WHERE name = 'weather'""")
    tasks = "SELECT attempts, error FROM pgclip.label_task WHERE worker_id IS NOT NULL ORDER BY id"
    eventually(lambda: sql("SELECT * FROM pgclip.label_task WHERE done_at IS NULL") == [])
    assert sql(tasks) == [
        (1, "nobody has judged what is stored now: see pgclip.judge"), (2, None),
        (3, "three workers ended while they were at it: see their logs"),
    ]  # fmt: skip
    assert taught(sql) == []  # what failed does not come by itself


def test_evaluations_that_nobody_does_are_not_heaped_up(client: Client, sql: Sql) -> None:
    sql("SELECT pgclip.register_model('demo', 4, 100, '{}')")
    for _ in range(20):
        sql("SELECT pgclip.request_evaluation('general')")
    with pytest.raises(QueryFailed, match="twenty evaluations wait already"):
        client.evaluate("general")
