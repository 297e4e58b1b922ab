"""Bursts: how fast vectors are stored, and what somebody who searches meanwhile notices."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import psycopg2
from asking import ask, recall
from figures import Figure, quantile
from here import HERE
from people import People
from system import STUB_WORKER, environment, run_sql, worker

from pgclip import Client

# An exact search takes a processor for a tenth of a second: it would be a load of its own. Of the
# 300 queries others come every time round.
ASKED_EXACTLY = 17
# Less than a segment lacks an index, and nothing would be built even without patience.
INDEXED = """
    SELECT NOT EXISTS (SELECT FROM pgclip.segment WHERE state IN ('closed', 'copied', 'built'))
           AND pgclip.unindexed(id) < 20000 AND pgclip.next_build(id, 8, 0.2, 0, 1073741824) IS NULL
    FROM pgclip.model
"""


def items(first: int, last: int) -> Iterator[dict[str, Any]]:
    """Texts that the stub encoder takes for the numbers of vectors."""
    for n in range(first, last):
        yield {"text": f"vector {n}", "key": str(n),
               "metadata": {"tenth": n % 10, "hundredth": n % 100}}  # fmt: skip


def through_the_store(
    client: Client, urls: dict[str, str], vectors: Path, rows: int, more: int
) -> list[Figure]:
    """What is claimed and encoded already, through the store of a worker and nothing else of it."""
    client.submit_many(items(rows, rows + more))
    with storer(urls, vectors) as start_storing:
        return measured(f"burst of {more:,}, store path", more, start_storing, urls, "≥ 10,000")


def through_a_whole_worker(
    client: Client, urls: dict[str, str], vectors: Path, rows: int, more: int
) -> list[Figure]:
    """Through claim, fetch, store of a worker whose encoder costs nothing.

    What is submitted waits until all of it is there; then the worker gets at it.
    """
    url = urls["database_url"]
    with worker(urls, STUB_WORKER, STUB_VECTORS=str(vectors)), psycopg2.connect(url) as gate:
        client.submit_many(items(rows, rows + more), connection=gate)

        def work() -> float:
            start = time.perf_counter()
            gate.commit()
            wait_for("SELECT NOT EXISTS (SELECT FROM pgclip.job)", url)
            return time.perf_counter() - start

        return measured(f"burst of {more:,}, whole worker", more, work, urls)


def measured(
    name: str, rows: int, work: Callable[[], float], urls: dict[str, str], aim: str = ""
) -> list[Figure]:
    """Rows a second, and searches until they are stored and then until they are indexed."""
    url = urls["database_url"]
    with ThreadPoolExecutor(1) as pool:
        storing = pool.submit(work)
        during = search_while(lambda: not storing.done(), url)
        building = pool.submit(wait_for, INDEXED, url)
        after = search_while(lambda: not building.done(), url)
    figures = [Figure(f"{name}: stored", rows / storing.result(), "rows/s", aim)]
    for part, (times, recalls) in (("", during), (", then building", after)):
        if len(times) > 1:
            figures += [
                Figure(f"{name}{part}: search, p50", quantile(times, 50), "ms"),
                Figure(f"{name}{part}: search, p95", quantile(times, 95), "ms", "≤ 60"),
                Figure(f"{name}{part}: recall@10", float(np.mean(recalls)), "", "≥ 0.98"),
            ]
    return figures


def search_while(going_on: Callable[[], bool], url: str) -> tuple[list[float], list[float]]:
    """Seconds of searches, and the recall of some against exact => true, of one snapshot."""
    times, recalls = [], []
    connection = psycopg2.connect(url)
    connection.set_session(isolation_level="REPEATABLE READ")
    for n, query in enumerate(cycle(People(2).asked()[:300])):
        if not going_on():
            break
        found, seconds = ask(connection, query)
        times.append(seconds)
        if n % ASKED_EXACTLY == 0:
            truth, _ = ask(connection, query, ", exact => true")
            recalls.append(recall(found, truth))
        connection.commit()
        time.sleep(0.01)
    connection.close()
    return times, recalls


def wait_for(condition: str, url: str, every: float = 0.05) -> None:
    """Asks every so many seconds."""
    while run_sql(url, condition) != [(True,)]:
        time.sleep(every)


@contextmanager
def storer(urls: dict[str, str], vectors: Path) -> Iterator[Callable[[], float]]:
    """A process that has claimed all there is. Called once, it stores it; returns the seconds."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "storer.py")], env=environment(urls, STUB_VECTORS=str(vectors)),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin
    assert process.stdout
    stdin, stdout = process.stdin, process.stdout

    def start_storing() -> float:
        print(file=stdin, flush=True)
        return float(stdout.readline())

    try:
        if stdout.readline() != "ready\n":
            raise RuntimeError("the storing process failed; see what it printed")
        yield start_storing
    finally:
        stdin.close()  # the end of what it waits for
        process.wait(60)
