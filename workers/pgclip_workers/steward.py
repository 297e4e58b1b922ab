"""The steward in every worker: one at a time takes back dead leases, tidies, adds tickets."""

import logging
import math
import threading

from pgclip.database import Database
from pgclip.errors import PgclipError
from pgclip.settings import Settings
from pgclip.tickets import TicketOffice
from pgclip_workers import statements

log = logging.getLogger(__name__)

_CONTENTS_A_PASS = 500


class Steward:
    """Passes every `steward_interval` seconds, in short transactions, until stopped."""

    def __init__(
        self, settings: Settings, database: Database, tickets: TicketOffice, batch_size: int
    ) -> None:
        self._settings = settings
        self._database = database
        self._tickets = tickets
        self._batch_size = batch_size
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="steward", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends after the pass under way."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._settings.steward_interval):
            try:
                self._tidy()
                self._top_up()
            except PgclipError as error:
                log.warning("the steward's pass failed: %s", error)
            except Exception:
                log.exception("the steward's pass failed")

    def _tidy(self) -> None:
        for statement, argument in (
            (statements.SWEEP, self._settings.strikes),
            (statements.COLLECT_CONTENTS, _CONTENTS_A_PASS),
            (statements.EXPIRE_QUERIES, self._settings.query_cache),
        ):
            with self._database.transaction("steward") as cursor:
                cursor.execute(statements.STEWARD_LOCK)
                if cursor.fetchone() != (True,):
                    return
                cursor.execute(statement, (argument,))
                (count,) = cursor.fetchone() or (0,)
                if statement is statements.SWEEP and count:
                    log.warning("took back %d jobs of workers that are gone", count)

    def _top_up(self) -> None:
        """Tickets for queued jobs that the waiting ones do not cover: one works off a queue, so
        more than there are workers would only be looked at and dropped."""
        from redis import RedisError

        with self._database.transaction("backlog") as cursor:
            cursor.execute(statements.BACKLOG)
            rows = cursor.fetchall()
        for queue, queued, workers in rows:
            wanted = min(math.ceil(queued / self._batch_size), workers)
            if wanted:
                try:
                    self._tickets.publish(queue, max(0, wanted - self._tickets.waiting(queue)))
                except RedisError as error:
                    log.info("no tickets added, Redis does not answer: %s", error)
