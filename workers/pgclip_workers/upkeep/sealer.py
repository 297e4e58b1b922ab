"""Keeps the segments of the worker's model in order, and measures what searches find in them.

On a thread and a connection of its own.
"""

import logging
import threading
import time
from collections.abc import Callable

from pgclip import statements
from pgclip.database import Database
from pgclip.errors import PgclipError
from pgclip.searching.segments import Maintenance, maintenance_connections
from pgclip.settings import Settings
from pgclip_workers.statements import IS_NO_LEISURE, IS_ONE_CLOSED

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
# A burst is left alone until this share of what may be without an index is. A quarter of the
# default adds about 25 ms to a search.
_PATIENCE = 0.25
# So many waiting jobs are a time to encode and not to build better indexes.
_BACKLOG = 10_000


class Sealer:
    """Builds segments' indexes while others store and search; of all workers one at a time.

    Building an index takes minutes; it must never hold up the steward.
    """

    def __init__(self, settings: Settings, database: Database, model: int) -> None:
        self._settings = settings
        self._database = database
        self._model = model
        self._own = maintenance_connections(settings)
        self._patience = int(settings.max_unindexed * _PATIENCE)
        self._maintenance = Maintenance(
            settings, self._own, model, self._patience, yields=self._is_no_leisure
        )
        self._stopping = threading.Event()
        self._counted_at = 0.0
        self._unindexed = 0
        self.trouble: str | None = None
        self.thread = threading.Thread(target=self._run, name="segments", daemon=True)
        self.thread.start()

    def wait_for_room(self, waiting: Callable[[], object]) -> None:
        """Returns once few enough vectors are without an index, or the worker stops.

        Every search compares those one by one, so storing waits rather than searching; `waiting` is
        called again and again meanwhile.
        """
        while self._count() > self._settings.max_unindexed and not self._stopping.is_set():
            if self.trouble is None:
                self.trouble = (
                    f"storing waits: {self._unindexed} vectors have no index yet, more than "
                    f"PGCLIP_MAX_UNINDEXED ({self._settings.max_unindexed}); it is being made"
                )
                log.warning("%s", self.trouble)
            waiting()
            self._stopping.wait(_LOOK_SECONDS)
        self.trouble = None

    def stop(self) -> None:
        """Gives up what is being built; another worker, or the next start, builds it."""
        self._stopping.set()
        while self.thread.is_alive():
            self._own.cancel()
            self.thread.join(0.2)
        self._own.close()

    def _run(self) -> None:
        while not self._stopping.wait(self._settings.steward_interval):
            try:
                self._maintenance.run(self._stopping.is_set, self._measure)
            except PgclipError as error:
                if not self._stopping.is_set():
                    log.warning("segments were not kept in order: %s", error)
            except Exception:
                log.exception("segments were not kept in order")

    def _measure(self) -> None:
        """Directions that nobody measured yet, or one that changed.

        It takes a minute where a million are compared: indexes that are waited for come first.
        """
        measured = True
        while measured and not self._others_wait() and not self._stopping.is_set():
            with self._own.transaction("recall") as cursor:
                cursor.execute(statements.MEASURE_RECALL, (self._model, self._settings.recall))
                measured = cursor.fetchone() == (True,)

    def _others_wait(self) -> bool:
        """Whether more vectors have no index than are left alone in a burst, and one can be built.

        The hot segment's alone may be as many: nothing is gained by making way for them.
        """
        return self._count() > self._patience and self._is(IS_ONE_CLOSED, (self._model,))

    def _is_no_leisure(self) -> bool:
        """Whether there is much to do, or a model being dropped.

        While a transaction is open, what is dead of the queue stays, and claims pass over it; and
        vectors of a model are dropped when those have ended who may be reading them.
        """
        return self._others_wait() or self._is(IS_NO_LEISURE, (_BACKLOG,))

    def _is(self, statement: str, parameters: tuple[int, ...]) -> bool:
        try:
            with self._database.transaction("segments") as cursor:
                cursor.execute(statement, parameters)
                return cursor.fetchone() == (True,)
        except PgclipError as error:  # storing and building will tell what is wrong
            log.info("whether others wait was not found out: %s", error)
            return False

    def _count(self) -> int:
        """Counted at most once in _LOOK_SECONDS."""
        if time.monotonic() - self._counted_at > _LOOK_SECONDS:
            try:
                with self._database.transaction("segments") as cursor:
                    cursor.execute(statements.UNINDEXED, (self._model,))
                    (self._unindexed,) = cursor.fetchone() or (0,)
            except PgclipError as error:  # storing will tell what is wrong
                log.info("vectors without an index were not counted: %s", error)
                return 0
            self._counted_at = time.monotonic()
        return self._unindexed
