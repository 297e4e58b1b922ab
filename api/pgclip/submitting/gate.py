"""Backpressure: a ceiling on the jobs that wait, before which a client stops or waits."""

import threading
import time

from pgclip import statements
from pgclip.database import Database
from pgclip.errors import QueueFull
from pgclip.forks import begin_anew_in_children
from pgclip.loops import on_event_loop
from pgclip.settings import Settings

# Between two looks at the queue the client counts what it submits itself, so with n clients the
# ceiling may be exceeded by what the others submit in that time.
_LOOK_SECONDS = 1.0
_PAUSE_SECONDS = 0.1


class Gate:
    """Lets submissions through while fewer than `max_queued` jobs wait. Thread-safe."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._ceiling = settings.max_queued
        self._patience = settings.queue_wait
        self.after_fork()
        begin_anew_in_children(self)

    def after_fork(self) -> None:
        """In a child: look afresh."""
        self._lock = threading.Lock()
        self._waiting = 0
        self._looked = -_LOOK_SECONDS

    def pass_through(self, items: int) -> None:
        """Returns when there is room; raises QueueFull after `queue_wait` seconds without.

        On an event loop it does not wait: AsyncClient does.
        """
        if not self._ceiling:
            return
        deadline = time.monotonic() + (0 if on_event_loop() else self._patience)
        while not self._admit(items):
            if time.monotonic() >= deadline:
                raise QueueFull(
                    f"{self._ceiling} jobs or more are waiting (PGCLIP_MAX_QUEUED). Nothing of "
                    "this was submitted; try again later, or wait with PGCLIP_QUEUE_WAIT"
                )
            time.sleep(_PAUSE_SECONDS)

    def _admit(self, items: int) -> bool:
        with self._lock:
            if self._waiting >= self._ceiling or time.monotonic() - self._looked > _LOOK_SECONDS:
                with self._database.transaction("look at the queue") as cursor:
                    cursor.execute(statements.WAITING, (self._ceiling,))
                    (self._waiting,) = cursor.fetchone() or (0,)
                self._looked = time.monotonic()
            if self._waiting >= self._ceiling:
                return False
            self._waiting += items
            return True
