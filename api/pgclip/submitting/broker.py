"""The Redis that carries tickets, also one that others use: every key lies below one prefix.

Celery reads its configuration from the environment, from modules in the folder and from Django's
settings, and some of these beat what it is told. None of them is ours: another application's
broker, serializer or queues must not become pgclip's.
"""

from contextlib import closing
from typing import Any
from uuid import uuid4

from celery import Celery
from celery.backends.base import DisabledBackend
from celery.loaders.app import AppLoader

from pgclip.settings import Settings
from pgclip.submitting.place import celery_address, connect

# A ticket that a worker took and lost (a broken connection, SIGKILL) is another's after this.
_VISIBILITY_SECONDS = 300


class _Loader(AppLoader):  # type: ignore[misc]
    """Reads no configuration: not CELERY_CONFIG_MODULE's, and nobody's celeryconfig."""

    def read_configuration(self, env: str = "") -> dict[str, Any]:
        return {}


class TicketApp(Celery):  # type: ignore[misc]
    """A Celery app that takes its broker from pgclip's settings alone, and keeps no results."""

    def __init__(self, broker: str) -> None:
        self._tickets_by = broker
        # A loader that is given is not looked up in CELERY_LOADER; fixups ask Django's settings.
        super().__init__("pgclip", broker=broker, loader=_Loader, fixups=[], set_as_current=False)

    def _connection(self, url: str, **options: Any) -> Any:
        """Every connection is to our broker: what is asked for may be CELERY_BROKER_URL's."""
        return super()._connection(self._tickets_by, **options)

    def _get_backend(self) -> DisabledBackend:
        return DisabledBackend(app=self)


def make_app(settings: Settings) -> Celery:
    """The Celery app that carries tickets; the same for clients and workers."""
    address, options = celery_address(settings)
    app = TicketApp(address)
    limits = {
        **options,
        "socket_connect_timeout": settings.connect_timeout,
        "socket_timeout": settings.connect_timeout,
        "socket_keepalive": True,
        "visibility_timeout": _VISIBILITY_SECONDS,
        # Its lists of what is not acknowledged, too: else it would hand out others' messages.
        "global_keyprefix": settings.redis_key(""),
    }
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        # Early acknowledgement: leases in Postgres cover a worker's death, and a redelivered
        # ticket could only bring a second look at the queue.
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        # Of such tasks there are none; but Celery warns of the default at every loss.
        worker_cancel_long_running_tasks_on_connection_loss=True,
        worker_enable_prefetch_count_reduction=False,
        broker_transport_options=limits,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,
        task_create_missing_queues=True,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
    )
    return app


def try_out(settings: Settings) -> None:
    """Sends a message to a queue of its own and takes it, and all else that tickets need.

    Raises what Redis answers: a right that is lacking, a cluster, a timeout.
    """
    queue = f"doctor.{uuid4()}"
    app = make_app(settings)
    with closing(app), connect(settings) as redis, app.connection_for_write() as connection:
        flag = settings.redis_key(f"{queue}.waiting")
        redis.set(flag, 1, nx=True, ex=10)
        redis.delete(flag)
        with connection.SimpleQueue(queue) as messages:
            messages.put({}, serializer="json")
            redis.llen(settings.redis_key(queue))
            messages.get(timeout=settings.connect_timeout).ack()
            messages.queue.delete()
        app.control.broadcast("ping", destination=[queue])
        with redis.pubsub() as channel:
            channel.psubscribe(settings.redis_key("/0.celery.pidbox"))
            channel.get_message(timeout=settings.connect_timeout)
