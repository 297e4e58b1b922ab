"""Following what was submitted: a Job for an item, a Batch for many."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgclip import statements
from pgclip.errors import ItemFailed, NotFound, WaitTimeout
from pgclip.items import State

if TYPE_CHECKING:
    from pgclip.database import Database

_FIRST_PAUSE, _LAST_PAUSE = 0.005, 0.25
_CHUNK = 10_000  # items of a batch asked for at once


def _pauses(timeout: float | None) -> Iterator[None]:
    """Ticks, ever slower, until `timeout` seconds have passed."""
    deadline = None if timeout is None else time.monotonic() + timeout
    pause = _FIRST_PAUSE
    yield
    while deadline is None or (left := deadline - time.monotonic()) > 0:
        time.sleep(pause if deadline is None else min(pause, left))
        pause = min(pause * 1.5, _LAST_PAUSE)
        yield


@dataclass(frozen=True, slots=True)
class Status:
    """What has become of a submission. `superseded`: the item has newer content by now."""

    state: State
    reason: str | None = None
    error: str | None = None
    superseded: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """A submission of one item: accepted and committed."""

    key: str
    collection: str
    item_id: int
    generation: int
    _database: "Database"

    def status(self) -> Status:
        """Where it stands. Raises NotFound if the item was deleted since."""
        with self._database.transaction(str(self)) as cursor:
            cursor.execute(statements.JOB_STATE, (self.item_id,))
            row = cursor.fetchone()
        if row is None:
            raise NotFound(f"{self}: the item was deleted")
        state, reason, error, generation = row
        if generation != self.generation:
            return Status("done", superseded=True)
        return Status(state, reason, error)

    def wait(self, timeout: float | None = None) -> None:
        """Returns when the item is done, or superseded by a later submission of its key.

        Raises ItemFailed with the reason, WaitTimeout after `timeout` seconds (None: never),
        NotFound if the item was deleted.
        """
        state = "queued"
        for _ in _pauses(timeout):
            status = self.status()
            state = status.state
            if state == "done":
                return
            if state == "failed":
                raise ItemFailed(f"{self}: {status.error}", status.reason or "unknown")
        raise WaitTimeout(
            f"{self} is still {state} after {timeout} s. The work goes on; is a worker running?"
        )

    def __str__(self) -> str:
        return f"item {self.key!r} in collection {self.collection!r}"


@dataclass(frozen=True, slots=True)
class ItemFailure:
    """An item of a batch that was not accepted, or failed. `position` counts from 0."""

    position: int
    key: str | None
    reason: str
    message: str


class Batch:
    """The items of one submit_many: what was accepted, what was not, and what became of them.

    `submitted` and `accepted` are counts. Holds 20 bytes for each accepted item.
    """

    def __init__(self, database: "Database") -> None:
        from array import array

        self._database = database
        self._items: array[int] = array("q")
        self._generations: array[int] = array("i")
        self._positions: array[int] = array("q")
        self._refused: list[ItemFailure] = []
        self.submitted = 0

    @property
    def accepted(self) -> int:
        """How many items were accepted."""
        return len(self._items)

    @property
    def refused(self) -> list[ItemFailure]:
        """The items that were not accepted, with the reasons."""
        return list(self._refused)

    def counts(self) -> dict[str, int]:
        """How many are queued, leased, done, failed (refused ones among them)."""
        counts = {"queued": 0, "leased": 0, "done": self.accepted, "failed": len(self._refused)}
        for _, state, _, _ in self._unfinished():
            counts[state] += 1
            counts["done"] -= 1
        return counts

    def failures(self) -> list[ItemFailure]:
        """The items that were refused or have failed, in the order of submission."""
        failed = {
            item: (reason, error)
            for item, state, reason, error in self._unfinished()
            if state == "failed"
        }
        found = list(self._refused)
        if failed:
            keys = self._keys(list(failed))
            for item, position in zip(self._items, self._positions, strict=True):
                if item in failed:
                    found.append(ItemFailure(position, keys.get(item), *failed[item]))
        return sorted(found, key=lambda failure: failure.position)

    def wait(self, timeout: float | None = None) -> None:
        """Returns when all have ended as done (superseded and deleted ones count as that).

        Raises ItemFailed that names the first failures when all have ended and some failed or
        were refused, and WaitTimeout after `timeout` seconds (None: never).
        """
        counts: dict[str, int] = {}
        for _ in _pauses(timeout):
            counts = self.counts()
            if not counts["queued"] and not counts["leased"]:
                break
        else:
            raise WaitTimeout(f"after {timeout} s: {counts}. The work goes on")
        if counts["failed"]:
            failures = self.failures()
            first = "; ".join(f"{f.key or f.position!r}: {f.message}" for f in failures[:5])
            raise ItemFailed(
                f"{len(failures)} of {self.submitted} items failed: {first}", failures[0].reason
            )

    def _unfinished(self) -> Iterator[tuple[int, str, str, str]]:
        for start in range(0, len(self._items), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            with self._database.transaction("batch") as cursor:
                cursor.execute(
                    statements.BATCH_STATES,
                    (self._items[chunk].tolist(), self._generations[chunk].tolist()),
                )
                rows = cursor.fetchall()
            yield from rows

    def _keys(self, items: list[int]) -> dict[int, str]:
        with self._database.transaction("batch") as cursor:
            cursor.execute(statements.KEYS, (items,))
            return dict(cursor.fetchall())

    def _accept(self, position: int, item_id: int, generation: int) -> None:
        self._positions.append(position)
        self._items.append(item_id)
        self._generations.append(generation)

    def _refuse(self, position: int, key: str | None, message: str) -> None:
        self._refused.append(ItemFailure(position, key, "invalid", message))
