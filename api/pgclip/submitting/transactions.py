"""The caller's own transaction: rolled back means never submitted.

Whatever the caller has (a SQLAlchemy Session or Connection, Django's connection, any DB-API one),
two things are asked of it: to run a statement, and to say when it has committed, where it can.
"""

import threading
from collections.abc import Callable, Sequence
from inspect import iscoroutinefunction
from typing import Any, Protocol

from pgclip.errors import ConfigurationError, translated_by_state
from pgclip.loops import on_event_loop

_PENDING = "pgclip.after_commit"


class Transaction(Protocol):
    """A transaction that is the caller's: never committed or rolled back here."""

    def execute(self, statement: str, arguments: Sequence[Any]) -> list[Any]:
        """Runs a statement with %s for each argument, and returns its rows."""

    def after_commit(self, call: Callable[[], None]) -> None:
        """Calls when it has committed; never, if there is no way to know."""


def transaction_of(connection: Any) -> Transaction:
    """What to do with a connection that a caller gave. Raises ConfigurationError."""
    kinds = [f"{kind.__module__}.{kind.__name__}" for kind in type(connection).__mro__]
    if "sqlalchemy.orm.scoping.scoped_session" in kinds:
        return transaction_of(connection())
    if "sqlalchemy.orm.session.Session" in kinds:
        return SessionTransaction(connection)
    if "sqlalchemy.engine.base.Connection" in kinds:
        return ConnectionTransaction(connection)
    if hasattr(connection, "run_sync"):
        raise ConfigurationError(
            f"connection= is asynchronous ({type(connection).__name__}); use pgclip.AsyncClient"
        )
    if callable(getattr(connection, "on_commit", None)):
        return DjangoTransaction(connection)
    cursor, commit = (getattr(connection, name, None) for name in ("cursor", "commit"))
    if callable(cursor) and callable(commit) and not iscoroutinefunction(commit):
        return DriverTransaction(connection)
    raise ConfigurationError(
        "connection= takes a SQLAlchemy Session or Connection, Django's connection, or a DB-API "
        f"connection such as psycopg's, not {type(connection).__name__}. On an asynchronous driver "
        "call the SQL functions, such as pgclip.submit_text"
    )


class DriverTransaction:
    """A DB-API connection, such as psycopg2's or psycopg's."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def execute(self, statement: str, arguments: Sequence[Any]) -> list[Any]:
        """Runs a statement with %s for each argument, and returns its rows."""
        with translated_by_state():
            cursor = self._cursor()
            try:
                cursor.execute(statement, arguments)
                return list(cursor.fetchall())
            finally:
                cursor.close()

    def _cursor(self) -> Any:
        """A cursor whose rows are tuples, whatever the caller's own are."""
        if hasattr(self._connection, "row_factory"):
            from psycopg.rows import tuple_row

            return self._connection.cursor(row_factory=tuple_row)
        if hasattr(self._connection, "cursor_factory"):
            from psycopg2.extensions import cursor

            return self._connection.cursor(cursor_factory=cursor)
        return self._connection.cursor()

    def after_commit(self, call: Callable[[], None]) -> None:
        """A driver does not tell; but in autocommit the statement has committed already."""
        if is_idle(self._connection):
            call()


class DjangoTransaction(DriverTransaction):
    """django.db.connection, or another of django.db.connections."""

    def after_commit(self, call: Callable[[], None]) -> None:
        """At the end of the outermost atomic block; without one and autocommit nothing tells."""
        if self._connection.in_atomic_block or self._connection.get_autocommit():
            self._connection.on_commit(call)


class ConnectionTransaction:
    """A SQLAlchemy Connection, on any driver."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def execute(self, statement: str, arguments: Sequence[Any]) -> list[Any]:
        """Runs a statement with %s for each argument, and returns its rows."""
        from sqlalchemy import text

        parts = statement.split("%s")
        named = "".join(f"{part}:p{n}" for n, part in enumerate(parts[:-1])) + parts[-1]
        with translated_by_state():
            values = {f"p{n}": value for n, value in enumerate(arguments)}
            return list(self._connection.execute(text(named), values).all())

    def after_commit(self, call: Callable[[], None]) -> None:
        """SQLAlchemy tells before the commit and not after it."""
        if is_idle(self._connection.connection.driver_connection):
            call()


class SessionTransaction(ConnectionTransaction):
    """A SQLAlchemy Session."""

    def after_commit(self, call: Callable[[], None]) -> None:
        """After the session's commit; after a savepoint's too, where it does no harm."""
        from sqlalchemy import event
        from sqlalchemy.orm import Session

        if not event.contains(Session, "after_commit", _committed):
            event.listen(Session, "after_commit", _committed)
            event.listen(Session, "after_transaction_end", _ended)
        self._connection.info.setdefault(_PENDING, []).append(call)


def _committed(session: Any) -> None:
    for call in session.info.get(_PENDING, ()):
        if on_event_loop():  # Redis may take its time
            threading.Thread(target=call, name="pgclip", daemon=True).start()
        else:
            call()


def _ended(session: Any, transaction: Any) -> None:
    if transaction.parent is None:
        session.info.pop(_PENDING, None)


def is_idle(connection: Any) -> bool:
    """Whether a psycopg2 or psycopg connection is outside a transaction (libpq: PQTRANS_IDLE)."""
    status = getattr(getattr(connection, "info", None), "transaction_status", None)
    return status is not None and int(status) == 0
