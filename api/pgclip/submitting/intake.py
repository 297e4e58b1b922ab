"""How submissions get into Postgres: one by one, in bulk, or in a transaction of the caller's."""

import struct
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pgclip import binarycopy, statements
from pgclip.database import Database
from pgclip.errors import ConnectionFailed, InvalidItem, QueueFull
from pgclip.settings import Settings
from pgclip.submitting.following import Follower
from pgclip.submitting.gate import Gate
from pgclip.submitting.jobs import Batch, Job
from pgclip.submitting.submission import Submission, submission_from
from pgclip.submitting.tickets import TicketOffice
from pgclip.submitting.transactions import Transaction, transaction_of

_CHUNK_ITEMS = 1000
_CHUNK_BYTES = 8 * 2**20
# Larger pictures go by COPY: as a parameter a byte costs three times the processor time.
_INLINE_BYTES = 64 * 2**10


class _Outcome(NamedTuple):
    position: int
    item_id: int
    key: str
    generation: int
    error: str | None


class Intake:
    """Has submissions committed, and tickets published after the commit."""

    def __init__(
        self, database: Database, follower: Follower, tickets: TicketOffice, settings: Settings
    ) -> None:
        self._database = database
        self._follower = follower
        self._tickets = tickets
        self._gate = Gate(database, settings)

    def submit(self, item: Submission, connection: Any) -> Job:
        """One item. Raises InvalidItem, QueueFull and ConnectionFailed."""
        self._gate.pass_through(1)
        if connection is not None:
            return self._submit_within(item, transaction_of(connection))
        if len(item.data or b"") > _INLINE_BYTES or item.merge_metadata:
            return self._submit_staged(item)
        with self._database.transaction(str(item)) as cursor:
            cursor.execute(*_single(item))
            item_id, key, generation, queues = cursor.fetchone() or ()
        self._tickets.announce(queues)
        return self._job(item, _Outcome(0, item_id, key, generation, None))

    def submit_many(
        self, items: Iterable[Mapping[str, Any]], connection: Any, defaults: Mapping[str, Any]
    ) -> Batch:
        """Any number, in chunks; one that can't be accepted is in the batch's `refused`."""
        if isinstance(items, Mapping | str | bytes) or not isinstance(items, Iterable):
            raise InvalidItem(
                "items is a list, or another iterable, of mappings such as "
                f'{{"text": "a cat"}}, not {type(items).__name__}'
            )
        within = None if connection is None else transaction_of(connection)
        # Asked for first, so that even a batch of nothing knows its transaction.
        number, queues = (None, []) if within is None else _transaction(within)
        batch = Batch(self._database, self._follower, number)
        for chunk in _chunks(items, batch, defaults):
            try:
                self._gate.pass_through(len(chunk))
                if within is not None:
                    _note(_accept_within(within, [item for _, item in chunk]), chunk, batch)
                else:
                    queues = self._submit_chunk(chunk, batch)
            except (ConnectionFailed, QueueFull) as error:
                raise type(error)(
                    f"{error} {batch.accepted} items were accepted before; submitting all of "
                    "them again does no harm"
                ) from error
            if within is None:
                for queue in queues:
                    self._tickets.publish(queue, 1)
        if within is not None:
            within.after_commit(lambda: self._tickets.announce(queues))
        return batch

    def _submit_within(self, item: Submission, within: Transaction) -> Job:
        (outcome,) = _accept_within(within, [item])
        if outcome.error:
            raise InvalidItem(f"{item}: {outcome.error}")
        number, queues = _transaction(within)
        within.after_commit(lambda: self._tickets.announce(queues))
        return self._job(item, outcome, number)

    def _submit_staged(self, item: Submission) -> Job:
        with self._database.transaction(str(item)) as cursor:
            (outcome,) = _stage(cursor, [(0, item)])
            cursor.execute(statements.TICKET_QUEUES)
            (queues,) = cursor.fetchone() or ([],)
        if outcome.error:
            raise InvalidItem(f"{item}: {outcome.error}")
        self._tickets.announce(queues)
        return self._job(item, outcome)

    def _job(self, item: Submission, outcome: _Outcome, transaction: str | None = None) -> Job:
        return Job(
            outcome.key,
            item.collection,
            outcome.item_id,
            outcome.generation,
            self._database,
            self._follower,
            transaction,
        )

    def _submit_chunk(self, chunk: Sequence[tuple[int, Submission]], batch: Batch) -> list[str]:
        what = f"items {chunk[0][0]} to {chunk[-1][0]}"
        with self._database.transaction(what) as cursor:
            outcomes = _stage(cursor, chunk)
            cursor.execute(statements.TICKET_QUEUES)
            (queues,) = cursor.fetchone() or ([],)
        _note(outcomes, chunk, batch)
        return list(queues)


