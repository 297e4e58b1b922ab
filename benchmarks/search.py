"""`make bench-search`: search at rest, with filters, beside a burst, by size; and a plain table.

Everything goes the product's own way: submitted by a client, stored by a worker whose encoder
deals out prepared vectors, its segments built by that worker. Beside it, in the same run, a table
as pgvector's documentation has it, with one HNSW index.
"""

import argparse
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import Any

import numpy as np
import psycopg2
from checkpoint import make_checkpoint
from figures import Figure, keep, quantile, show, timed
from here import DATA
from run import queries
from sequential import Sequential
from system import STUB_WORKER, fresh_system, run_sql, worker
from vectors import DIMENSION, Floats, clustered

from pgclip import Client

QUERIES = 300
PREPARED = DATA / "vectors.npy"
FILTERS = {"10 %": ("tenth", 10), "1 %": ("hundredth", 100)}


def main() -> int:
    """Runs all parts, prints the table, keeps the JSON."""
    options = argparse.ArgumentParser()
    options.add_argument("--rows", type=int, default=200_000)
    options.add_argument("--burst", type=int, default=50_000)
    options.add_argument("--sizes", type=int, nargs="*", default=[10_000, 50_000])
    chosen = options.parse_args()
    DATA.mkdir(parents=True, exist_ok=True)
    figures: list[Figure] = []
    for size in chosen.sizes:
        with loaded(size, 0) as (_, url, took):
            figures += show(growth(size, url, took))
    with loaded(chosen.rows, chosen.burst) as (client, url, took):
        figures += show(growth(chosen.rows, url, took))
        figures += show(at_rest(chosen.rows, url))
        figures += show(filtered(chosen.rows, url))
        figures += show(bytes_of(client, url))
        figures += show(burst(client, url, chosen.rows, chosen.burst))
    figures += show(plain(chosen.rows))
    figures += show(through_a_worker())
    keep(figures, f"make bench-search, {chosen.rows} rows", "search")
    return 0


@contextmanager
def loaded(rows: int, more: int) -> Iterator[tuple[Client, str, float]]:
    """A client of a system in which a worker has stored `rows` vectors and is done with them.

    The worker has vectors for `more`. Also the URL, and the seconds from the first submission
    until nothing was left to be built.
    """
    np.save(PREPARED, clustered(rows + more, seed=1))
    with (
        fresh_system() as urls,
        Client(**urls, statement_timeout=0) as client,
        worker(urls, STUB_WORKER, STUB_VECTORS=str(PREPARED)),
    ):
        start = time.perf_counter()
        client.submit_many(items(0, rows)).wait(timeout=3600)
        settle(client, urls["database_url"])
        run_sql(urls["database_url"], "VACUUM ANALYZE")
        yield client, urls["database_url"], time.perf_counter() - start


def items(first: int, last: int) -> Iterator[dict[str, Any]]:
    """Texts that the stub encoder takes for the numbers of vectors."""
    for n in range(first, last):
        yield {"text": f"vector {n}", "key": str(n),
               "metadata": {"tenth": n % 10, "hundredth": n % 100}}  # fmt: skip


def settle(client: Client, url: str) -> None:
    """Returns when nothing has been built for longer than a quiet time takes to begin."""
    building = """
        SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
        AND application_name = 'pgclip segments' AND state = 'active'
    """
    seen, since = None, time.monotonic()
    while time.monotonic() - since < 90:
        time.sleep(0.5)
        now = [(each.number, each.state) for each in client.segments() if each.state != "retired"]
        if now != seen or run_sql(url, building) != [(0,)]:
            seen, since = now, time.monotonic()


def growth(size: int, url: str, took: float) -> list[Figure]:
    """How a search grows with the rows, and what their indexes cost."""
    with psycopg2.connect(url) as connection:
        times = [ask(connection, query)[1] for query in clustered(QUERIES, seed=3)]
    sealed = run_sql(url, "SELECT count(*) FROM pgclip.segments WHERE state = 'sealed'")[0][0]
    name = f"search, {size:,} rows in {sealed} segments with an index, p50"
    return [
        Figure(name, quantile(times, 50), "ms"),
        Figure(f"stored and fully indexed, {size:,} rows, quiet times included", size / took,
               "rows/s"),
    ]  # fmt: skip


def at_rest(rows: int, url: str) -> list[Figure]:
    """Nothing else at work."""
    vectors, asked = np.load(PREPARED)[:rows], clustered(QUERIES, seed=2)
    with psycopg2.connect(url) as connection:
        answers = [ask(connection, query) for query in asked]
        exact = [ask(connection, query, ", exact => true")[1] for query in asked[:30]]
    recalls = [
        recall(found, np.argsort(-(vectors @ query))[:10])
        for query, (found, _) in zip(asked, answers, strict=True)
    ]
    times = [seconds for _, seconds in answers]
    return [
        Figure("recall@10 against numpy's exact answer", float(np.mean(recalls)), "", "≥ 0.98"),
        Figure("search, p50", quantile(times, 50), "ms", "≤ 5"),
        Figure("search, p95", quantile(times, 95), "ms", "≤ 15"),
        Figure("exact search, p50", quantile(exact, 50), "ms"),
    ]


