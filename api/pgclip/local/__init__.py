"""Postgres and Redis for those who give none: embedded servers, their data in one folder.

    with LocalServices(".pgclip") as services:
        connection = psycopg2.connect(services.database_url)

Several processes may share a folder: the first starts the servers, the last to leave stops them,
and the data stays. Two kernel-held locks carry this, so that no death, however sudden, leaves a
wrong count behind: every user holds `users.lock` shared (who can take it alone is the last), every
server holds its own lock (taken: adopt it; free: nothing runs, start it). Servers that nobody
stopped, because their last user was killed, wait for the next user and are adopted.

Decisions:

* Both servers listen on 127.0.0.1 only, on random ports, with random passwords kept in files of
  mode 0600. A unix socket would need no password, but its path may not exceed 107 bytes and its
  folder must be open to server and clients, and root's server runs as another user. Port and
  password are kept between runs, so that a URL given out before a crash works after it.
* Durable by default: nothing of `fsync` is switched off.
* As root the servers run as an unprivileged user (see programs.py); no folder is opened for it.
* The database user is a superuser of this private cluster, so that extensions, roles and databases
  can be created. Keep the URL as secret as the folder.

This never touches a server it was given a URL for, and signals only processes that work in its
own folder under a server's name.
"""

import atexit
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from pgclip.local.errors import LocalServicesError
from pgclip.local.locks import FileLock
from pgclip.local.postgres import Postgres
from pgclip.local.redis import Redis
from pgclip.local.server import Server

__all__ = ["LocalServices", "LocalServicesError"]


class LocalServices:
    """An embedded Postgres (with pgvector) and Redis, started on entry and shared by folder.

    `database_url` and `redis_url`, where given, are used as they are and that server is not
    started. `postgres_settings` add to or replace the defaults; they hold when this object starts
    the server, not when it adopts one. `timeout` bounds each wait for a start, in seconds.
    """

    def __init__(
        self,
        data_dir: str | os.PathLike[str],
        *,
        database_url: str | None = None,
        redis_url: str | None = None,
        postgres_settings: Mapping[str, str] | None = None,
        timeout: float = 120.0,
    ) -> None:
        self.data_dir = Path(data_dir).expanduser().resolve()
        self._database_url = database_url
        self._redis_url = redis_url
        self._timeout = timeout
        self._postgres = Postgres(self.data_dir, postgres_settings or {})
        self._redis = Redis(self.data_dir)
        self._users: FileLock | None = None
        self._owner = 0

    @property
    def database_url(self) -> str:
        """The libpq URL. Raises LocalServicesError before the start.

        SQLAlchemy, for which `postgresql://` means psycopg 3 since 2.1, needs the driver named:
        `make_url(url).set(drivername="postgresql+psycopg2")`.
        """
        return self._database_url or self._started(self._postgres).url

    @property
    def redis_url(self) -> str:
        """The URL for Celery and redis-py. Raises LocalServicesError before the start."""
        return self._redis_url or self._started(self._redis).url

    @property
    def postgres_pid(self) -> int | None:
        """The process id of the embedded Postgres; None when none is running."""
        return self._postgres.pid

    @property
    def redis_pid(self) -> int | None:
        """The process id of the embedded Redis; None when none is running."""
        return self._redis.pid

    def start(self) -> Self:
        """Start or adopt the servers; called again, bring back one that died.

        Raises LocalServicesError with the end of the server's log when one does not start.
        """
        if not self._embedded():
            return self
        try:
            self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            with FileLock(self.data_dir / "startup.lock") as startup:
                if not startup.exclusive(self._timeout):
                    raise LocalServicesError(
                        f"Another process has been starting or stopping the servers of "
                        f"{self.data_dir} for over {self._timeout:g} s; see who holds startup.lock."
                    )
                self._join()
        except OSError as error:
            raise LocalServicesError(f"{self.data_dir} cannot be used: {error}") from error
        return self

    def stop(self) -> None:
        """Leave; the last user of the folder stops its servers. Harmless when not started."""
        atexit.unregister(self.stop)
        if self._users is None or self._owner != os.getpid():  # a forked child leaves nothing
            return
        try:
            with FileLock(self.data_dir / "startup.lock") as startup:
                if startup.exclusive(self._timeout):
                    self._leave()
                else:  # whoever holds it so long is a user too, and leaves after us
                    self._users.release()
                    self._users = None
        except FileNotFoundError as error:
            raise LocalServicesError(
                f"{self.data_dir} was removed while its servers ran. Postgres ends by itself "
                "within a minute; end the Redis or Valkey server by hand."
            ) from error

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _embedded(self) -> list[Server]:
        given = ((self._database_url, self._postgres), (self._redis_url, self._redis))
        return [server for url, server in given if url is None]

    def _started(self, server: Server) -> Server:
        if self._users is None:
            raise LocalServicesError("Not started: use `with LocalServices(...)` or start().")
        return server

    def _join(self) -> None:
        """Become a user and see that the servers run, under the start-up lock."""
        is_new = self._users is None
        if is_new:
            self._users = FileLock(self.data_dir / "users.lock")
            self._users.shared()
            self._owner = os.getpid()
            atexit.register(self.stop)
        try:
            for server in self._embedded():
                server.ensure(self._timeout)
        except BaseException:
            if is_new:
                self._leave()
            raise

    def _leave(self) -> None:
        """Give up our share, under the start-up lock. Being last, stop also what others started."""
        users, self._users = self._users, None
        if users is None:
            return
        with users:
            is_last = users.exclusive()
        if is_last:  # and stays so: nobody joins without the start-up lock
            try:
                self._postgres.stop()
            finally:
                self._redis.stop()
