"""Stages of a worker overlap, and a batch ends once, however many are fetched at once."""

import threading
from typing import Any
from uuid import uuid4

import pytest

from pgclip_workers.pipeline.batch import Batch
from pgclip_workers.pipeline.pipeline import Pipeline


class Leases:
    """So many batches; no database."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.done: list[Any] = []
        self.returned: list[Any] = []

    def claim(self) -> Batch | None:
        if not self.left:
            return None
        self.left -= 1
        return Batch(uuid4(), [])

    def ended(self, lease: Any) -> None:
        self.done.append(lease)

    def hand_back(self, lease: Any) -> None:
        self.returned.append(lease)


def nothing(*_: object) -> None:
    """A stage, a notice."""


def pipeline(leases: Leases, fetch: Any, fetchers: int) -> Pipeline:
    return Pipeline(leases, fetch, *[nothing] * 5, fetchers)  # type: ignore[arg-type]


@pytest.mark.parametrize("fetchers", [1, 2, 3])
def test_so_many_batches_are_fetched_at_once(fetchers: int) -> None:
    together = threading.Barrier(fetchers, timeout=20)  # broken if fewer come
    leases = Leases(6 * fetchers)
    working = pipeline(leases, lambda _: together.wait(), fetchers)
    assert working.drain() == 6 * fetchers
    assert len(set(leases.done)) == len(leases.done) == 6 * fetchers
    assert not leases.returned
    working.stop()
    working.join()


def test_what_follows_a_store_overlaps_with_the_next_one() -> None:
    leases = Leases(5)
    together = threading.Barrier(2, timeout=20)  # broken if one of the two comes alone
    stored: list[Batch] = []
    told: list[Batch] = []

    def store(batch: Batch) -> None:
        if stored:
            together.wait()
        stored.append(batch)

    def tell(batch: Batch) -> None:
        if len(told) < 4:
            together.wait()
        told.append(batch)

    working = Pipeline(leases, nothing, nothing, store, tell, nothing, nothing)  # type: ignore[arg-type]
    assert working.drain() == 5
    assert told == stored
    assert [batch.lease for batch in told] == leases.done
    assert not leases.returned
    working.stop()
    working.join()


def test_what_is_fetched_when_it_stops_goes_back() -> None:
    leases, begun, go_on = Leases(50), threading.Semaphore(0), threading.Event()

    def fetch(_: Batch) -> None:
        begun.release()
        go_on.wait(20)

    working = pipeline(leases, fetch, 2)
    draining = threading.Thread(target=working.drain)
    draining.start()
    for _ in range(2):
        assert begun.acquire(timeout=20)
    working.stop()
    go_on.set()
    working.join()
    draining.join(20)
    assert not draining.is_alive()
    assert leases.returned
    assert len(leases.returned) + len(leases.done) == 50 - leases.left
