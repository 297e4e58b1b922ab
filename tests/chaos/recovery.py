"""How long it takes until all goes on as before a fault."""

import time
from collections.abc import Callable

from stage import Stage

_GIVE_UP = 120
# Poison items end whole workers several times over before they are blamed.
_SETTLE_SECONDS = 300

_LATER = """
    SELECT EXISTS (SELECT FROM pgclip.embedding_set WHERE stored_at > %s)
        OR EXISTS (SELECT FROM pgclip.failure WHERE failed_at > %s)
"""
_HELD_BY_THE_DEAD = """
    SELECT EXISTS (SELECT FROM pgclip.job j JOIN pgclip.worker w ON w.id = j.worker_id
                   WHERE j.lease IS NOT NULL AND w.pid <> ALL (%s))
"""
_LEFT = """
    SELECT (SELECT count(*) FROM pgclip.job) + (SELECT count(*) FROM pgclip.content c
            WHERE NOT EXISTS (SELECT FROM pgclip.item i
                              WHERE i.content_hash = c.hash AND i.kind = c.kind))
         + (SELECT count(*) FROM pgclip.tables WHERE changes > 0 OR state <> 'followed')
"""


def until_progress(stage: Stage) -> float:
    """Seconds until something is stored or failed that was not at the time of the call."""
    ((now,),) = stage.sql("SELECT clock_timestamp()")
    return _until(stage, lambda: stage.sql(_LATER, now, now) == [(True,)], "nothing was stored")


def until_leases_are_back(stage: Stage) -> float:
    """Seconds until no job is leased to a process that has ended."""

    def are_back() -> bool:
        living = [worker.process.pid for worker in stage.workers if worker.lives]
        return stage.sql(_HELD_BY_THE_DEAD, living) == [(False,)]

    return _until(stage, are_back, "leases of ended workers were not taken back")


def until_settled(stage: Stage) -> float:
    """Seconds until nothing is queued and nothing is left to be collected."""
    start = time.monotonic()
    while stage.sql(_LEFT) != [(0,)] and time.monotonic() - start < _SETTLE_SECONDS:
        time.sleep(0.2)
    time.sleep(3)  # for tickets that are on their way
    return time.monotonic() - start


def _until(stage: Stage, reached: Callable[[], bool], otherwise: str) -> float:
    start = time.monotonic()
    time.sleep(0.05)  # so that who was killed just now has ended
    while not reached():
        if time.monotonic() - start > _GIVE_UP:
            stage.troubles.append(f"{otherwise} for {_GIVE_UP} s")
            break
        time.sleep(0.05)
    return time.monotonic() - start