def _single(item: Submission) -> tuple[str, tuple[Any, ...]]:
    about = (item.collection, item.metadata, item.priority, item.keep_source)
    if item.kind == "image":
        return statements.SUBMIT_IMAGE, (item.key, item.data, item.source, *about)
    return statements.SUBMIT_TEXT, (item.key, (item.data or b"").decode(), *about)


def _transaction(within: Transaction) -> tuple[str, list[str]]:
    """A transaction's number and the ticket queues that it sees."""
    ((number, queues),) = within.execute(statements.TRANSACTION, ())
    return number, queues


def _accept_within(within: Transaction, items: Sequence[Submission]) -> list[_Outcome]:
    """Accepts submissions; the positions count from 0."""
    outcomes = []
    for merges, statement in ((False, statements.SUBMIT_BATCH), (True, statements.MERGE_BATCH)):
        places = [n for n, item in enumerate(items) if item.merge_metadata is merges]
        if places:
            columns = zip(*(_columns(items[n]) for n in places), strict=True)
            rows = within.execute(statement, [list(column) for column in columns])
            outcomes += [_Outcome(places[place - 1], *rest) for place, *rest in rows]
    return outcomes


def _columns(item: Submission) -> tuple[Any, ...]:
    return (
        *(item.kind, item.key, item.data, item.source),
        *(item.collection, item.metadata, item.priority, item.keep_source),
    )


def _note(
    outcomes: Collection[_Outcome], chunk: Sequence[tuple[int, Submission]], batch: Batch
) -> None:
    """Enters outcomes, whose positions are the chunk's, in the batch."""
    for outcome in outcomes:
        position, item = chunk[outcome.position]
        if outcome.error:
            batch._refuse(position, outcome.key, f"{item}: {outcome.error}")
        else:
            batch._accept(position, outcome.item_id, outcome.generation)


def _chunks(
    items: Iterable[Mapping[str, Any]], batch: Batch, defaults: Mapping[str, Any]
) -> Iterator[list[tuple[int, Submission]]]:
    """Submissions with their positions, by count and size; refuses what is not one."""
    chunk: list[tuple[int, Submission]] = []
    size = 0
    for position, item in enumerate(items):
        batch.submitted += 1
        try:
            submission = submission_from(item, **defaults)
        except InvalidItem as error:
            key = item.get("key") if isinstance(item, Mapping) else None
            batch._refuse(position, key if isinstance(key, str) else None, str(error))
            continue
        chunk.append((position, submission))
        size += submission.size
        if len(chunk) == _CHUNK_ITEMS or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _stage(cursor: Any, chunk: Sequence[tuple[int, Submission]]) -> list[_Outcome]:
    """COPYs submissions to the staging table and has them accepted."""
    cursor.execute(statements.OPEN_STAGING)
    rows = (
        (
            binarycopy.int32(place),
            item.collection.encode(),
            None if item.key is None else item.key.encode(),
            item.kind.encode(),
            item.data,
            None if item.source is None else item.source.encode(),
            binarycopy.jsonb(item.metadata),
            struct.pack("!h", item.priority),
            struct.pack("!?", item.keep_source),
            struct.pack("!?", item.merge_metadata),
        )
        for place, (_, item) in enumerate(chunk)
    )
    binarycopy.copy_in(cursor, statements.STAGED, rows)
    cursor.execute(statements.SUBMIT_STAGED)
    return [_Outcome(*row) for row in cursor.fetchall()]
