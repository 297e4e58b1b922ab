"""Keeps indexed tables in step: rows that have changed, and all rows of a table that is new."""

import logging
import threading

from pgclip.database import Database
from pgclip.errors import PgclipError
from pgclip.settings import Settings
from pgclip.submitting.tickets import TicketOffice
from pgclip_workers import statements

log = logging.getLogger(__name__)


class TableFollower:
    """Looks for changes that tables have noted, on a thread of its own: twice in `idle_poll`, or
    if no table is indexed as often as the steward.

    Of all workers one at a time reads rows, a page in a transaction: a lock of the database sees to
    it. What of a table can't be read is noted there (`pgclip.tables`), and holds up no other.
    """

    def __init__(self, settings: Settings, database: Database, tickets: TicketOffice) -> None:
        self._settings = settings
        self._database = database
        self._tickets = tickets
        self._stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, name="tables", daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """Ends after the page under way."""
        self._stopping.set()
        self.thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            seconds = self._settings.idle_poll
            try:
                seconds = self._step()
            except PgclipError as error:
                log.warning("tables are not followed: %s", error)
            except Exception:
                log.exception("tables are not followed")
            self._stopping.wait(seconds)

    def _step(self) -> float:
        """How many seconds from now to look again."""
        with self._database.transaction("follow tables") as cursor:
            cursor.execute(statements.FOLLOW_TABLES)
            step = cursor.fetchone()
        if step is None:  # another worker is at it
            return self._settings.steward_interval
        tables, did, submitted, queues = step
        if submitted:
            self._tickets.announce(queues)
        if did:
            return 0
        return self._settings.idle_poll / 2 if tables else self._settings.steward_interval
