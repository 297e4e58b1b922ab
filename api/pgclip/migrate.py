"""Creates and upgrades schema pgclip; works from a checkout and from a wheel."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pgclip.connections import make_engine
from pgclip.database import SCHEMA_VERSION, newer_schema, schema_version
from pgclip.errors import ConnectionFailed, SchemaError, translated
from pgclip.schema import catalog, versions
from pgclip.schema.laying import drop_views, lay
from pgclip.schema.plan import Plan, make_plan
from pgclip.schema.requirements import require_extension, require_server

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor
    from sqlalchemy import Connection

# One migration at a time. The number is arbitrary.
_LOCK = 7311994462
# Whoever comes after a lock that is waited for waits, too: so not long, and again later. And all
# that is waited for while others wait for us must take less than a second (deadlock_timeout): else
# Postgres might end a submission for a deadlock with us.
_LOCK_TIMEOUT = "300ms"
_TRIES = 40
_PAUSE = 1.0
# Whatever is the role's or the database's default.
WRITING = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED READ WRITE"
# Whatever a role's default allows: all is tried in one statement, and between two of them
# definitions are read and compared.
UNHURRIED = "SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0"
# A view or a function is in the way of a change of a table.
_DEPENDED_ON = {"2BP01", "0A000"}
_HOLDERS = """
    SELECT DISTINCT a.pid, a.usename, a.application_name, a.state,
           extract(epoch FROM clock_timestamp() - a.xact_start)::int, a.xact_start
    FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE l.granted AND l.pid <> pg_backend_pid() AND a.datname = current_database()
      AND (l.relation IN (SELECT oid FROM pg_class WHERE relnamespace = to_regnamespace('pgclip'))
           OR l.locktype = 'advisory' AND l.objid = %s)
    ORDER BY a.xact_start LIMIT 3
