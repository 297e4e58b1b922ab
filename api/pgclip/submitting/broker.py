"""The Redis that carries tickets, also one that others use: every key lies below one prefix.

Celery reads its configuration from the environment, from modules in the folder and from Django's
settings, and some of these beat what it is told. None of them is ours: another application's
broker, serializer or queues must not become pgclip's.
"""

from typing import TYPE_CHECKING, Any

from celery import Celery
from celery.backends.base import DisabledBackend
from celery.loaders.app import AppLoader

from pgclip.settings import Settings

if TYPE_CHECKING:
    from redis import Redis

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
    app = TicketApp(_verifying(settings.required("redis_url")))
    limits = {
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
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_transport_options=limits,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,
        task_create_missing_queues=True,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
    )
    return app


def connect(settings: Settings) -> "Redis":
    """A connection for what is asked of Redis directly: flags, lengths of queues."""
    from redis import Redis

    return Redis.from_url(
        settings.required("redis_url"),
        socket_timeout=settings.connect_timeout,
        socket_connect_timeout=settings.connect_timeout,
    )


def _verifying(url: str) -> str:
    """The URL as Celery needs it: without ssl_cert_reqs it would trust any server, unlike redis."""
    if not url.startswith("rediss://") or "ssl_cert_reqs=" in url:
        return url
    return f"{url}{'&' if '?' in url else '?'}ssl_cert_reqs=required"
