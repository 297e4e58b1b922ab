"""Waiting for items without asking again and again: one LISTEN for all who wait in a process.

Workers notify when they have stored a batch. A notification can be missed (the connection broke,
a worker died between commit and notification), and some ends are not notified (an item that is
deleted or superseded); so everything that is waited for is looked at now and then, in one query.
"""

import logging
import selectors
import threading
import time
from collections.abc import Collection, Generator, Iterable
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from pgclip import statements
from pgclip.database import Database
from pgclip.errors import PgclipError
from pgclip.forks import begin_anew_in_children

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

log = logging.getLogger(__name__)

_LOOK_SECONDS = 3.0
# Behind a pooler nobody can listen, so each look is what a waiter waits for.
_POOLED_LOOK_SECONDS = 0.2
_RECONNECT_SECONDS = 0.5
# So long a thread and its connection stay when nobody waits any longer.
_LINGER_SECONDS = 10.0


class Followed(NamedTuple):
    """One generation of an item."""

    item_id: int
    generation: int


# What a waiter goes through: it yields what has to end before it looks again. A TimeoutError that
# is thrown into it tells that the time is up.
Steps: TypeAlias = Generator[Collection["Future[None]"], None, None]


class Follower:
    """Tells when items have ended. Starts a thread when it is first needed. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.after_fork()
        begin_anew_in_children(self)

    def after_fork(self) -> None:
        """In a child: nobody waits here yet."""
        self._lock = threading.Lock()
        self._waiting: dict[Followed, list[Future[None]]] = {}
        self._thread: threading.Thread | None = None
        self._closed = False

    def follow(self, items: Iterable[Followed]) -> "list[Future[None]]":
        """A future for each item, done when the item has ended, is gone or was superseded.

        One that had ended before may take some seconds: look at it after this call. Raises
        PgclipError once the client is closed.
        """
        futures: list[Future[None]] = []
        with self._lock:
            if self._closed:
                raise PgclipError("the client is closed; the work goes on, and nothing is lost")
            for item in items:
                future: Future[None] = Future()
                future.set_running_or_notify_cancel()  # only the thread ends it
                futures.append(future)
                self._waiting.setdefault(item, []).append(future)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="pgclip", daemon=True)
                self._thread.start()
        return futures

    def forget(self, items: Iterable[Followed], futures: "Iterable[Future[None]]") -> None:
        """Nobody waits for these any longer."""
        with self._lock:
            for item, future in zip(items, futures, strict=True):
                waiting = self._waiting.get(item, [])
                if future in waiting:
                    waiting.remove(future)
                if not waiting:
                    self._waiting.pop(item, None)

    def close(self) -> None:
        """Ends the thread. Whoever still waits is woken, and told so."""
        with self._lock:
            self._closed = True
            thread, waiting = self._thread, self._waiting
            self._waiting = {}
        for futures in waiting.values():
            _wake(futures)
        if thread is not None:
            thread.join(_LOOK_SECONDS)
        self._database.close()

    def _run(self) -> None:
        while not self._may_end():
            try:
                if self._database.shares_sessions():
                    self._poll()
                else:
                    self._listen()
            except PgclipError as error:
                log.info("waiting goes on once Postgres answers: %s", error)
                time.sleep(_RECONNECT_SECONDS)
            except Exception:  # without this thread nobody would be woken
                log.exception("waiting is tried again")
                time.sleep(_RECONNECT_SECONDS)

    def _may_end(self) -> bool:
        with self._lock:
            if self._closed or not self._waiting:
                self._thread = None
                return True
            return False

    def _poll(self) -> None:
        """Wakes those who wait by looking again and again, until nobody does."""
        while not self._closed and (waiting := self._snapshot()):
            with self._database.statements("waiting") as cursor:
                self._look(cursor, waiting)
            time.sleep(_POOLED_LOOK_SECONDS)

    def _listen(self) -> None:
        """Wakes those who wait, until nobody does."""
        looked, wanted = -_LOOK_SECONDS, time.monotonic()
        with (
            self._database.statements("waiting") as cursor,
            selectors.DefaultSelector() as selector,
        ):
            cursor.execute(statements.LISTEN_SETTLED)
            connection = cursor.connection
            selector.register(connection, selectors.EVENT_READ)
            while not self._closed:
                now = time.monotonic()
                waiting = self._snapshot()
                if waiting:
                    wanted = now
                elif now - wanted > _LINGER_SECONDS:
                    break
                if now - looked >= _LOOK_SECONDS:
                    looked = now
                    self._look(cursor, waiting)
                if not connection.notifies:  # some may have come with an answer
                    selector.select(timeout=_LOOK_SECONDS / 10)
                connection.poll()
                told = {int(item) for n in connection.notifies for item in n.payload.split()}
                connection.notifies.clear()
                self._look(cursor, [item for item in self._snapshot() if item.item_id in told])
            cursor.execute(statements.UNLISTEN)

    def _snapshot(self) -> list[Followed]:
        with self._lock:
            return list(self._waiting)

    def _look(self, cursor: "Cursor", items: Collection[Followed]) -> None:
        if not items:
            return
        cursor.execute(
            statements.UNENDED, ([i.item_id for i in items], [i.generation for i in items])
        )
        open_ = {Followed(*row) for row in cursor.fetchall()}
        with self._lock:
            ended = [self._waiting.pop(item, []) for item in items if item not in open_]
        for futures in ended:
            _wake(futures)


def _wake(futures: "Iterable[Future[None]]") -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


def run(steps: Steps, timeout: float | None) -> None:
    """Goes through the steps, blocking this thread. Raises what they raise."""
    deadline = None if timeout is None else time.monotonic() + timeout
    for futures in steps:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if wait(futures, left).not_done:
            steps.throw(TimeoutError())


async def run_async(steps: Steps, timeout: float | None) -> None:
    """Goes through the steps without blocking the event loop. Raises what they raise."""
    import asyncio

    deadline = None if timeout is None else time.monotonic() + timeout
    while (futures := await asyncio.to_thread(next, steps, None)) is not None:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        waiting = [asyncio.wrap_future(future) for future in futures]
        try:
            _, open_ = await asyncio.wait(waiting, timeout=left) if waiting else ((), ())
        except asyncio.CancelledError:
            await asyncio.to_thread(steps.close)
            raise
        if open_:
            for future in open_:
                future.cancel()
            await asyncio.to_thread(steps.throw, TimeoutError())
