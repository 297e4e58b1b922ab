"""`pgclip export`: vectors and labels to Parquet or NumPy, for other tools."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from pgclip import statements
from pgclip.cli.options import (
    Collection,
    DatabaseUrl,
    KindOption,
    RedisUrl,
    Where,
    kind_of,
    metadata_from,
    settings_for,
)
from pgclip.database import Database
from pgclip.errors import InvalidItem, PgclipError

_PAGE = 500


def export(
    file: Annotated[Path, typer.Argument(help="A name that ends in .parquet or .npz.")],
    collection: Collection = None,
    kind: KindOption = None,
    where: Where = None,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
) -> None:
    """Write vectors and labels of all items, or those that match, to a file.

    One row for each vector: key, collection, kind, source, metadata and labels (JSON), part (0,
    and more for a long text), embedding (float32, of norm 1). In .npz each is an array. Parquet
    needs pip install 'pgclip\\[export]'.
    """
    writers = {".parquet": _to_parquet, ".npz": _to_npz}
    if file.suffix not in writers:
        raise InvalidItem(f"{file}: the name must end in {' or '.join(writers)}")
    database = Database(settings_for(database_url, redis_url).database_url, pool_size=1)
    conditions = (collection, kind_of(kind), json.dumps(metadata_from(where)) if where else None)
    # Complete, or not there: nobody takes half of it for the whole.
    unfinished = file.with_name(file.name + ".part")
    try:
        count = writers[file.suffix](_pages(database, conditions), unfinished)
        unfinished.replace(file)
    except OSError as error:
        raise PgclipError(f"{file} can't be written: {error.strerror}") from error
    finally:
        unfinished.unlink(missing_ok=True)
        database.close()
    typer.echo(f"{count} vectors in {file}")


def _pages(database: Database, conditions: tuple[Any, ...]) -> Iterator[list[dict[str, Any]]]:
    """Rows to write, some hundred at a time."""
    last = 0
    while True:
        with database.transaction("export") as cursor:
            cursor.execute(statements.EXPORT, (*conditions, last, _PAGE))
            items = cursor.fetchall()
        yield [row for item in items for row in _rows(*item[1:])]
        if len(items) < _PAGE:
            return
        last = items[-1][0]


def _rows(
    key: str,
    collection: str,
    kind: str,
    source: str | None,
    metadata: dict[str, Any],
    labels: list[dict[str, Any]],
    vectors: list[list[float]],
) -> Iterator[dict[str, Any]]:
    import numpy as np

    array = np.array(vectors, np.float32)
    for part, embedding in enumerate(array):
        yield {
            "key": key,
            "collection": collection,
            "kind": kind,
            "source": source,
            "metadata": json.dumps(metadata, ensure_ascii=False),
            "labels": json.dumps(labels, ensure_ascii=False),
            "part": part,
            # Stored in half precision: back to unit norm.
            "embedding": embedding / np.linalg.norm(embedding),
        }


def _to_parquet(pages: Iterator[list[dict[str, Any]]], file: Path) -> int:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as error:
        raise PgclipError("Parquet needs pyarrow: pip install 'pgclip[export]'") from error
    texts = [pa.field(name, pa.string()) for name in _TEXTS]
    count = 0
    writer = None
    for rows in pages:
        if writer is None:
            width = len(rows[0]["embedding"]) if rows else 0
            embedding = pa.field("embedding", pa.list_(pa.float32(), width or -1))
            schema = pa.schema([*texts, pa.field("part", pa.int32()), embedding])
            writer = pq.ParquetWriter(file, schema)
        writer.write_table(pa.Table.from_pylist(rows, schema=schema))
        count += len(rows)
    if writer is not None:
        writer.close()
    return count


def _to_npz(pages: Iterator[list[dict[str, Any]]], file: Path) -> int:
    import numpy as np

    rows = [row for page in pages for row in page]
    columns: dict[str, Any] = {
        name: np.array([row[name] or "" for row in rows], dtype=str) for name in _TEXTS
    }
    columns["part"] = np.array([row["part"] for row in rows], np.int32)
    columns["embedding"] = np.array([row["embedding"] for row in rows], np.float32)
    with file.open("wb") as opened:
        np.savez(opened, **columns)
    return len(rows)


_TEXTS = ("key", "collection", "kind", "source", "metadata", "labels")
