"""Models that come and go, by hand."""

from collections.abc import Callable
from typing import Any

from support.hand import Hand, NewHand

Sql = Callable[..., list[Any]]


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