"""


def migrate(database_url: str, on_wait: Callable[[str], None] = lambda _: None) -> list[str]:
    """Brings schema pgclip to what this package needs, in one transaction; says what was done.

    Numbered migrations that have not run are run, and definitions (functions, views, triggers,
    types of answers, grants) that differ are laid anew: also what a restore left out, or the move
    of an extension broke. Where all is as it should be nothing is changed, and no right is needed.

    Waits for a lock 300 ms at a time, and tries again for about a minute; `on_wait` is told who
    holds them.
    Needs the owner of the schema, the first time one who may create it and the extension vector.
    Raises SchemaError if Postgres or the extension is too old, the extension missing, the schema
    newer than this package, or something of somebody else's in the way; and ConnectionFailed.
    """
    for left in reversed(range(_TRIES)):
        try:
            return _once(database_url)
        except ConnectionFailed as error:
            if getattr(error.__cause__, "pgcode", None) != "55P03":  # lock_not_available
                raise
            held = f"locks are held by {_holders(database_url) or 'others'}"
            if not left:
                raise ConnectionFailed(
                    f"pgclip migrate: {held}. Nothing was changed; try again when they have ended"
                ) from error
            if left % 10 == 9:
                on_wait(f"{held}; trying again")
            time.sleep(_PAUSE)
    raise AssertionError("unreachable")


def plan(database_url: str) -> list[str]:
    """What `migrate` would do, a line for each step; empty if nothing. Changes nothing."""
    with _connected(database_url) as connection:
        return _checked_plan(_cursor(connection)).steps()


def remove(database_url: str) -> None:
    """Removes schema pgclip with all its data.

    Raises SchemaError if something outside depends on it, ConnectionFailed.
    """
    with _connected(database_url, writes=True) as connection:
        cursor = _cursor(connection)
        _drop_triggers_of_tables(cursor)
        _refuse_dependants(cursor)
        cursor.execute("DROP SCHEMA IF EXISTS pgclip CASCADE")


def renew_installation(database_url: str) -> str:
    """Gives a copy of a database queues of its own; the id of the new installation."""
    with _connected(database_url, writes=True) as connection:
        cursor = _cursor(connection)
        cursor.execute("SELECT pgclip.renew_installation()")
        (id_,) = cursor.fetchone() or ("",)
        return str(id_)


def differences(cursor: "Cursor") -> list[str]:
    """What `migrate` would change of a schema that is there, for a look at its health.

    Of a newer one, which answers this package, nothing is known.
    """
    if schema_version(cursor) != SCHEMA_VERSION:
        return []
    return make_plan(cursor).steps()


def lacking(cursor: "Cursor") -> list[str]:
    """What can't be done in a schema that is as it should be, a line each; nothing if all can.

    Everything is tried, with the owner's rights and taken back; what rights are lacking that only
    others can grant is looked up. For roles that have access, and the owner.
    """
    cursor.execute("SELECT * FROM pgclip._lacking_elsewhere()")
    found = [f"a right is lacking: {statement}" for (statement,) in cursor.fetchall()]
    cursor.execute("SELECT pgclip.try_out()")
    (refused,) = cursor.fetchone() or (None,)
    return [*found, *([refused] if refused else [])]


def tried(database_url: str) -> list[str]:
    """What `lacking` says of a database. Raises ConnectionFailed."""
    with _connected(database_url, writes=True) as connection:
        return lacking(_cursor(connection))


def _once(database_url: str) -> list[str]:
    with _connected(database_url, writes=True) as connection:
        cursor = _cursor(connection)
        cursor.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        plan = _checked_plan(cursor)
        steps = plan.steps()
        if plan:
            _become_owner(cursor, plan)
            if plan.versions:
                _change_tables(connection, cursor, plan)
            lay(cursor, make_plan(cursor))
        return steps


def _checked_plan(cursor: "Cursor") -> Plan:
    require_server(cursor)
    require_extension(cursor)
    _refuse_newer(cursor)
    return make_plan(cursor)


def _become_owner(cursor: "Cursor", plan: Plan) -> None:
    """What is made belongs to whom the rest belongs to, whoever runs this."""
    for address, _ in plan.disowned:
        cursor.execute(f"ALTER {address} OWNER TO {plan.owner}")
    if plan.creates_schema:
        cursor.execute("SELECT to_regnamespace('pgclip') IS NULL")
        if cursor.fetchone() == (True,):
            cursor.execute("CREATE SCHEMA pgclip")
        if not catalog.vector_schema(cursor):
            _install_extension(cursor)
    elif plan.is_member:
        cursor.execute(f"SET LOCAL ROLE {plan.owner}")
    else:
        raise SchemaError(
            f"schema pgclip belongs to {plan.owner}, and this role is no member of it. Run "
            f"pgclip migrate as {plan.owner}, to: {'; '.join(plan.steps())}"
        )


def _install_extension(cursor: "Cursor") -> None:
    import psycopg2

    try:
        cursor.execute("CREATE EXTENSION vector")
    except psycopg2.ProgrammingError as error:
        raise SchemaError(
            f"the extension vector is not installed, and this role can't install it ({error}). "
            "Have a superuser run: CREATE EXTENSION vector"
        ) from error


def _change_tables(connection: "Connection", cursor: "Cursor", plan: Plan) -> None:
    """The numbered migrations; where our views are in the way, these go first."""
    import psycopg2
    from sqlalchemy.exc import DBAPIError

    cursor.execute("SAVEPOINT tables")
    try:
        versions.run(connection)
    except DBAPIError as error:
        cause = error.orig
        if not isinstance(cause, psycopg2.Error) or cause.pgcode not in _DEPENDED_ON:
            raise
        cursor.execute("ROLLBACK TO SAVEPOINT tables")
        drop_views(cursor)
        versions.run(connection)


@contextmanager
def _connected(database_url: str, *, writes: bool = False) -> "Iterator[Connection]":
    """A connection in a transaction; errors are translated."""
    from sqlalchemy.exc import DBAPIError

    engine = make_engine(database_url)
    try:
        with translated("pgclip migrate"):
            try:
                with engine.begin() as connection:
                    if writes:
                        _cursor(connection).execute(WRITING)
                    _cursor(connection).execute(UNHURRIED)
                    yield connection
            except DBAPIError as error:
                raise (error.orig or error) from error
    finally:
        engine.dispose()


def _cursor(connection: "Connection") -> "Cursor":
    """The driver's cursor, in the same transaction: statements go as they are, % included."""
    return connection.connection.cursor()  # type: ignore[return-value]


def _holders(database_url: str) -> str:
    """Who holds locks on what is ours, the longest first."""
    with _connected(database_url) as connection:
        cursor = _cursor(connection)
        cursor.execute(_HOLDERS, (_LOCK & 0xFFFFFFFF,))
        return ", ".join(
            f"pid {pid} ({user}, {name or 'no application name'}, {state}, for {seconds} s)"
            for pid, user, name, state, seconds, _ in cursor.fetchall()
        )


def _refuse_dependants(cursor: "Cursor") -> None:
    with catalog.qualified(cursor):
        ours = catalog.found(cursor)
        oids = {each.oid for each in ours}
        for each in ours:
            for _, oid, description in catalog.dependants(cursor, each):
                if oid not in oids and "pgclip." not in description:
                    raise SchemaError(f"{description} depends on {each.name} of schema pgclip")


def _drop_triggers_of_tables(cursor: "Cursor") -> None:
    """Those by which applications' tables are kept in step."""
    cursor.execute(
        "SELECT format('DROP TRIGGER %I ON %s', t.tgname, t.tgrelid::regclass) FROM pg_trigger t "
        "JOIN pg_proc p ON p.oid = t.tgfoid JOIN pg_class c ON c.oid = t.tgrelid "
        "WHERE p.pronamespace = to_regnamespace('pgclip') AND t.tgparentid = 0 "
        "AND c.relnamespace <> p.pronamespace AND NOT t.tgisinternal"
    )
    for (statement,) in cursor.fetchall():
        cursor.execute(statement)


def _refuse_newer(cursor: "Cursor") -> None:
    version = schema_version(cursor)
    if version is not None and version > SCHEMA_VERSION:
        raise newer_schema(version)
