"""Postgres, its extension, the schema, and Redis."""

from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from typing import Any

from pgclip import statements
from pgclip.cli.checks.finding import Finding
from pgclip.cli.checks.tables import tables
from pgclip.cli.output import shown_bytes
from pgclip.cli.status import Status, look
from pgclip.connections import make_engine
from pgclip.database import Database, check_schema
from pgclip.errors import PgclipError, SchemaError, translated
from pgclip.migrate import UNHURRIED, WRITING, differences, lacking
from pgclip.schema.requirements import POSTGRES_VERSION, VECTOR_VERSION, version_tuple
from pgclip.settings import Settings, masked
from pgclip.submitting.place import connect, refuse_cluster

_REDIS = (6, 2)


def postgres(settings: Settings) -> Generator[Finding, None, Status | None]:
    """Returns what the database says about the work, if it can."""
    where = masked(settings.database_url)
    try:
        server = _server(settings)
    except PgclipError as error:
        advice = "Start it, or set PGCLIP_DATABASE_URL; without any: pgclip up"
        yield Finding("Postgres", "trouble", f"{where}: {error}", advice)
        return None
    number, version, is_replica, installed, available, schema = server
    if number // 10_000 < POSTGRES_VERSION:
        advice = f"Upgrade it: pgclip needs {POSTGRES_VERSION} or later"
        yield Finding("Postgres", "trouble", f"{where}: version {version}", advice)
    elif is_replica:
        advice = "Give workers and those who submit the primary's URL; searching works here"
        yield Finding("Postgres", "warning", f"{where}: a read replica", advice)
    else:
        yield Finding("Postgres", "ok", f"{where}: version {version}")
    yield _extension(installed, available)
    if schema:
        yield Finding("schema", "trouble", "; ".join(schema), "pgclip migrate")
        return None
    yield Finding("schema", "ok", "pgclip is up to date")
    yield from _trial(settings, is_replica)
    database = Database(settings.database_url, pool_size=1)
    try:
        yield from _pooler(settings, database)
        yield _completeness(database)
        yield from _buffers(database)
        yield from _recall(database)
        yield from tables(database)
        return look(database)
    finally:
        database.close()


def _trial(settings: Settings, is_replica: bool) -> Iterator[Finding]:
    """Not looked up, but tried: an item is submitted, stored, found and taken back."""
    if is_replica:
        return
    try:
        with _cursor(settings, writes=True) as cursor:
            refused = lacking(cursor)
    except PgclipError as error:
        refused = [str(error)]
    if not refused:
        yield Finding("trial", "ok", "an item can be submitted, stored, found and deleted")
    for each in refused:
        advice = "As the owner of the schema: pgclip migrate. What that can't grant, it says"
        yield Finding("trial", "trouble", each, advice)


def _pooler(settings: Settings, database: Database) -> Iterator[Finding]:
    if not database.shares_sessions():
        return
    if settings.direct_url:
        detail = "a pooler shares sessions; indexes are built past it (PGCLIP_DIRECT_URL)"
        yield Finding("pooler", "ok", detail)
    else:
        detail = "a pooler shares sessions, and each index holds one of them while it is built"
        advice = "Where that is too long, give workers PGCLIP_DIRECT_URL, a URL past the pooler"
        yield Finding("pooler", "warning", detail, advice)


def _buffers(database: Database) -> Iterator[Finding]:
    """Whether Postgres can keep in memory what searches read."""
    with database.transaction("segments") as cursor:
        cursor.execute(statements.SEARCHED_BYTES)
        searched, buffers = cursor.fetchone() or (0, 0)
    if searched > buffers:
        detail = f"searches read {shown_bytes(searched)}, shared_buffers are {shown_bytes(buffers)}"
        advice = "Where searches take long, set shared_buffers to that, or a quarter of the memory"
        yield Finding("memory", "warning", detail, advice)


def _recall(database: Database) -> Iterator[Finding]:
    """Whether searches find what they promise."""
    with database.transaction("recall") as cursor:
        cursor.execute(statements.RECALL)
        rows = [row for row in cursor.fetchall() if row[3] == 1]
    for _, query_kind, kind, _, queries, _, recall, nothing, effort, promise, _ in rows:
        detail = (
            f"{query_kind} → {kind}: {recall:.3f} of the ten nearest are found, {nothing:.1%} of "
            f"{queries} queries met none of them (effort {effort})"
        )
        if recall >= promise:
            yield Finding("recall", "ok", detail)
        else:
            advice = (
                f"Promised is {promise:g} (PGCLIP_RECALL). Indexes that were built in haste are "
                "built anew in quiet times. Where each hit counts, search with exact"
            )
            yield Finding("recall", "warning", detail, advice)


