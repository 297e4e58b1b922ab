"""The Celery worker: a ticket wakes the pipeline. One slot, since a pipeline has one device."""

import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from celery.signals import setup_logging, worker_shutting_down
from celery.worker import state
from celery.worker.consumer import Consumer
from celery.worker.control import Panel

from pgclip.errors import PgclipError
from pgclip.settings import Settings
from pgclip.submitting.broker import make_app
from pgclip.submitting.tickets import TASK, BadTicket, Ticket, TicketOffice
from pgclip_workers import termination
from pgclip_workers.pipeline.pipeline import Pipeline

log = logging.getLogger(__name__)

# What Celery's tools may ask of a worker by way of Redis: looking, and events for Flower. Others,
# such as shutdown, are not for whoever can write there.
_REMOTE = {
    *("ping", "hello", "active", "active_queues", "reserved", "scheduled", "revoked"),
    *("registered", "query_task", "stats", "conf", "report", "clock"),
    *("enable_events", "disable_events", "heartbeat"),
}


# After a connection broke, and again at once: doubled each time up to the longest.
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0


class Link:
    """The connection that tickets come through: what breaks it is told, and tried ever less often.

    `trouble` says what broke it last, until it has held for a while.
    """

    def __init__(self) -> None:
        self._why = ""
        self._pause = 0.0
        self._until = 0.0

    @property
    def trouble(self) -> str | None:
        """For the heartbeat."""
        return self._why if time.monotonic() < self._until else None

    def broke(self, why: Exception, stopping: threading.Event) -> None:
        """Waits before another connection is tried."""
        again = time.monotonic() < self._until
        self._pause = min(2 * self._pause, _LONGEST_PAUSE) if again else _FIRST_PAUSE
        self._why = f"tickets don't come through ({type(why).__name__}: {why})"
        self._until = time.monotonic() + 3 * self._pause + 10
        log.warning("%s; the next attempt is in %g s", self._why, self._pause)
        stopping.wait(self._pause)


def consume(
    settings: Settings,
    queue: str,
    name: str,
    tickets: TicketOffice,
    pipeline: Pipeline,
    refused: Callable[[], object],
    link: Link,
) -> int:
    """Runs a Celery worker in this thread until SIGTERM or SIGINT; returns its exit status.

    `refused` is called for every message that is no ticket; nothing else is done with it.
    """
    app = make_app(settings)
    app.conf.worker_consumer = _consumer(refused, link, pipeline.stopping)
    Panel.data = {name: call for name, call in Panel.data.items() if name in _REMOTE}

    @app.task(name=TASK)  # type: ignore[untyped-decorator]
    def work(*given: Any, **message: Any) -> None:
        try:
            ticket = Ticket.decode({"": given, **message} if given else message)
        except BadTicket as error:
            log.warning("refused a message: %s", error)
            refused()
            return
        tickets.taken(ticket.queue)
        try:
            pipeline.drain()
        except (PgclipError, MemoryError) as error:
            # Raised, a MemoryError would leak Celery's slot. The idle look tries again.
            log.warning("stopped working on a ticket: %s", error)

    def stop(**_: Any) -> None:
        pipeline.stop()

    def stop_soon() -> None:
        pipeline.stop()
        state.should_stop = 0  # an exit status: Celery looks here once it has started

    termination.call(stop_soon)
    worker_shutting_down.connect(stop)
    setup_logging.connect(_keep)
    worker = app.Worker(
        pool="threads",
        concurrency=1,
        queues=[queue],
        hostname=f"{name}@{socket.gethostname()}",
        without_gossip=True,
        without_mingle=True,
        quiet=True,
    )
    try:
        worker.start()
    finally:
        worker_shutting_down.disconnect(stop)
    return int(worker.exitcode or 0)


def _consumer(
    refused: Callable[[], object], link: Link, stopping: threading.Event
) -> type[Consumer]:
    """Celery's consumer, which logs and drops what it can't read or has no task for, counted."""

    class Counting(Consumer):  # type: ignore[misc]
        def on_connection_error_after_connected(self, exc: Exception) -> None:
            super().on_connection_error_after_connected(exc)
            link.broke(exc, stopping)

        def on_decode_error(self, *of_message: Any) -> None:
            refused()
            super().on_decode_error(*of_message)

        def on_unknown_message(self, *of_message: Any) -> None:
            refused()
            super().on_unknown_message(*of_message)

        def on_unknown_task(self, *of_message: Any) -> None:
            refused()
            super().on_unknown_task(*of_message)

        def on_invalid_task(self, *of_message: Any) -> None:
            refused()
            super().on_invalid_task(*of_message)

    return Counting


def _keep(**_: Any) -> None:
    """Heard by someone, Celery leaves logging as it is configured already."""
