"""The Celery worker: a ticket wakes the pipeline. One slot, since a pipeline has one device."""

import logging
import socket
from typing import Any

from celery.signals import setup_logging, worker_shutting_down
from celery.worker import state

from pgclip.errors import PgclipError
from pgclip.settings import Settings
from pgclip.tickets import TASK, BadTicket, Ticket, TicketOffice, make_app
from pgclip_workers import termination
from pgclip_workers.pipeline import Pipeline

log = logging.getLogger(__name__)


def consume(
    settings: Settings, queue: str, name: str, tickets: TicketOffice, pipeline: Pipeline
) -> int:
    """Runs a Celery worker in this thread until SIGTERM or SIGINT; returns its exit status."""
    app = make_app(settings)

    @app.task(name=TASK)  # type: ignore[untyped-decorator]
    def work(**message: Any) -> None:
        try:
            ticket = Ticket.decode(message)
        except BadTicket as error:
            log.warning("refused a message: %s", error)
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


def _keep(**_: Any) -> None:
    """Heard by someone, Celery leaves logging as it is configured already."""