def _completeness(database: Database) -> Finding:
    with database.transaction("completeness") as cursor:
        cursor.execute(statements.HEALABLE)
        vectors, labels = cursor.fetchone() or (0, 0)
    if not vectors + labels:
        return Finding("completeness", "ok", "nothing lacks a vector or label that is not queued")
    detail = (
        f"{vectors} items have no vectors of a model, {labels} no or outdated labels of a set, and "
        "none of it is queued"
    )
    advice = "pgclip missing shows which; pgclip missing --heal brings them"
    return Finding("completeness", "warning", detail, advice)


def _server(settings: Settings) -> Any:
    """Facts of the server, and what is wrong with the schema."""
    with _cursor(settings) as cursor:
        cursor.execute(statements.SERVER)
        server = cursor.fetchone()
        try:
            check_schema(cursor)
            return (*server, differences(cursor))
        except SchemaError as error:
            return (*server, [str(error)])


@contextmanager
def _cursor(settings: Settings, *, writes: bool = False) -> Iterator[Any]:
    """In a transaction that is rolled back, and that no default of the role's cuts short."""
    from sqlalchemy.exc import DBAPIError

    engine = make_engine(
        settings.database_url,
        connect_args={"connect_timeout": max(1, round(settings.connect_timeout))},
    )
    try:
        with translated("connecting"):
            try:
                pooled = engine.raw_connection()
            except DBAPIError as error:
                raise (error.orig or error) from error
            with closing(pooled), pooled.cursor() as cursor:  # type: ignore[attr-defined]
                cursor.execute(f"{WRITING}; {UNHURRIED}" if writes else UNHURRIED)
                yield cursor
    finally:
        engine.dispose()


def _extension(installed: str | None, available: str | None) -> Finding:
    version = installed or available
    needed = ".".join(map(str, VECTOR_VERSION))
    if version is None:
        return Finding(
            "pgvector",
            "trouble",
            "this Postgres does not have it",
            "Install it (https://github.com/pgvector/pgvector#installation), or use the image "
            "pgvector/pgvector; then: pgclip migrate",
        )
    if version_tuple(version) < VECTOR_VERSION:
        advice = f"Install {needed} or later, then in the database: ALTER EXTENSION vector UPDATE"
        return Finding("pgvector", "trouble", f"version {version}", advice)
    if installed is None:
        return Finding("pgvector", "ok", f"{version} is there; pgclip migrate will enable it")
    return Finding("pgvector", "ok", f"version {version}")


def redis_server(settings: Settings) -> Finding:
    """Whether Redis answers, is new enough, and takes tickets."""
    from redis import RedisError

    where = masked(settings.redis_url)
    try:
        with connect(settings) as redis:
            about: Any = redis.info("server")
    except (RedisError, PgclipError, ValueError, OSError) as error:
        return Finding("Redis", "trouble", f"{where}: {error}", _redis_advice(error))
    name = about.get("server_name", "redis")
    version = about.get("valkey_version") or about["redis_version"]
    if version_tuple(about["redis_version"]) < _REDIS:
        return Finding("Redis", "trouble", f"{where}: version {version}", "Upgrade it to 6.2")
    refused = _tickets(settings)
    if refused:
        advice = "What tickets need is in docs/operate.md, with the ACL that is enough"
        return Finding("Redis", "trouble", f"{where}: tickets can't be sent: {refused}", advice)
    return Finding("Redis", "ok", f"{where}: {name} {version}")


def _tickets(settings: Settings) -> str:
    """Not looked up, but tried. Why it can't be done; empty if it can."""
    from pgclip.submitting.broker import try_out  # Celery, which takes a while

    try:
        refuse_cluster(settings)
        try_out(settings)
    except Exception as error:
        return str(error) or type(error).__name__
    return ""


def _redis_advice(error: Exception) -> str:
    if "certificate" in str(error).lower():
        return (
            "Does ssl_ca_certs in PGCLIP_REDIS_URL name the file of the authority that signed the "
            "server's certificate, and does that hold the host's name?"
        )
    return (
        "Start it, or set PGCLIP_REDIS_URL. Submissions are accepted without it, and start about a "
        "second later; workers need it to start"
    )
