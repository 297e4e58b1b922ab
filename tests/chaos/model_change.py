"""A second model comes in the middle of a run, is promoted while it goes on, and the first goes.

Its workers give the same vectors, so that what must be there in the end is what it always is.
"""

import time

import psycopg2
from stage import Stage, Worker

_WORKERS = 2
_GIVE_UP = 120
LIVE = "SELECT name FROM pgclip.model WHERE state = 'live'"


class ModelChange:
    """One step after each fault; what went wrong is among the stage's troubles."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._first = list(stage.workers)
        self.added_at: int | None = None
        self.promoted_at: int | None = None

    def step(self, hits: int, faults: int) -> None:
        """Adds it after a third of the faults, promotes it as soon as it is ready after a half."""
        if self.added_at is None and 3 * hits >= faults:
            self._stage.sql("SELECT pgclip.add_model('second', map_sample => 300)")
            self.added_at = hits
            self._stage.workers += [
                Worker(200 + n, self._stage, PGCLIP_MODEL_NAME="second") for n in range(_WORKERS)
            ]
        elif self.promoted_at is None and 2 * hits >= faults and self._promoted():
            self.promoted_at = hits

    def finish(self) -> None:
        """When nothing is submitted any more: promoted if it is not yet, and the first dropped."""
        end = time.monotonic() + _GIVE_UP
        while self.promoted_at is None and time.monotonic() < end:
            self.promoted_at = -1 if self._promoted() else None
            time.sleep(0.5)
        if self.promoted_at is None:
            lacking = self._stage.sql("SELECT what, detail FROM pgclip.readiness('second')"
                                      " WHERE NOT is_ready")  # fmt: skip
            self._stage.troubles.append(f"the second model is not ready: {lacking}")
            return
        for worker in self._first:
            self._stage.workers.remove(worker)
        self._stage.sql("SELECT pgclip.drop_model('planted', anyway => true)")
        while self._stage.sql("SELECT count(*) FROM pgclip.model") != [(1,)]:
            if time.monotonic() > end + _GIVE_UP:
                self._stage.troubles.append("the first model is not gone")
                break
            time.sleep(0.2)
        for worker in self._first:
            if worker.process.wait(30) == 0:
                self._stage.troubles.append("a worker of the first model ended as if all were well")
            worker.close()

    def _promoted(self) -> bool:
        try:
            self._stage.sql("SELECT pgclip.promote_model('second')")
        except psycopg2.Error as error:
            if error.pgcode != "PC006":
                raise
        return self._stage.sql(LIVE) == [("second",)]
