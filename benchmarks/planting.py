"""Vectors put where a worker would have left them, and indexed by the product."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import numpy as np
import psycopg2
from people import Holding
from system import fresh_system, run_sql
from vectors import DIMENSION

from pgclip.searching.segments import Maintenance, maintenance_connections
from pgclip.settings import Settings

_MEMORY = 3 * 2**30  # an index of a million is built in one piece
_ROWS = 20_000  # of a COPY


@contextmanager
def planted(holding: Holding) -> Iterator[tuple[str, Maintenance]]:
    """The URL of a database in which it is, none of it with an index yet, and what builds that."""
    with fresh_system() as urls:
        url = urls["database_url"]
        plant(url, holding)
        settings = Settings.load(database_url=url, build_memory=_MEMORY, build_workers=1)
        database = maintenance_connections(settings)
        try:
            yield url, Maintenance(settings, database, 1)
        finally:
            database.close()


def plant(url: str, holding: Holding) -> None:
    """All of it, in a database that has the schema and nothing else."""
    fingerprint = json.dumps({"fatal": {"weights": "stub"}})
    run_sql(url, f"SELECT pgclip.register_model('stub', {DIMENSION}, 100, '{fingerprint}')")
    put(url, holding, 0, len(holding.collections))


def settle(url: str, maintenance: Maintenance) -> None:
    """Builds all that a quiet time brings, everything that has an index anew."""
    for (table,) in run_sql(url, "SELECT pgclip._segment_table(model_id, number)"
                                 " FROM pgclip.segment WHERE state = 'sealed'"):  # fmt: skip
        run_sql(url, f"DROP INDEX IF EXISTS {table}_embedding_idx")
    for _ in range(2):
        run_sql(url, "UPDATE pgclip.segment SET created_at = now() - interval '2 min'")
        maintenance.run()
    run_sql(url, "VACUUM ANALYZE")


def put(url: str, holding: Holding, first: int, last: int) -> None:
    """Items first to last, in their order, with their vectors, in the hot segment and the ledger.

    Item n has the key n and, for filters, what n leaves divided by 10, 100 and 1,000.
    """
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO pgclip.collection (name) SELECT 'c' || n FROM generate_series(0, %s) n"
            " ON CONFLICT DO NOTHING", (int(holding.collections.max()),),
        )  # fmt: skip
        cursor.execute(
            """INSERT INTO pgclip.item (id, collection_id, key, kind, source, metadata)
               OVERRIDING SYSTEM VALUE
               SELECT %s + n, c + 1, %s + n - 1, k::pgclip.kind, 'file:///' || n,
                      jsonb_build_object('tenth', (%s + n) %% 10, 'hundredth', (%s + n) %% 100,
                                         'thousandth', (%s + n) %% 1000)
               FROM unnest(%s::int[], %s::text[]) WITH ORDINALITY t(c, k, n)""",
            (*[first] * 5, holding.collections[first:last].tolist(),
             holding.kinds[first:last].tolist()),
        )  # fmt: skip
        cursor.execute(
            """SELECT pgclip._segment_table(model_id, number),
                      coalesce((SELECT last_value FROM pgclip.vector_id WHERE is_called), 0)
               FROM pgclip.segment WHERE state = 'hot'"""
        )
        table, before = cursor.fetchone()
        begin, end = np.searchsorted(holding.items, [first, last])
        for at in range(begin, end, _ROWS):
            rows = np.arange(at, min(at + _ROWS, end))
            for kind in np.unique(holding.kinds[holding.items[rows]]):
                _copy(cursor, table, holding, rows[holding.kinds[holding.items[rows]] == kind],
                      before - begin, str(kind))  # fmt: skip
        cursor.execute("SELECT setval('pgclip.vector_id', %s)", (int(before + end - begin),))
        cursor.execute(
            f"""INSERT INTO pgclip.embedding_set
                       (item_id, model_id, generation, kind, content_hash, vector_ids)
                SELECT item_id, 1, 1, kind, sha256(item_id::text::bytea), array_agg(id ORDER BY id)
                FROM {table} WHERE item_id > %s GROUP BY item_id, kind""", (first,),
        )  # fmt: skip
    connection.close()


def _copy(cursor: Any, table: str, holding: Holding, rows: Any, offset: int, kind: str) -> None:
    """In COPY's binary format: of each field its length, all big-endian."""
    fields = {"id": 8, "item_id": 8, "collection_id": 4, "kind": len(kind),
              "embedding": 4 + 2 * DIMENSION}  # fmt: skip
    of_a_field = {"id": ">i8", "item_id": ">i8", "collection_id": ">i4", "kind": f"S{len(kind)}"}
    layout = np.dtype(
        [("fields", ">i2")]
        + [part for name in of_a_field
           for part in ((f"{name}_length", ">i4"), (name, of_a_field[name]))]
        + [("embedding_length", ">i4"), ("dimension", ">i2"), ("unused", ">i2"),
           ("embedding", ">f2", DIMENSION)]
    )  # fmt: skip
    lines = np.zeros(len(rows), layout)
    lines["fields"] = len(fields)
    for name, length in fields.items():
        lines[f"{name}_length"] = length
    lines["id"] = rows + 1 + offset
    lines["item_id"] = holding.items[rows] + 1
    lines["collection_id"] = holding.collections[holding.items[rows]] + 1
    lines["kind"] = kind.encode()
    lines["dimension"] = DIMENSION
    lines["embedding"] = holding.vectors[rows]
    data = b"PGCOPY\n\xff\r\n\0" + bytes(8) + lines.tobytes() + b"\xff\xff"
    cursor.copy_expert(f"COPY {table} ({', '.join(fields)}) FROM STDIN BINARY", BytesIO(data))
