"""What the autoscaler asks counts what waits."""

from collections.abc import Callable
from typing import Any

from support.deployment import (
    the,
)


def test_the_autoscaler_counts_what_waits(sql: Callable[..., list[Any]]) -> None:
    (trigger,) = the("ScaledObject")["spec"]["triggers"]
    query = trigger["metadata"]["query"]
    assert sql(query) == [(0,)]
    sql("SELECT pgclip.register_model('m', 2, 10, '{\"fatal\": {}}')")
    for number in range(3):
        sql("SELECT pgclip.submit_text(%s)", f"text {number}")
    assert sql(query) == [(3,)]
    worker = "SELECT pgclip.sign_on(1::smallint, 'h', 1, 'cpu', 'float32', 64, 60)"
    (worker_id,) = sql(worker)[0]
    sql("SELECT * FROM pgclip.claim(%s, gen_random_uuid(), 2, 1000000)", worker_id)
    assert sql(query) == [(1,)]
