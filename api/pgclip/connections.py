"""Connections to Postgres: from a pool, or a single one, which needs no SQLAlchemy.

Both lend a psycopg2 connection, which goes back with close().
"""

import re
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qs, unquote

from pgclip.errors import ConfigurationError, ConnectionFailed

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection
    from sqlalchemy import Engine

_PATIENCE = 30  # s to wait for a connection that others have


class Lent(Protocol):
    """A connection on loan."""

    @property
    def driver_connection(self) -> Any:
        """psycopg2's."""

    @property
    def info(self) -> dict[Any, Any]:
        """What is known of it, for as long as it lives."""

    def invalidate(self) -> None:
        """It is broken: nobody else gets it."""

    def close(self) -> None:
        """Gives it back."""


class Pool:
    """At most `size` connections, of a SQLAlchemy engine. Raises ConfigurationError."""

    def __init__(self, url: str, options: dict[str, Any], size: int) -> None:
        self._engine = make_engine(
            url, pool_size=size, max_overflow=0, pool_timeout=_PATIENCE, connect_args=options
        )

    def lend(self, what: str) -> Lent:
        """One of them. Raises ConnectionFailed and psycopg2.Error."""
        from sqlalchemy.exc import DBAPIError
        from sqlalchemy.exc import TimeoutError as PoolTimeout

        try:
            return self._engine.raw_connection()
        except PoolTimeout as error:
            raise _all_in_use(what) from error
        except DBAPIError as error:
            if error.orig is None:
                raise
            raise error.orig from None

    def dispose(self, close: bool = True) -> None:
        """Closes those that nobody has, or, in a child of a fork, lets go of them."""
        self._engine.dispose(close=close)


class Single:
    """One connection, lent to one at a time. Raises ConfigurationError."""

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        self._options = {**keywords_of(url), **options}
        self._connection: Connection | None = None
        self._info: dict[Any, Any] = {}
        self._free = Lock()

    def lend(self, what: str) -> Lent:
        """It, connected if it is not. Raises ConnectionFailed and psycopg2.Error."""
        import psycopg2

        if not self._free.acquire(timeout=_PATIENCE):
            raise _all_in_use(what)
        if self._connection is None or self._connection.closed:
            try:
                self._connection, self._info = psycopg2.connect(**self._options), {}
            except BaseException:
                self._free.release()
                raise
        return _Loan(self._connection, self._info, self._free)

    def dispose(self, close: bool = True) -> None:
        """Closes it if nobody has it, or, in a child of a fork, lets go of it."""
        if not close:
            self._connection, self._free = None, Lock()
        elif self._free.acquire(blocking=False):
            if self._connection is not None:
                self._connection.close()
            self._free.release()


class _Loan:
    def __init__(self, connection: "Connection", info: dict[Any, Any], free: Lock) -> None:
        self.driver_connection = connection
        self.info = info
        self._free = free

    def invalidate(self) -> None:
        self.driver_connection.close()

    def close(self) -> None:
        self._free.release()


def _all_in_use(what: str) -> ConnectionFailed:
    return ConnectionFailed(f"{what}: all connections of this client are in use (PGCLIP_POOL_SIZE)")


def _no_url() -> ConfigurationError:
    return ConfigurationError("PGCLIP_DATABASE_URL is not a URL")


def make_engine(url: str, **options: Any) -> "Engine":
    """A SQLAlchemy engine on psycopg2 for any spelling of a Postgres URL.

    Raises ConfigurationError if it is not one.
    """
    from sqlalchemy import create_engine, make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(_hosts_as_options(url))
    except (ArgumentError, ValueError):
        raise _no_url() from None
    _require_postgres(parsed.drivername)
    return create_engine(parsed.set(drivername="postgresql+psycopg2"), **options)


def _hosts_as_options(url: str) -> str:
    """Several hosts, as libpq writes them (h1:p1,h2:p2), in the spelling that SQLAlchemy knows."""
    scheme, mark, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    login, at, hosts = place.rpartition("@")
    if "," not in hosts:
        return url
    path, _, options = path.partition("?")
    each = [f"host={host}" for host in hosts.split(",")]
    return f"{scheme}{mark}{login}{at}{slash}{path}?{'&'.join([*each, *filter(None, [options])])}"


def keywords_of(url: str) -> dict[str, str]:
    """A URL as psycopg2 takes it, read as SQLAlchemy reads it, and with hosts as libpq writes them.

    Raises ConfigurationError.
    """
    scheme, mark, rest = url.partition("://")
    if not mark:
        raise _no_url()
    _require_postgres(scheme)
    authority = re.split("[/?]", rest, maxsplit=1)[0]
    path, _, query = rest[len(authority) :].partition("?")
    login, _, places = authority.rpartition("@")
    user, colon, password = login.partition(":")
    options = parse_qs(query)
    ports = options.pop("port", [])
    pairs = [_host_and_port(place) for place in options.pop("host", places.split(","))]
    found = {
        "host": ",".join(host for host, _ in pairs),
        "port": ports[-1] if ports else ",".join(port for _, port in pairs),
        "user": unquote(user),
        "password": unquote(password) if colon else "",
        "dbname": unquote(path.removeprefix("/")),
    }
    given = {name: value for name, value in found.items() if value.strip(",")}
    return given | {name: values[-1] for name, values in options.items()}


def _host_and_port(place: str) -> tuple[str, str]:
    """Of host:port, [address]:port, or a folder with a socket. Raises ConfigurationError."""
    match = re.fullmatch(r"(\[[^]]*\]|[^:]*|/.*?|[^:]*:[^:]*:.*?)(?::([0-9]*))?", place)
    if match is None:
        raise _no_url()
    return unquote(match[1]).strip("[]"), match[2] or ""


def _require_postgres(scheme: str) -> None:
    if scheme.split("+")[0] not in ("postgresql", "postgres"):
        raise ConfigurationError(f"PGCLIP_DATABASE_URL is for {scheme}, not for postgresql")
