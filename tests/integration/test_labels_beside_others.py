"""Who defines, drops, reviews and judges at once waits for the others, and for no one in a ring."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
import pytest
from support.processes import WorkerFactory, eventually
from support.shelf import Shelf

from pgclip import Client, NotFound, PgclipError

Sql = Callable[..., list[Any]]
# Names in an order that is not the one in which labels are numbered: an index has them otherwise.
WORDS = ["zebra", "mouse", "ant"]


@pytest.fixture
def numbers(client: Client, sql: Sql) -> list[int]:
    """A set's labels, which lie in their table and its indexes in another order."""
    client.define_label_set("pets", WORDS)
    client.define_label_set("pets", WORDS[::-1])
    for before, after in (("zebra", "horse"), ("horse", "zebra")):  # a name is in an index
        sql("UPDATE pgclip.label SET name = %s WHERE name = %s", after, before)
    of_set = "SELECT l.id FROM pgclip.label l JOIN pgclip.label_set s ON s.id = l.set_id"
    found = sql(f"{of_set} WHERE s.name = 'pets' ORDER BY l.id")
    return [number for (number,) in found]


@pytest.fixture
def other(database_url: str) -> Iterator[Sql]:
    """One whose transaction is open."""
    connection = psycopg2.connect(database_url)
    cursor = connection.cursor()
    cursor.execute("SET lock_timeout = '5s'")

    def run(statement: str, *arguments: Any) -> list[Any]:
        cursor.execute(statement, arguments or None)
        return cursor.fetchall() if cursor.description else []

    yield run
    connection.close()


@contextmanager
def meanwhile(sql: Sql, do: Callable[[], object]) -> Iterator[list[object]]:
    """What somebody does who has to wait; done, and what came of it, at the end."""
    came: list[object] = []

    def run() -> None:
        try:
            came.append(do())
        except PgclipError as error:
            came.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    eventually(lambda: sql("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                           " AND datname = current_database()"))  # fmt: skip
    yield came
    thread.join(30)
    assert not thread.is_alive()


def lock(strength: str) -> str:
    return f"SELECT id FROM pgclip.label WHERE id = %s FOR {strength}"


@pytest.mark.parametrize(
    ("what", "strength"),
    [
        (lambda client: client.drop_label_set("pets"), "KEY SHARE"),  # as one who labels or judges
        (lambda client: client.drop_label_set("pets"), "NO KEY UPDATE"),  # as one who reviews
        (
            lambda client: client.define_label_set("pets", ["mouse", "ant", "zebra"]),
            "NO KEY UPDATE",
        ),
        (lambda client: client.promise("pets", "zebra", precision=0.9), "NO KEY UPDATE"),
    ],
    ids=["drop beside labels", "drop beside review", "define", "promise"],
)
def test_labels_are_taken_in_the_order_of_their_numbers(
    client: Client, sql: Sql, other: Sql, numbers: list[int],
    what: Callable[[Client], object], strength: str,
) -> None:  # fmt: skip
    other(lock(strength), numbers[0])
    with meanwhile(sql, lambda: what(client)) as came:
        for number in numbers[1:]:
            assert other(lock(strength), number) == [(number,)]
        other("COMMIT")
    assert not isinstance(came[0], PgclipError), came


def test_who_decides_ends_a_page_before_a_set_is_dropped(
    client: Client, sql: Sql, other: Sql, numbers: list[int]
) -> None:
    other("SELECT pgclip.decide_items(10)")
    with meanwhile(sql, lambda: client.drop_label_set("pets")) as came:
        assert other(lock("KEY SHARE"), numbers[-1]) == [(numbers[-1],)]
        other("COMMIT")
    assert came == [None]
    assert "pets" not in [one.name for one in client.label_sets()]


@pytest.mark.parametrize(
    "asked",
    [
        lambda client: client.judge("pets", "zebra", "one", by="ana"),
        lambda client: client.promise("pets", "zebra", precision=0.9),
        lambda client: client.teach("pets", timeout=5),
        lambda client: client.evaluate("pets", timeout=5),
    ],
    ids=["judge", "promise", "teach", "evaluate"],
)
def test_of_a_set_that_is_being_dropped_one_is_told_that_it_is_gone(
    client: Client, sql: Sql, other: Sql, shelf: Shelf, numbers: list[int],
    asked: Callable[[Client], object],
) -> None:  # fmt: skip
    shelf.put({"one": "one"})
    other("SELECT pgclip.drop_label_set('pets')")
    with meanwhile(sql, lambda: asked(client)) as came:
        other("COMMIT")
    assert isinstance(came[0], NotFound), came


def test_many_judgements_beside_a_drop(
    client: Client, sql: Sql, other: Sql, shelf: Shelf, numbers: list[int]
) -> None:
    shelf.put({"one": "one"})
    client.define_label_set("things", ["chair", "table"])
    other("SELECT pgclip.drop_label_set('pets')")
    judgements = [
        {"set": name, "label": label, "key": "one", "value": True, "judge": "ana"}
        for name, label in (("pets", "ant"), ("things", "chair"), ("pets", "zebra"))
    ]
    with meanwhile(sql, lambda: client.judge_many(judgements)) as came:
        other("COMMIT")
    assert [place for place, _ in came[0]] == [1, 3]  # type: ignore[attr-defined]
    assert [one.label for one in client.judgements("things")] == ["chair"]


def test_labelling_anew_goes_on_when_a_set_has_been_dropped(
    client: Client, sql: Sql, other: Sql, numbers: list[int], database_url: str,
    start_worker: WorkerFactory,
) -> None:  # fmt: skip
    """It holds items for which a store may wait that holds labels: so it does not wait."""
    worker = start_worker(database_url)
    client.submit_text("one", key="one").wait(60)
    eventually(lambda: client.missing() == [])
    other(lock("UPDATE"), numbers[0])
    sql("SELECT pgclip.define_label_set('size', '{big,small}', threshold => 0)")
    told = "a label set is being dropped; labelling anew goes on after it"
    sql("UPDATE pgclip.embedding_set SET label_epoch = 0")
    sql("UPDATE pgclip.relabeling SET after_item = 0")
    eventually(lambda: told in worker.log.read_text())
    other("COMMIT")
    eventually(lambda: client.missing() == [])
    assert {one.name for one in client.get("one").labels} >= {"big", "small"}
