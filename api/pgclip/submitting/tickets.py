"""Tickets: Celery messages that say "there is work", and nothing that exists nowhere else.

A ticket that is lost costs a second, since idle workers look for work by themselves. So
publishing never raises and never waits long: without Redis, submissions are still accepted.
"""

import logging
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pgclip.forks import begin_anew_in_children
from pgclip.settings import Settings
from pgclip.submitting.place import CLUSTER

if TYPE_CHECKING:
    from celery import Celery

log = logging.getLogger(__name__)

TASK = "pgclip.work"
_VERSION = 1
# A flag that a ticket is waiting, so that single submissions do not publish one each. Workers
# clear it before they claim; the limit is for a flag whose ticket was lost.
_FLAG_SECONDS = 10
# After a failure to reach Redis, how long no further attempt delays anyone.
_PAUSE_SECONDS = 5.0
# How long such a failure is told of. Nobody may have a ticket to publish for longer.
_TOLD_SECONDS = 15.0


def _is_of_a_cluster(error: Exception) -> bool:
    return any(word in str(error) for word in ("MOVED", "CROSSSLOT", "cluster mode"))


class BadTicket(ValueError):
    """A message that is not a ticket of a version that this package reads."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """The whole message: the queue that it was sent to, which names installation and model."""

    queue: str
    version: int = _VERSION

    def encode(self) -> dict[str, Any]:
        """The message's keyword arguments."""
        return asdict(self)

    @classmethod
    def decode(cls, message: dict[str, Any]) -> "Ticket":
        """Raises BadTicket."""
        match message:
            case {"queue": str(queue), "version": 1, **rest} if not rest:
                return cls(queue)
        raise BadTicket(f"not a ticket: {message!r:.200}")


class TicketOffice:
    """Publishes tickets after a commit. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.after_fork()
        begin_anew_in_children(self)

    def after_fork(self) -> None:
        """In a child: connections of its own."""
        self._lock = threading.Lock()
        self._app: Celery | None = None
        self._redis: Any = None
        self._closed_until = 0.0
        self._refusal = ""
        self._refused_at = -_TOLD_SECONDS

    def announce(self, queues: Iterable[str]) -> None:
        """Publishes a ticket to each queue in which none is waiting."""
        for queue in queues:
            self._attempt(queue, coalesce=True)

    def publish(self, queue: str, count: int) -> None:
        """Publishes `count` tickets, whatever is waiting."""
        for _ in range(count):
            self._attempt(queue, coalesce=False)

    def forget(self, queue: str) -> None:
        """Deletes a queue that nobody works off any more, with all that Redis has of it.

        Raises redis.RedisError.
        """
        bindings = (f"_kombu.{kind}.{queue}" for kind in ("binding", "binding_permanent"))
        keys = (queue, f"{queue}.waiting", *bindings)
        self._connected()[1].delete(*map(self._settings.redis_key, keys))

    def waiting(self, queue: str) -> int:
        """How many tickets wait in a queue. Raises redis.RedisError."""
        return int(self._connected()[1].llen(self._settings.redis_key(queue)))

    def unreachable(self) -> str | None:
        """Why Redis can't be asked, or lately took no ticket; None if it can and does."""
        try:
            self._connected()[1].ping()
        except Exception as error:
            return f"Redis does not answer ({type(error).__name__}: {error})"
        is_recent = time.monotonic() < self._refused_at + _TOLD_SECONDS
        return self._refusal if is_recent else None

    def taken(self, queue: str) -> None:
        """A worker has taken a ticket and is about to claim: from now on publish again."""
        try:
            self._connected()[1].delete(self._flag(queue))
        except Exception as error:  # the flag runs out by itself
            log.info("could not clear the ticket flag: %s", error)

    def close(self) -> None:
        """Closes the connections to Redis. What it is told must not look like a failure of ours."""
        with self._lock:
            for each in filter(None, (self._app, self._redis)):
                with suppress(Exception):
                    each.close()
            self._app = self._redis = None

    def _attempt(self, queue: str, *, coalesce: bool) -> None:
        if time.monotonic() < self._closed_until:
            return
        try:
            app, redis = self._connected()
            if coalesce and not redis.set(self._flag(queue), 1, nx=True, ex=_FLAG_SECONDS):
                return
            app.send_task(TASK, kwargs=Ticket(queue).encode(), queue=queue, retry=False,
                          ignore_result=True)  # fmt: skip
            self._refused_at = -_TOLD_SECONDS
        except Exception as error:  # whatever it is, the submission is committed already
            self._refused_at = time.monotonic()
            self._closed_until = self._refused_at + _PAUSE_SECONDS
            why = CLUSTER if _is_of_a_cluster(error) else f"{type(error).__name__}: {error}"
            self._refusal = f"Redis takes no ticket ({why})"
            log.warning(
                "no ticket could be published (%s); idle workers find the work by themselves", why
            )

    def _connected(self) -> tuple["Celery", Any]:
        with self._lock:
            if self._app is None:
                from pgclip.submitting.broker import make_app
                from pgclip.submitting.place import connect

                self._app = make_app(self._settings)
                self._redis = connect(self._settings)
            return self._app, self._redis

    def _flag(self, queue: str) -> str:
        """The Redis key that says that a ticket waits in a queue."""
        return self._settings.redis_key(f"{queue}.waiting")
