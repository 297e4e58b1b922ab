"""The same vectors in a table as pgvector's documentation has it, with one HNSW index."""

import time
from io import StringIO
from typing import Any

import numpy as np
import psycopg2
from asking import recall
from figures import Figure, quantile, timed
from system import fresh_system
from vectors import DIMENSION, Floats


def plain(
    every: Floats, rows: int, asked: Floats, filters: dict[str, tuple[str, int]]
) -> list[Figure]:
    """`rows` in one table with one live HNSW index and pgvector's default settings, then more."""
    vectors = every[:rows]
    with fresh_system() as urls, psycopg2.connect(urls["database_url"]) as connection:
        cursor = connection.cursor()
        cursor.execute("CREATE TABLE plain (id int PRIMARY KEY, tenth int, hundredth int, "
                       f"embedding halfvec({DIMENSION}))")  # fmt: skip
        insert(cursor, vectors, 0)
        cursor.execute("SET maintenance_work_mem = '1GB'")
        build = "CREATE INDEX ON plain USING hnsw (embedding halfvec_ip_ops)"
        built = timed(lambda: cursor.execute(build))
        cursor.execute("CREATE INDEX ON plain (tenth); CREATE INDEX ON plain (hundredth)")
        cursor.execute("ANALYZE plain")
        connection.commit()
        figures = [Figure("plain: index built", rows / built, "rows/s")]
        numbers = np.arange(rows)
        for name, where, kept in (
            ("no filter", "true", numbers),
            *((f"filter that keeps {share}", f"{field} = 3", numbers[numbers % modulus == 3])
              for share, (field, modulus) in filters.items()),
        ):  # fmt: skip
            figures += plain_answers(cursor, name, where, asked, vectors, kept)
        more, start = every[rows : rows + 20_000], time.perf_counter()
        written = 0
        while written < len(more) and time.perf_counter() - start < 20:
            insert(cursor, more[written : written + 64], rows + written)
            connection.commit()
            written += 64
        rate = written / (time.perf_counter() - start)
        figures.append(Figure("plain: rows into the live index", rate, "rows/s"))
        cursor.execute("SELECT pg_total_relation_size('plain')")
        (size,) = cursor.fetchone() or (0,)
        return [*figures, Figure("plain: a row with its indexes", size / (rows + written), "bytes")]


def plain_answers(
    cursor: Any, name: str, where: str, asked: Floats, vectors: Floats, kept: Any
) -> list[Figure]:
    """Answers as pgvector gives them by itself; short: with fewer than ten rows."""
    statement = f"SELECT id FROM plain WHERE {where} ORDER BY embedding <#> %s::halfvec LIMIT 10"
    times, recalls, short = [], [], 0
    for query in asked:
        literal = str(query.tolist())
        start = time.perf_counter()
        cursor.execute(statement, (literal,))
        found = [number for (number,) in cursor.fetchall()]
        times.append(time.perf_counter() - start)
        recalls.append(recall(found, kept[np.argsort(-(vectors[kept] @ query))[:10]]))
        short += len(found) < 10
    return [
        Figure(f"plain: {name}, p50", quantile(times, 50), "ms"),
        Figure(f"plain: {name}, recall@10", float(np.mean(recalls)), ""),
        Figure(f"plain: {name}, short answers", short, ""),
    ]


def insert(cursor: Any, vectors: Floats, first: int) -> None:
    """Rows by COPY."""
    lines = (
        f"{n}\t{n % 10}\t{n % 100}\t[{','.join(f'{value:.6f}' for value in vector)}]\n"
        for n, vector in enumerate(vectors, first)
    )
    cursor.copy_expert("COPY plain FROM STDIN", StringIO("".join(lines)))
