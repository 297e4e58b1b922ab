"""Following what was submitted: a Job for an item, a Batch for many."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from pgclip import statements
from pgclip.errors import ConnectionFailed, ItemFailed, NotCommitted, NotFound, WaitTimeout
from pgclip.items import State
from pgclip.settings import masked
from pgclip.submitting.following import Followed, Follower, Steps, run, run_async

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

    from pgclip.database import Database

_CHUNK = 10_000  # items of a batch asked for at once
_AT_ONCE = 16  # items of a batch that are followed at a time
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Status:
    """What has become of a submission. `superseded`: the item has newer content by now."""

    state: State
    reason: str | None = None
    error: str | None = None
    superseded: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """A submission of one item: accepted and, unless it is part of your transaction, committed."""

    key: str
    collection: str
    item_id: int
    generation: int
    _database: "Database" = field(repr=False)
    _follower: Follower = field(repr=False)
    _transaction: str | None = field(default=None, repr=False)

    def status(self) -> Status:
        """Where it stands.

        Raises NotFound if the item was deleted since, and NotCommitted if it was submitted with
        connection= and that transaction is still open or was rolled back.
        """
        with self._database.transaction(str(self)) as cursor:
            if self._transaction is not None:
                _require_commit(cursor, self._transaction, str(self))
            cursor.execute(statements.JOB_STATE, (self.item_id,))
            row = cursor.fetchone()
        if row is None or row[3] < self.generation:
            raise NotFound(f"{self}: the item was deleted, or its savepoint rolled back")
        state, reason, error, generation = row
        if generation > self.generation:
            return Status("done", superseded=True)
        return Status(state, reason, error)

    def wait(self, timeout: float | None = None) -> None:
        """Returns when the item is done, or superseded by a later submission of its key.

        Raises ItemFailed with the reason, WaitTimeout after `timeout` seconds (None: never),
        and what status() raises.
        """
        run(self._ending(timeout), timeout)

    async def wait_async(self, timeout: float | None = None) -> None:
        """Like wait, and the event loop goes on meanwhile."""
        await run_async(self._ending(timeout), timeout)

    def _ending(self, timeout: float | None) -> Steps:
        item = Followed(self.item_id, self.generation)
        while True:
            futures = self._follower.follow([item])
            try:
                status = _looked(self.status)
                if status.state == "done":
                    return
                if status.state == "failed":
                    raise ItemFailed(f"{self}: {status.error}", status.reason or "unknown")
                yield futures
            except TimeoutError:
                raise WaitTimeout(
                    f"{self} is still {status.state} after {timeout} s. The work goes on; "
                    "is a worker running?"
                ) from None
            finally:
                self._follower.forget([item], futures)

    def __str__(self) -> str:
        return f"item {masked(self.key)!r} in collection {self.collection!r}"


def _looked(look: Callable[..., T], *of: object) -> T:
    """What a look shows that somebody waits for: once more if a connection was lost, as it is
    when Postgres starts anew."""
    try:
        return look(*of)
    except ConnectionFailed:
        return look(*of)


def _require_commit(cursor: "Cursor", transaction: str, what: str) -> None:
    """Raises NotCommitted while a transaction is open, and once it was rolled back."""
    cursor.execute(statements.TRANSACTION_STATE, (transaction,))
    (state,) = cursor.fetchone() or (None,)
    if state == "in progress":
        raise NotCommitted(
            f"{what}: the transaction that submitted it is still open; commit it first"
        )
    if state == "aborted":
        raise NotCommitted(f"{what}: the transaction that submitted it was rolled back")


@dataclass(frozen=True, slots=True)
class ItemFailure:
    """An item of a batch that was not accepted, or failed. `position` counts from 0."""

    position: int
    key: str | None
    reason: str
    message: str

    def __str__(self) -> str:
        name = masked(self.key) if self.key else self.position
        return f"{name!r}: {self.message}"


class Batch:
    """The items of one submit_many: what was accepted, what was not, and what became of them.

    `submitted` and `accepted` are counts. Holds 20 bytes for each accepted item. What asks for
    states raises NotCommitted while the transaction that was given with connection= is open.
    """

    def __init__(
        self, database: "Database", follower: Follower, transaction: str | None = None
    ) -> None:
        from array import array

        self._database = database
        self._follower = follower
        self._transaction = transaction
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
        """The items that were not accepted, with the reasons, in the order of submission."""
        return sorted(self._refused, key=lambda failure: failure.position)

    def counts(self) -> dict[str, int]:
        """How many are queued, leased, done, failed (refused ones among them)."""
        counts = {"queued": 0, "leased": 0, "done": self.accepted, "failed": len(self._refused)}
        for _, _, state, _, _ in self._unfinished():
            counts[state] += 1
            counts["done"] -= 1
        return counts

    def failures(self) -> list[ItemFailure]:
        """The items that were refused or have failed, in the order of submission."""
        return self._failures(
            {
                item: (reason, error)
                for item, _, state, reason, error in self._unfinished()
                if state == "failed"
            }
        )

    def wait(self, timeout: float | None = None) -> None:
        """Returns when all have ended as done (superseded and deleted ones count as that).

        Raises ItemFailed that names the first failures when all have ended and some failed or
        were refused, and WaitTimeout after `timeout` seconds (None: never).
        """
        run(self._ending(timeout), timeout)

    async def wait_async(self, timeout: float | None = None) -> None:
        """Like wait, and the event loop goes on meanwhile."""
        await run_async(self._ending(timeout), timeout)

    def _ending(self, timeout: float | None) -> Steps:
        failed: dict[int, tuple[str, str]] = {}
        for start in range(0, len(self._items), _CHUNK):
            while unfinished := _looked(self._states, *self._chunk(start)):
                # The last ones that are open: by then most of the others will have ended.
                last = [
                    Followed(item, generation)
                    for item, generation, state, _, _ in unfinished
                    if state in ("queued", "leased")
                ][-_AT_ONCE:]
                if not last:
                    failed |= {item: (reason, error) for item, _, _, reason, error in unfinished}
                    break
                futures = self._follower.follow(last)
                try:
                    open_ = _looked(self._open_of, last)
                    if len(open_) == len(last):  # none ended before it was followed
                        yield futures
                except TimeoutError:
                    raise WaitTimeout(
                        f"after {timeout} s: {self.counts()}. The work goes on"
                    ) from None
                finally:
                    self._follower.forget(last, futures)
        if failures := self._failures(failed):
            first = "; ".join(map(str, failures[:5]))
            raise ItemFailed(
                f"{len(failures)} of {self.submitted} items failed: {first}", failures[0].reason
            )

    def _open_of(self, items: Sequence[Followed]) -> list[int]:
        states = self._states([i.item_id for i in items], [i.generation for i in items])
        return [item for item, _, state, _, _ in states if state in ("queued", "leased")]

    def _failures(self, failed: dict[int, tuple[str, str]]) -> list[ItemFailure]:
        found = list(self._refused)
        if failed:
            keys = self._keys(list(failed))
            for item, position in zip(self._items, self._positions, strict=True):
                if item in failed:
                    found.append(ItemFailure(position, keys.get(item), *failed[item]))
        return sorted(found, key=lambda failure: failure.position)

    def _chunk(self, start: int) -> tuple[list[int], list[int]]:
        chunk = slice(start, start + _CHUNK)
        return self._items[chunk].tolist(), self._generations[chunk].tolist()

    def _unfinished(self) -> Iterator[tuple[int, int, str, str, str]]:
        """Item, generation, state, reason and error of those that are not done."""
        for start in range(0, len(self._items), _CHUNK):
            yield from self._states(*self._chunk(start))

    def _states(
        self, items: list[int], generations: list[int]
    ) -> list[tuple[int, int, str, str, str]]:
        """The same of some."""
        with self._database.transaction("batch") as cursor:
            if self._transaction is not None:
                _require_commit(cursor, self._transaction, f"batch of {self.submitted}")
                self._transaction = None
            cursor.execute(statements.BATCH_STATES, (items, generations))
            return cursor.fetchall()

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
