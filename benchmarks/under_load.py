"""Searches beside others, with much that has no index, while that is built, and in a burst."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count

import numpy as np
import psycopg2
import truth
from asking import ask
from figures import Figure, quantile
from people import Holding
from planting import put
from truth import Found
from vectors import Floats

from pgclip.searching.segments import Maintenance

_CALLERS = 8
_HOT = 19_000  # a little less than what closes a segment
_BURST = 500  # items of a transaction
_COMPARED = 3  # in a burst, one of so many searches is compared with an exact one


def under_load(
    url: str, maintenance: Maintenance, name: str, holding: Holding, asked: Floats, best: Floats
) -> list[Figure]:
    """Of searches by texts among all. The system holds more afterwards."""
    figures = of(f"{name}, eight callers", callers(url, holding, asked, best))
    held = len(holding.kinds)
    fuller = holding.more(_HOT + 2_000)
    put(url, fuller, held, held + _HOT)
    hot = fuller_to(fuller, held + _HOT)
    best = truth.ten_best(hot, asked)
    figures += of(f"{name}, with {_HOT:,} that have no index",
                  one_after_the_other(url, hot, asked, best, lambda: True))  # fmt: skip
    put(url, fuller, held + _HOT, held + _HOT + 2_000)
    best = truth.ten_best(fuller, asked)
    with ThreadPoolExecutor(1) as pool:
        building = pool.submit(maintenance.run)
        found = one_after_the_other(url, fuller, asked, best, lambda: not building.done())
        building.result()
    figures += of(f"{name}, while these are built", found)
    return figures + in_a_burst(url, name, fuller, asked)


def callers(url: str, holding: Holding, asked: Floats, best: Floats) -> list[Found]:
    """Eight at once, each with its share of the queries."""

    def share(first: int) -> list[Found]:
        return one_after_the_other(url, holding, asked[first::_CALLERS], best[first::_CALLERS],
                                   lambda: True)  # fmt: skip

    with ThreadPoolExecutor(_CALLERS) as pool:
        return [each for found in pool.map(share, range(_CALLERS)) for each in found]


def one_after_the_other(
    url: str, holding: Holding, asked: Floats, best: Floats, going_on: Callable[[], bool]
) -> list[Found]:
    """Texts ask for as long as it goes on."""
    found = []
    with psycopg2.connect(url) as connection:
        connection.autocommit = True
        for query, scores in zip(asked, best, strict=True):
            if not going_on():
                break
            answer = ask(connection, query)
            found.append(truth.of(holding, query, scores, *answer))
    connection.close()
    return found


def in_a_burst(url: str, name: str, holding: Holding, asked: Floats) -> list[Figure]:
    """While somebody stores as fast as it goes; compared with exact searches of one snapshot."""
    held = len(holding.kinds)
    more = holding.more(_HOT)

    def store() -> None:
        for first in range(held, held + _HOT, _BURST):
            put(url, more, first, first + _BURST)

    found = []
    connection = psycopg2.connect(url)
    connection.set_session(isolation_level="REPEATABLE READ")
    with ThreadPoolExecutor(1) as pool:
        storing = pool.submit(store)
        for n in count():
            query = asked[n % len(asked)]
            items, seconds = ask(connection, query)
            if n % _COMPARED == 0:
                best, _ = ask(connection, query, ", exact => true")
                scores = np.sort(more.vectors[np.searchsorted(more.items, best)] @ query)[::-1]
                found.append(truth.of(more, query, scores, items, seconds))
            connection.commit()
            if storing.done():
                break
        storing.result()
    connection.close()
    return of(f"{name}, in a burst", found) if len(found) > 1 else []


def fuller_to(holding: Holding, items: int) -> Holding:
    """Its first items."""
    vectors = int(np.searchsorted(holding.items, items))
    return replace(holding, vectors=holding.vectors[:vectors], items=holding.items[:vectors],
                   kinds=holding.kinds[:items], collections=holding.collections[:items],
                   )  # fmt: skip


def of(name: str, found: list[Found]) -> list[Figure]:
    """Figures of searches under load."""
    seconds = [each.seconds for each in found]
    return [
        Figure(f"{name}: recall@10", float(np.mean([each.recall for each in found])), "", "≥ 0.99"),
        Figure(f"{name}: met nothing", sum(each.recall == 0 for each in found),
               f"of {len(found)}", "0"),
        Figure(f"{name}: p50", quantile(seconds, 50), "ms"),
        Figure(f"{name}: p95", quantile(seconds, 95), "ms"),
    ]  # fmt: skip
