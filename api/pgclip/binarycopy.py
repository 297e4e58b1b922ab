"""Postgres' binary COPY format, both ways.

A row is an int16 count of fields, then for each field an int32 length (-1: NULL) and its bytes,
all big-endian; a signature goes before the rows and an int16 of -1 after them. Contents travel
so, because as parameters a large bytea costs three times the processor time.
Format: https://www.postgresql.org/docs/current/sql-copy.html#SQL-COPY-FILE-FORMATS
"""

import io
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

SIGNATURE = b"PGCOPY\n\xff\r\n\x00" + struct.pack("!ii", 0, 0)
TRAILER = struct.pack("!h", -1)

_COUNT = struct.Struct("!h")
_LENGTH = struct.Struct("!i")
_NULL = _LENGTH.pack(-1)

int32 = struct.Struct("!i").pack


def jsonb(text: str) -> bytes:
    """A jsonb field: version 1 and the JSON text."""
    return b"\x01" + text.encode()


def copy_in(cursor: "Cursor", target: str, rows: Iterable[Sequence[bytes | None]]) -> None:
    """COPYs rows of encoded fields into `target`, a table with its columns."""
    copy_in_encoded(cursor, target, b"".join(_encoded(rows)))


def copy_in_encoded(cursor: "Cursor", target: str, rows: bytes) -> None:
    """COPYs rows that are encoded already, field counts and lengths included."""
    payload = io.BytesIO(b"".join((SIGNATURE, rows, TRAILER)))
    cursor.copy_expert(f"COPY {target} FROM STDIN (FORMAT binary)", payload)


def copy_out(cursor: "Cursor", query: str) -> Iterator[list[bytes | None]]:
    """COPYs the result of `query` out, and yields each row as its encoded fields."""
    data = copy_out_encoded(cursor, query)
    at = 0
    while at < len(data):
        (count,) = _COUNT.unpack_from(data, at)
        at += 2
        row: list[bytes | None] = []
        for _ in range(count):
            (length,) = _LENGTH.unpack_from(data, at)
            at += 4
            row.append(None if length < 0 else bytes(data[at : at + length]))
            at += max(length, 0)
        yield row


def copy_out_encoded(cursor: "Cursor", query: str) -> memoryview:
    """COPYs the result of `query` out, as the rows are: field counts and lengths included."""
    received = io.BytesIO()
    cursor.copy_expert(f"COPY ({query}) TO STDOUT (FORMAT binary)", received)
    return received.getbuffer()[len(SIGNATURE) : -len(TRAILER)]


def _encoded(rows: Iterable[Sequence[bytes | None]]) -> Iterator[bytes]:
    for row in rows:
        yield _COUNT.pack(len(row))
        for value in row:
            if value is None:
                yield _NULL
            else:
                yield _LENGTH.pack(len(value))
                yield value
