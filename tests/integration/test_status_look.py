"""What `pgclip status` reads: failures and rate are the live model's."""

from collections.abc import Callable
from typing import Any

import pytest
from support.changing import hand_of, register, walk
from support.hand import NewHand, submit

from pgclip.cli.status import look
from pgclip.database import Database

pytestmark = pytest.mark.usefixtures("model")


def test_another_model_that_is_filled_counts_for_nothing(
    sql: Callable[..., list[Any]], hand: NewHand, database_url: str
) -> None:
    submit(sql, "a", "b", "c")
    first = hand()
    first.fail("bad")
    first.store(*first.claim())
    sql("SELECT pgclip.add_model('other')")
    register(sql)
    walk(sql)
    other = hand_of(hand, 2)
    other.fail("bad")
    other.fail("worse")
    dead = hand()
    dead.die()
    for worker, rate in (first, 2.5), (other, 40), (dead, 7):
        sql("UPDATE pgclip.worker SET rate = %s WHERE id = %s", rate, worker.id)
    database = Database(database_url, pool_size=1)
    found = look(database)
    database.close()
    assert found.failed == {"bad": 1}
    assert found.rate == 2.5
    assert found.items == {"queued": 0, "leased": 0, "done": 2, "failed": 1}
    assert {model["name"]: model["failures"] for model in found.models} == {"m": 1, "other": 2}
