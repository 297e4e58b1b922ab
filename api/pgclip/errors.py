"""Errors of pgclip.

PgclipError
├── ConfigurationError     a setting is missing or makes no sense
├── ConnectionFailed       Postgres can't be reached (nothing was submitted)
├── SchemaError            schema pgclip is missing, older or newer than this package
├── InvalidItem            a submission or query that can't be accepted; says which and why
├── QueueFull              too many jobs wait (nothing was submitted)
├── NotFound               no such item or collection
├── NotCommitted           it was submitted in a transaction that has not committed
├── ItemFailed             an item that was waited for ended as failed; has .reason
├── WaitTimeout            it is still queued or being worked on; nothing is lost
├── QueryFailed            a query got no vector: no worker alive, or it can't be encoded
└── ModelMismatch          the model is not the one whose vectors are stored

Driver errors are translated here, with the driver's own as the cause.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class PgclipError(Exception):
    """Base of all errors raised by pgclip."""


class ConfigurationError(PgclipError):
    """A setting is missing or makes no sense."""


class ConnectionFailed(PgclipError):
    """Postgres can't be reached, or the connection broke before the commit was confirmed."""


class SchemaError(PgclipError):
    """Schema pgclip is missing, or of another version than this package."""


class InvalidItem(PgclipError, ValueError):
    """A submission or query that can't be accepted. Nothing of it was written."""


class QueueFull(PgclipError):
    """As many jobs wait as PGCLIP_MAX_QUEUED allows. Nothing was submitted."""


class NotFound(PgclipError, LookupError):
    """There is no such item or collection."""


class NotCommitted(PgclipError):
    """The transaction that submitted an item is still open, or was rolled back."""


class ItemFailed(PgclipError):
    """An item ended as failed. `reason` is a short code, the message is for a person."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class WaitTimeout(PgclipError, TimeoutError):
    """The work has not ended in time. It goes on; nothing is lost."""


class QueryFailed(PgclipError):
    """A query has no vector: no worker answered, or it can't be encoded."""


class ModelMismatch(PgclipError):
    """A model is not the one whose vectors are stored, or not in the state asked for."""


# SQLSTATEs that the functions of schema pgclip raise.
LABELS_CHANGED = "PC007"
_BY_SQLSTATE: dict[str, type[PgclipError]] = {
    "PC001": InvalidItem,
    "PC002": NotFound,
    "PC003": QueryFailed,
    "PC004": QueryFailed,
    "PC005": QueryFailed,
    "PC006": ModelMismatch,
    "PC008": QueryFailed,
}
_NO_SUCH_NAME = "42704"  # such as a text search configuration
_MISSING_OBJECT = {"3F000", "42P01", "42883", "42704"}  # schema, table, function, type


def sqlstate(error: BaseException) -> str:
    """The SQLSTATE of the driver's error behind an error; empty if there is none."""
    return getattr(error.__cause__, "pgcode", None) or ""


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Translates psycopg2's errors. `what` names the item or the action for the message."""
    import psycopg2

    try:
        yield
    except psycopg2.Error as error:
        raise _translate(error, what) from error


def _translate(error: Exception, what: str) -> PgclipError:
    import psycopg2.errors
    import psycopg2.extensions

    state = getattr(error, "pgcode", None) or ""
    diagnostics = getattr(error, "diag", None)
    text = " ".join((getattr(diagnostics, "message_primary", None) or str(error)).split())
    hint = getattr(diagnostics, "message_hint", None)
    message = f"{what}: {text}" + (f" ({hint})" if hint else "")
    if state in _BY_SQLSTATE:
        return _BY_SQLSTATE[state](message)
    if state in _MISSING_OBJECT and "pgclip" in text:
        return SchemaError(f"{message}. Run: pgclip migrate")
    if state == _NO_SUCH_NAME:
        return InvalidItem(message)
    if isinstance(error, psycopg2.extensions.TransactionRollbackError):  # a deadlock, above all
        return ConnectionFailed(f"{message}. Another transaction was in the way; try it again")
    if isinstance(error, psycopg2.errors.QueryCanceled):
        return ConnectionFailed(
            f"{message}. Postgres is overloaded, or a lock is held; nothing was changed. The limit "
            "is PGCLIP_STATEMENT_TIMEOUT"
        )
    # What psycopg2 calls operational and isn't: a limit that something given exceeds, or an object
    # in the wrong state, but for a lock that was not to be had.
    if state.startswith("54"):
        return InvalidItem(message)
    if state.startswith("55") and state != "55P03":
        return PgclipError(message)
    if isinstance(error, psycopg2.OperationalError) and "certificate" in text:
        return ConnectionFailed(
            f"{message} Does sslrootcert in PGCLIP_DATABASE_URL name the file of the authority "
            "that signed the server's certificate, and does that hold the host's name?"
        )
    if isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError):
        return ConnectionFailed(f"{message} Is Postgres running, and PGCLIP_DATABASE_URL right?")
    if isinstance(error, psycopg2.DataError | psycopg2.IntegrityError):
        return InvalidItem(message)
    return PgclipError(message)


@contextmanager
def translated_by_state() -> Iterator[None]:
    """Translates what our SQL functions raise through any driver; other errors stay as they are."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            for name in ("sqlstate", "pgcode"):
                if kind := _BY_SQLSTATE.get(getattr(cause, name, None) or ""):
                    raise kind(str(cause).split("\n")[0]) from error
            cause = getattr(cause, "orig", None) or cause.__cause__
        raise