def filtered(rows: int, url: str) -> list[Figure]:
    """With filters on metadata; short: answers with fewer than k rows."""
    vectors, asked = np.load(PREPARED)[:rows], clustered(QUERIES, seed=2)
    numbers = np.arange(rows)
    figures = []
    for share, (field, modulus) in FILTERS.items():
        kept = numbers[numbers % modulus == 3]
        narrowed = f""", filter => '{{"{field}": 3}}'"""
        with psycopg2.connect(url) as connection:
            answers = [ask(connection, query, narrowed) for query in asked]
        recalls = [
            recall(found, kept[np.argsort(-(vectors[kept] @ query))[:10]])
            for query, (found, _) in zip(asked, answers, strict=True)
        ]
        times = [seconds for _, seconds in answers]
        short = sum(len(found) < 10 for found, _ in answers)
        figures += [
            Figure(f"filter that keeps {share}, p50", quantile(times, 50), "ms", "≤ 30"),
            Figure(f"filter that keeps {share}, p95", quantile(times, 95), "ms"),
            Figure(f"filter that keeps {share}, recall@10", float(np.mean(recalls)), ""),
            Figure(f"filter that keeps {share}, short answers", short, "", "0"),
        ]
    return figures


def bytes_of(client: Client, url: str) -> list[Figure]:
    """Of the segments in force, per vector."""
    segments = [each for each in client.segments() if each.state == "sealed"]
    vectors = sum(each.vectors for each in segments)
    rest = "SELECT pg_total_relation_size('pgclip.embedding_set')"
    return [
        Figure("a vector's row", sum(each.table_bytes for each in segments) / vectors, "bytes"),
        Figure("a vector's indexes", sum(each.index_bytes for each in segments) / vectors, "bytes"),
        Figure("its part of the ledger", run_sql(url, rest)[0][0] / vectors, "bytes"),
    ]


def burst(client: Client, url: str, rows: int, more: int) -> list[Figure]:
    """A searcher while rows are stored as fast as they can be, and their indexes are built.

    What is submitted waits until all of it is there; then the worker gets at it.
    """
    batch = client.submit_many(items(rows, rows + more), connection=(gate := psycopg2.connect(url)))
    settled, built = threading.Event(), threading.Event()
    stored: list[float] = []

    def watch() -> None:
        start = time.perf_counter()
        batch.wait(timeout=3600)
        stored.append(time.perf_counter() - start)
        settled.set()
        while any(each.state == "closed" for each in client.segments()):
            time.sleep(0.2)
        built.set()

    gate.commit()
    watcher = threading.Thread(target=watch)
    watcher.start()
    during, after = search_until(settled, url), search_until(built, url)
    watcher.join()
    gate.close()
    figures = [
        Figure(f"burst of {more:,}: stored", more / stored[0], "rows/s", "≥ 10,000"),
    ]
    for name, (times, recalls) in (("burst", during), ("building after it", after)):
        if len(times) > 1:
            figures += [
                Figure(f"{name}: search, p50", quantile(times, 50), "ms"),
                Figure(f"{name}: search, p95", quantile(times, 95), "ms", "≤ 60"),
                Figure(f"{name}: recall@10 against exact", float(np.mean(recalls)), "", "≥ 0.98"),
            ]
    return figures


def search_until(event: threading.Event, url: str) -> tuple[list[float], list[float]]:
    """Seconds of searches, and the recall of every tenth against exact => true, one snapshot."""
    times, recalls = [], []
    connection = psycopg2.connect(url)
    connection.set_session(isolation_level="REPEATABLE READ")
    for n, query in enumerate(cycle(clustered(QUERIES, seed=4))):
        if event.is_set():
            break
        found, seconds = ask(connection, query)
        times.append(seconds)
        if n % 10 == 0:
            truth, _ = ask(connection, query, ", exact => true")
            recalls.append(recall(found, truth))
        connection.commit()
        time.sleep(0.01)
    connection.close()
    return times, recalls


def plain(rows: int) -> list[Figure]:
    """One table with one live HNSW index and pgvector's default settings."""
    vectors, asked = np.load(PREPARED)[:rows], clustered(QUERIES, seed=2)
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
              for share, (field, modulus) in FILTERS.items()),
        ):  # fmt: skip
            figures += plain_answers(cursor, name, where, asked, vectors, kept)
        more, start = clustered(20_000, seed=5), time.perf_counter()
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
    from io import StringIO

    lines = (
        f"{n}\t{n % 10}\t{n % 100}\t[{','.join(f'{value:.6f}' for value in vector)}]\n"
        for n, vector in enumerate(vectors, first)
    )
    cursor.copy_expert("COPY plain FROM STDIN", StringIO("".join(lines)))


def through_a_worker() -> list[Figure]:
    """A new text, from the call to the hits, through a worker with a model of full size."""
    model = make_checkpoint(DATA / "ViT-B-32-random")
    own = 1000 / Sequential(model).texts_per_second(1)
    figures = queries(model)
    return [
        Figure("the model's own encoding of one text", own, "ms"),
        Figure(
            "text query to hits, idle: more than that, p50", figures[0].value - own, "ms", "≤ 10"
        ),
        *figures,
    ]


def ask(connection: Any, query: Floats, rest: str = "") -> tuple[list[int], float]:
    """The numbers of the hits of a search in SQL, and its seconds."""
    literal = str(query.tolist())
    with connection.cursor() as cursor:
        start = time.perf_counter()
        cursor.execute(f"SELECT key FROM pgclip.search_vector(%s::halfvec{rest})", (literal,))
        rows = cursor.fetchall()
        return [int(key) for (key,) in rows], time.perf_counter() - start


def recall(found: Sequence[int], truth: Any) -> float:
    """The share of the truth that was found."""
    return len(set(found) & set(np.asarray(truth).tolist())) / len(truth)


if __name__ == "__main__":
    sys.exit(main())
