"""What the server must have."""

import re
from typing import TYPE_CHECKING

from pgclip.errors import SchemaError

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

# Earlier ones have no STORAGE in CREATE TABLE.
POSTGRES_VERSION = 16
# Earlier ones can corrupt HNSW indexes in vacuum and overflow in parallel builds.
VECTOR_VERSION = (0, 8, 4)


def require_server(cursor: "Cursor") -> None:
    """Raises SchemaError if Postgres is too old, or the database can't store any text."""
    cursor.execute(
        "SELECT current_setting('server_version_num')::int, current_setting('server_version')"
    )
    number, version = cursor.fetchone() or (0, "")
    if number // 10_000 < POSTGRES_VERSION:
        raise SchemaError(f"Postgres is {version}; pgclip needs {POSTGRES_VERSION} or later")
    cursor.execute("SELECT getdatabaseencoding()")
    if (encoding := cursor.fetchone()) != ("UTF8",):
        raise SchemaError(
            f"the database's encoding is {(encoding or ('?',))[0]}, which can't store every text; "
            "pgclip needs one with UTF8: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
        )


def require_extension(cursor: "Cursor") -> None:
    """Raises SchemaError if the extension vector is too old, or can't be had."""
    cursor.execute(
        "SELECT coalesce((SELECT extversion FROM pg_extension WHERE extname = 'vector'),"
        " (SELECT default_version FROM pg_available_extensions WHERE name = 'vector'))"
    )
    (version,) = cursor.fetchone() or (None,)
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
