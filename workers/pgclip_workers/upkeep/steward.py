"""The steward in every worker: one at a time takes back dead leases, tidies, adds tickets, and goes
through all items for a model that has come or goes."""

import logging
import math
import threading
import time
from typing import Any

from pgclip.database import Database
from pgclip.errors import PgclipError
from pgclip.settings import Settings
from pgclip.submitting.tickets import TicketOffice
from pgclip_workers import statements

log = logging.getLogger(__name__)

_CONTENTS_AT_ONCE = 500
_TALLIES_AT_ONCE = 20_000
_WOKEN_AT_ONCE = 1000
# About 30 ms each.
_WALKED_AT_ONCE = 1000
_WORDS_AT_ONCE = 200  # items, whose rows others wait for
# Enough to keep any fleet busy until the next pass.
_BACKLOG_COUNTED = 100_000


class Steward:
    """Passes at once and every `steward_interval` seconds, in short transactions, until stopped."""

    def __init__(
        self, settings: Settings, database: Database, tickets: TicketOffice, batch_size: int
    ) -> None:
        self._settings = settings
        self._database = database
        self._tickets = tickets
        self._batch_size = batch_size
        self._stopping = threading.Event()
        self.trouble: str | None = None  # of Redis, as every worker sees it for itself
        self.thread = threading.Thread(target=self._run, name="steward", daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """Ends after the pass under way."""
        self._stopping.set()
        self.thread.join()

    def _run(self) -> None:
        from redis import RedisError

        while not self._stopping.is_set():
            try:
                self._tidy()
                self._look_at_redis()
                if not self.trouble:
                    self._top_up()
                    self._walk()  # a model that goes is gone after its queue
            except (PgclipError, RedisError) as error:
                log.warning("the steward's pass failed: %s", error)
            except Exception:
                log.exception("the steward's pass failed")
            self._stopping.wait(self._settings.steward_interval)

    def _look_at_redis(self) -> None:
        unreachable = self._tickets.unreachable()
        if unreachable and not self.trouble:
            log.warning("%s; work is found without tickets", unreachable)
        self.trouble = unreachable

    def _tidy(self) -> None:
        taken_back = self._alone(statements.SWEEP, self._settings.strikes)
        if taken_back and taken_back[0][0]:
            log.warning("took back %d jobs of workers that are gone", taken_back[0][0])
        while self._alone(statements.WAKE_JOBS, _WOKEN_AT_ONCE) == [(_WOKEN_AT_ONCE,)]:
            pass
        while self._alone(statements.COLLECT_CONTENTS, _CONTENTS_AT_ONCE) > [(0,)]:
            pass
        while self._alone(statements.ADD_UP_TALLIES, _TALLIES_AT_ONCE) == [(True,)]:
            pass
        settings = self._settings
        kept = (settings.query_cache, settings.keep_queries, settings.keep_queries_days)
        self._alone(statements.EXPIRE_QUERIES, *kept)

    def _top_up(self) -> None:
        """Tickets for queued jobs that the waiting ones do not cover: one works off a queue, so
        more than there are workers would only be looked at and dropped."""
        from redis import RedisError

        for queue, queued, workers in self._alone(statements.BACKLOG, _BACKLOG_COUNTED):
            wanted = min(math.ceil(queued / self._batch_size), workers)
            if wanted:
                try:
                    self._tickets.publish(queue, max(0, wanted - self._tickets.waiting(queue)))
                except RedisError as error:
                    log.info("no tickets added, Redis does not answer: %s", error)
        for (queues,) in self._alone(statements.RETIRED_QUEUES):
            for queue in queues:
                self._tickets.forget(queue)

    def _walk(self) -> None:
        """For as long as there is to the next pass, which the other duties are waiting for."""
        end = time.monotonic() + self._settings.steward_interval
        for statement, *step in (
            (statements.WALK_MODELS, _WALKED_AT_ONCE, _BACKLOG_COUNTED),
            (statements.INDEX_WORDS_ANEW, _WORDS_AT_ONCE),
        ):
            while self._alone(statement, *step) == [(True,)]:
                if time.monotonic() > end or self._stopping.is_set():
                    return

    def _alone(self, statement: str, *arguments: int) -> list[tuple[Any, ...]]:
        """A statement's rows, in a transaction of its own; none if another steward is at it."""
        with self._database.transaction("steward") as cursor:
            cursor.execute(statement, arguments)
            return cursor.fetchall()
