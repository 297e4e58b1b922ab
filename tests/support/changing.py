"""Models that come and go, by hand."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import pytest
from support.hand import Hand, NewHand, submit

Sql = Callable[..., list[Any]]
LIVE = "SELECT name FROM pgclip.model WHERE state = 'live'"


def register(sql: Sql, name: str = "other") -> None:
    sql("SELECT pgclip.register_model(%s, 2, 10, '{\"fatal\": {}}')", name)


def walk(sql: Sql, page: int = 1000, most: int = 100_000, times: int = 20) -> None:
    """As the steward does, pass after pass."""
    for _ in range(times):
        while sql("SELECT pgclip.walk_models(%s, %s)", page, most) == [(True,)]:
            pass
        if not sql("SELECT model_id FROM pgclip.model_walk"):
            return


def hand_of(hand: NewHand, model: int) -> Hand:
    """Who works for another model than the first."""
    other = hand()
    other.sql("UPDATE pgclip.worker SET model_id = %s WHERE id = %s", model, other.id)
    return other


def learn_words(sql: Sql, model: int = 2) -> None:
    """As a worker of it does when it starts."""
    sql("SELECT pgclip.keep_label_vector(id, %s::smallint, 9, '{1,0}') FROM pgclip.label", model)
    sql("DELETE FROM pgclip.relabeling")


def work_off(worker: Hand, vector: str = "[1,0]") -> None:
    while (claimed := worker.claim())[1]:
        worker.store(*claimed, vector=vector)


def states_of_models(sql: Sql) -> dict[str, str]:
    return dict(sql("SELECT name, state FROM pgclip.models"))


def vectors(sql: Sql) -> dict[str, str]:
    return dict(sql("SELECT key, pgclip.vectors_of(id)::text FROM pgclip.item"))


@pytest.fixture
def promotable(sql: Sql, hand: NewHand) -> Hand:
    """Two items by model m, and by one that is added and could be promoted; its worker."""
    submit(sql, "a", "b")
    work_off(hand())
    sql("SELECT pgclip.add_model('other')")
    register(sql)
    walk(sql)
    other = hand_of(hand, 2)
    work_off(other, "[0,1]")
    learn_words(sql)
    return other


@pytest.fixture
def user(database_url: str) -> Iterator[Any]:
    """Somebody whose transaction stays open."""
    connection = psycopg2.connect(database_url)
    yield connection
    connection.close()


@pytest.fixture
def old_server(sql: Sql) -> None:
    """One that was not started just now, which would excuse workers."""
    sql("""CREATE OR REPLACE FUNCTION pgclip._is_served(p_model smallint) RETURNS boolean
           LANGUAGE sql VOLATILE AS $$
               SELECT EXISTS (SELECT FROM pgclip.worker w WHERE w.model_id = p_model
                              AND w.expires_at > clock_timestamp() - interval '10 min') $$""")
