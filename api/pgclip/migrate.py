"""Creates and upgrades schema pgclip with Alembic; works from a checkout and from a wheel."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from pgclip.database import check_schema, make_engine
from pgclip.errors import PgclipError, SchemaError, translated

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection

# Tried in this order: inside an installed package, beside it in a checkout.
_PLACES = (Path(__file__).parent / "migrations", Path(__file__).parents[2] / "migrations")
# One migration at a time. The number is arbitrary.
_LOCK = 7311994462
# Earlier ones have no STORAGE in CREATE TABLE.
POSTGRES_VERSION = 16
# Earlier ones can corrupt HNSW indexes in vacuum and overflow in parallel builds.
VECTOR_VERSION = (0, 8, 4)


def migrate(database_url: str, revision: str = "head") -> None:
    """Brings schema pgclip to a revision, in one transaction; "base" removes it with its data.

    Needs a role that may create the schema and, the first time, the extension vector.
    Raises SchemaError if Postgres or the extension is too old, the extension missing or the schema
    newer than this package, and ConnectionFailed.
    """
    from alembic import command
    from sqlalchemy.exc import DBAPIError

    engine = make_engine(database_url)
    try:
        with translated("pgclip migrate"), engine.begin() as connection:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
            _require_server(connection)
            _require_extension(connection)
            config = _config(connection)
            if revision == "base":
                command.downgrade(config, "base")
                connection.exec_driver_sql("DROP SCHEMA pgclip CASCADE")
            else:
                _refuse_newer(connection)
                command.upgrade(config, revision)
                _require_reached(connection, revision)
    except DBAPIError as error:
        with translated("pgclip migrate"):
            raise (error.orig or error) from error
    finally:
        engine.dispose()


def _config(connection: "Connection") -> "Config":
    from alembic.config import Config

    place = next((place for place in _PLACES if (place / "env.py").is_file()), None)
    if place is None:
        raise PgclipError("the migrations are missing from this installation; reinstall pgclip")
    config = Config()
    config.set_main_option("script_location", str(place).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _require_reached(connection: "Connection", revision: str) -> None:
    version = connection.exec_driver_sql("SELECT version_num FROM pgclip.schema_version").scalar()
    if revision not in ("head", version):
        raise SchemaError(
            f"schema pgclip is at version {version} and goes forward only; base removes it"
        )


def _require_server(connection: "Connection") -> None:
    number, version = connection.exec_driver_sql(
        "SELECT current_setting('server_version_num')::int, current_setting('server_version')"
    ).one()
    if number // 10_000 < POSTGRES_VERSION:
        raise SchemaError(f"Postgres is {version}; pgclip needs {POSTGRES_VERSION} or later")


def _require_extension(connection: "Connection") -> None:
    version = connection.exec_driver_sql(
        "SELECT coalesce((SELECT extversion FROM pg_extension WHERE extname = 'vector'),"
        " (SELECT default_version FROM pg_available_extensions WHERE name = 'vector'))"
    ).scalar()
    if version is None:
        raise SchemaError(
            "this Postgres does not have the extension vector. Install pgvector: "
            "https://github.com/pgvector/pgvector#installation"
        )
    if version_tuple(version) < VECTOR_VERSION:
        raise SchemaError(
            f"the extension vector is {version}, older than "
            f"{'.'.join(map(str, VECTOR_VERSION))}. Install that, then: "
            "ALTER EXTENSION vector UPDATE"
        )


def version_tuple(version: str) -> tuple[int, ...]:
    """A version as numbers that compare; what follows them is left out."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _refuse_newer(connection: "Connection") -> None:
    driver = connection.connection.driver_connection
    with driver.cursor() as cursor:  # type: ignore[union-attr]
        try:
            check_schema(cursor)
        except SchemaError as error:
            if "newer" in str(error):
                raise
