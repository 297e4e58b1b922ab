"""Segments of vectors: closes full ones, builds their indexes, merges them, drops what is replaced.

All of it while others store and search; see migrations/schema/segments.sql and building.sql.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pgclip import statements
from pgclip.database import Database
from pgclip.errors import PgclipError, sqlstate
from pgclip.items import Kind
from pgclip.settings import Settings

log = logging.getLogger(__name__)

# Replaced segments stay this long, for those who read an older snapshot.
_GRACE_SECONDS = 60.0
# A segment of which this share was deleted is built anew: searches step over what is dead.
_WORN = 0.2
# SQLSTATEs: parallel workers found too little shared memory; a lock was not to be had in time.
_NO_RESOURCES = "53"
_LOCK_NOT_AVAILABLE = "55P03"
_CANCELED = "57014"
# Between two looks of one that waits for its turn.
_TURN_SECONDS = 0.5
# Between two looks whether what is built at leisure keeps others waiting.
_LEISURE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment of a model's vectors; sizes in bytes. `kind` is None of one that has both.

    state: hot (takes new vectors), closed (full, without an index), sealed (with its index), copied
    or built (about to replace others) or retired (replaced, to be dropped).
    """

    model: str
    number: int
    state: str
    kind: Kind | None
    vectors: int
    table_bytes: int
    index_bytes: int
    created_at: datetime
    retired_at: datetime | None


def segments(database: Database) -> list[Segment]:
    """Every segment of every model."""
    with database.transaction("segments") as cursor:
        cursor.execute(statements.SEGMENTS)
        return [Segment(*row) for row in cursor.fetchall()]


def maintenance_connections(settings: Settings) -> Database:
    """A connection for Maintenance: no limit on statements, a short one on waiting for locks."""
    return Database(
        settings.unpooled_url,
        pool_size=1,
        connect_timeout=settings.connect_timeout,
        local={
            "statement_timeout": "0",
            # Whoever waits for a lock makes those wait that come after.
            "lock_timeout": "300ms",
            "idle_in_transaction_session_timeout": "15s",
            # Nobody should build for a process that is gone.
            "client_connection_check_interval": "5s",
        },
        application_name="pgclip segments",
    )


class Maintenance:
    """Does what a model's segments need. One process at a time, by an advisory lock.

    Every step is a transaction: what is interrupted is done again from the start of that step.
    In a burst nothing is built while fewer than `patience` vectors have no index. One that `waits`
    has its turn after another process's; else it leaves the work to that. What is built at leisure,
    which may take an hour, is not begun if it `yields`, and given up: it asks every two seconds.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        model: int,
        patience: int = 0,
        waits: bool = False,
        yields: Callable[[], bool] = lambda: False,
    ) -> None:
        self._settings = settings
        self._database = database
        self._model = model
        self._patience = patience
        self._waits = waits
        self._yields = yields
        self._stopping: Callable[[], bool] = lambda: False
        self._notices: list[str] = []  # what Postgres said of the last step

    def run(
        self,
        stopping: Callable[[], bool] = lambda: False,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        """Works until nothing is left to do, or until told to stop. Raises PgclipError.

        Calls `between` before it builds, which may take an hour.
        """
        self._stopping = stopping
        self._exchange()
        while not stopping():
            between()
            self._step(statements.CLOSE_SEGMENT, self._settings.segment_rows)
            sources = self._next_build()
            if sources is None or not self._build(sources):
                break
            self._exchange()
        while not stopping() and self._step(statements.DROP_RETIRED, _GRACE_SECONDS):
            pass

    def _next_build(self) -> list[int] | None:
        settings = self._settings
        sources: list[int] | None = self._step(
            statements.NEXT_BUILD,
            *(settings.max_segments, _WORN, self._patience, settings.build_memory),
        )
        return sources

    def _build(self, sources: list[int]) -> bool:
        """Whether it was built; memory that is lacking for parallel workers is no reason not to."""
        memory = f"{self._settings.build_memory // 1024}kB"
        leisure = self._step(statements.BUILDS_AT_LEISURE, self._settings.max_segments, sources)
        if leisure and self._yields():
            return False
        for workers in sorted({self._settings.build_workers, 0}, reverse=True):
            try:
                with self._yielding(leisure):
                    built = self._step(statements.BUILD_SEGMENT, sources, memory, workers)
            except PgclipError as error:
                if leisure and sqlstate(error) == _CANCELED and not self._stopping():
                    log.info("segments %s are built later: others wait for an index", sources)
                    return False
                if not workers or not sqlstate(error).startswith(_NO_RESOURCES):
                    raise
                log.warning("building with %d parallel workers failed: %s", workers, error)
            else:
                if built:
                    log.info("built segments %s of segments %s", built, sources)
                if any("maintenance_work_mem" in notice for notice in self._notices):
                    log.warning(
                        "building took long: an index of segments %s needs more memory than "
                        "PGCLIP_BUILD_MEMORY, %d MiB",
                        built,
                        self._settings.build_memory // 2**20,
                    )
                return bool(built)
        return False

    @contextmanager
    def _yielding(self, leisure: bool) -> Iterator[None]:
        """Cancels what goes on within as soon as others wait for it."""
        done = threading.Event()

        def watch() -> None:
            while not done.wait(_LEISURE_SECONDS):
                if self._yields():
                    self._database.cancel()
                    return

        watcher = threading.Thread(target=watch, name="leisure", daemon=True)
        if leisure:
            watcher.start()
        try:
            yield
        finally:
            done.set()
            if leisure:
                watcher.join()

    def _exchange(self) -> None:
        self._step(statements.ANNOUNCE_SEGMENTS)
        replaced = self._step(statements.EXCHANGE_SEGMENTS)
        if replaced:
            log.info("segments %s took the place of their sources", replaced)

    def _step(self, statement: str, *arguments: object) -> Any:
        """A function's value, in a transaction of its own.

        None if another process is at it, or if a lock is held: the next pass tries again.
        """
        while True:
            try:
                with self._database.transaction("segments") as cursor:
                    cursor.execute(statements.SEGMENTS_LOCK, (self._model,))
                    if cursor.fetchone() == (True,):
                        cursor.connection.notices.clear()
                        cursor.execute(statement, (self._model, *arguments))
                        self._notices = list(cursor.connection.notices)
                        (value,) = cursor.fetchone() or (None,)
                        return value
            except PgclipError as error:
                if sqlstate(error) != _LOCK_NOT_AVAILABLE:
                    raise
                log.info("segments wait for a transaction that holds them: %s", error)
            if not self._waits or self._stopping():
                return None
            time.sleep(_TURN_SECONDS)
