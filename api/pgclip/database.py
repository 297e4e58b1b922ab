"""Transactions in Postgres: with timeouts, on connections that are alive, the schema checked once.

Behind a pooler in transaction mode a session is shared with strangers: what is set for it stays and
meets them, and what it listens to is told to them. So nothing outlives a transaction here: it sets
for itself what it needs, in the statement that begins it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from pgclip.connections import Lent, Pool, Single
from pgclip.errors import SchemaError, translated
from pgclip.forks import begin_anew_in_children

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection
    from psycopg2.extensions import cursor as Cursor

# The version of the schema (of migrations/versions) that this package was made with.
SCHEMA_VERSION = "0009"


class Database:
    """The database that holds schema pgclip, on at most `pool_size` psycopg2 connections.

    `local` are Postgres settings for every transaction, such as lock_timeout; without any, no limit
    on statements, whatever a role's default. `check`: whether the schema's version is looked at
    first. Connections are made when they are first needed. Thread-safe.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 5,
        connect_timeout: float = 5.0,
        local: Mapping[str, str] | None = None,
        application_name: str = "pgclip",
        check: bool = True,
    ) -> None:
        options = {
            "connect_timeout": max(1, round(connect_timeout)),
            "application_name": application_name,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            # Milliseconds: a host that vanished must not hold a heartbeat for a quarter hour.
            "tcp_user_timeout": 30_000,
        }
        self._connections: Pool | Single = (
            Single(url, options) if pool_size == 1 else Pool(url, options, pool_size)
        )
        self._local = {"statement_timeout": "0"} if local is None else dict(local)
        self._shares_sessions: bool | None = None
        self._in_use: set[Connection] = set()
        self._checked = not check
        begin_anew_in_children(self)

    def after_fork(self) -> None:
        """In a child: connections of its own."""
        self._connections.dispose(close=False)

    def close(self) -> None:
        """Closes the connections that are not in use."""
        self._connections.dispose()

    def cancel(self) -> None:
        """Ends the statements that are running, as if Postgres had cancelled them."""
        from psycopg2 import Error

        for connection in tuple(self._in_use):
            with suppress(Error):  # it may have broken, or ended by itself
                connection.cancel()

    @contextmanager
    def transaction(self, what: str, *, writes: bool = True, **local: str) -> Iterator["Cursor"]:
        """A cursor in a transaction of its own: committed at the end, rolled back on an error.

        `what` names the item or the action in errors; `local` are more settings, for this one. One
        that `writes` does so whatever is the role's or the database's default. Raises
        ConnectionFailed, SchemaError or what the SQL functions raise (see pgclip.errors).
        """
        begin = _begin(writes, {**self._local, **local})
        with self._connection(what, begin) as connection, connection.cursor() as cursor:
            try:
                yield cursor
                cursor.execute("COMMIT")
            except BaseException:
                _roll_back(connection)
                raise

    @contextmanager
    def statements(self, what: str) -> Iterator["Cursor"]:
        """A cursor whose statements are transactions of their own, with no settings of ours.

        Between two of them a pooler may give the session to somebody else.
        """
        with self._connection(what, "SELECT") as connection, connection.cursor() as cursor:
            yield cursor

    def shares_sessions(self) -> bool:
        """Whether a pooler stands between us and Postgres, so that no session is ours alone.

        It is the one that tells us a process to cancel: that is not the one which answers.
        """
        if self._shares_sessions is None:
            with self.statements("looking for a pooler") as cursor:
                cursor.execute("SELECT pg_backend_pid()")
                (answering,) = cursor.fetchone() or (0,)
                self._shares_sessions = answering != cursor.connection.get_backend_pid()
        return self._shares_sessions

    @contextmanager
    def _connection(self, what: str, first: str) -> Iterator["Connection"]:
        """One on which the first statement has been run, which also tells whether it is alive."""
        with translated(what):
            lent = self._lent(what, first)
            connection = lent.driver_connection
            try:
                self._in_use.add(connection)
                yield connection
            except BaseException:
                if connection.closed:
                    lent.invalidate()
                raise
            finally:
                self._in_use.discard(connection)
                lent.close()

    def _lent(self, what: str, first: str) -> Lent:
        from psycopg2 import InterfaceError, OperationalError

        lent = self._connections.lend(what)
        connection = lent.driver_connection
        try:
            return self._begun(lent, first)
        except (OperationalError, InterfaceError):
            if connection is None or not connection.closed:
                raise
        # The server has gone away since it was last used, and so from the others: all anew.
        self._connections.dispose()
        return self._begun(self._connections.lend(what), first)

    def _begun(self, lent: Lent, first: str) -> Lent:
        connection = lent.driver_connection
        try:
            if not lent.info.get("prepared"):
                connection.autocommit = True  # transactions begin where they say so
                lent.info["prepared"] = True
            with connection.cursor() as cursor:
                if not self._checked:
                    check_schema(cursor)
                    self._checked = True
                cursor.execute(first)
        except BaseException:
            _roll_back(connection)
            if connection.closed:
                lent.invalidate()
            lent.close()
            raise
        return lent


def _roll_back(connection: "Connection") -> None:
    from psycopg2 import Error

    if not connection.closed:
        try:
            with connection.cursor() as cursor:
                cursor.execute("ROLLBACK")
        except Error:  # it has broken, and nothing else may use it
            connection.close()


def _begin(writes: bool, local: Mapping[str, str]) -> str:
    """Begins a transaction with its settings, in one statement and one round trip.

    What is looked at under a lock must be what is there then, whatever the database's default.
    """
    mode = " READ WRITE" if writes else ""
    settings = (f"; SET LOCAL {name} = '{value}'" for name, value in local.items())
    return f"BEGIN ISOLATION LEVEL READ COMMITTED{mode}{''.join(settings)}"


def schema_version(cursor: "Cursor") -> str | None:
    """The version of the schema in the database; None if there is none."""
    cursor.execute("SELECT to_regclass('pgclip.schema_version') IS NOT NULL")
    if cursor.fetchone() != (True,):
        return None
    cursor.execute("SELECT max(version_num) FROM pgclip.schema_version")
    (version,) = cursor.fetchone() or (None,)
    return version and str(version)


def check_schema(cursor: "Cursor") -> None:
    """Raises SchemaError unless the database has a schema that answers this package.

    A newer one does, as long as it says so.
    """
    found = schema_version(cursor)
    if found is None:
        raise SchemaError("this database has no schema pgclip. Run: pgclip migrate")
    if found < SCHEMA_VERSION:
        raise SchemaError(
            f"schema pgclip is at version {found}, this package needs {SCHEMA_VERSION}. "
            "Run: pgclip migrate"
        )
    if found > SCHEMA_VERSION:
        cursor.execute("SELECT pgclip.serves()")
        (serves,) = cursor.fetchone() or ("",)
        if serves > SCHEMA_VERSION:
            raise newer_schema(found)


def newer_schema(found: str) -> SchemaError:
    """What is said of a schema that this package is too old for."""
    return SchemaError(
        f"schema pgclip is at version {found}, newer than this package's {SCHEMA_VERSION}. "
        "Upgrade the package: pip install --upgrade pgclip"
    )
