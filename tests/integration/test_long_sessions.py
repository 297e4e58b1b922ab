"""What a session does costs the same however much has come since it began."""

from collections.abc import Callable
from typing import Any

import pytest
from support.hand import NewHand

Sql = Callable[..., list[Any]]
pytestmark = pytest.mark.usefixtures("model")


def test_a_session_that_began_while_tables_were_small_does_not_read_them_whole(
    sql: Sql, hand: NewHand
) -> None:
    tables = ("item", "job", "failure", "embedding_set", "item_label", "content")
    for table in tables:  # whose statistics would have it planned anew
        sql(f"ALTER TABLE pgclip.{table} SET (autovacuum_enabled = off)")
    here = hand()

    def submit_some(first: int, count: int) -> None:
        keys = [f"k{n}" for n in range(first, first + count)]
        here.sql(
            "SELECT count(*) FROM pgclip.submit_batch(%s, %s, %s, %s, %s, %s, %s, %s)",
            ["text"] * count, keys, [key.encode() for key in keys], [None] * count,
            ["default"] * count, ["{}"] * count, [0] * count, [True] * count,
        )  # fmt: skip

    actions: list[Callable[[int], object]] = [
        lambda n: submit_some(n, 1),
        lambda n: submit_some(n, 1),  # as it was
        lambda _: here.store(*here.claim(1)),
        lambda n: submit_some(n + 1, 1),
        lambda _: here.fail("bad"),
        lambda n: here.sql(f"SELECT pgclip.retry(keys => '{{k{n + 1}}}')"),
        lambda n: here.sql(f"SELECT pgclip.delete('k{n}')"),
    ]
    submit_some(0, 1000)
    here.store(*here.claim(1000))
    for round_ in range(8):
        for act in actions:
            act(2000 + 10 * round_)
    submit_some(10_000, 20_000)
    here.store(*here.claim(15_000))
    here.claim(500)  # leased; the rest is queued
    read = """
        SELECT relname, seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_user_tables
        WHERE schemaname = 'pgclip'
    """
    for number, act in enumerate(actions):
        here.sql("SELECT pg_stat_force_next_flush()")
        before = dict(here.sql(read))
        act(50_000)
        here.sql("SELECT pg_stat_force_next_flush()")
        much = {t: n - before[t] for t, n in here.sql(read) if n - before[t] > 1000}
        assert not much, number
