"""`make bench-search`: search at rest, with filters, beside a burst, by size; and a plain table.

Everything goes the product's own way: submitted by a client, stored by a worker whose encoder
deals out prepared vectors, its segments built by that worker. Beside it, in the same run, a table
as pgvector's documentation has it, with one HNSW index.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import psycopg2
from asking import ask, recall
from burst import INDEXED, items, through_a_whole_worker, through_the_store, wait_for
from checkpoint import make_checkpoint
from figures import Figure, keep, quantile, show
from here import DATA
from people import People
from plain import plain
from run import queries
from sequential import Sequential
from system import STUB_WORKER, fresh_system, run_sql, worker

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
    options.add_argument("--grow", action="store_true", help="sizes alone")
    options.add_argument("--bursts", action="store_true", help="bursts alone")
    chosen = options.parse_args()
    rows, more = chosen.rows, chosen.burst
    DATA.mkdir(parents=True, exist_ok=True)
    figures: list[Figure] = []
    for size in chosen.sizes:
        with loaded(size, 0) as (_, urls, took):
            figures += show(growth(size, urls["database_url"], took))
    if chosen.grow:
        keep(figures, f"search.py --grow --sizes {chosen.sizes}", "search-growth")
        return 0
    with loaded(rows, 2 * more) as (client, urls, took):
        url = urls["database_url"]
        if not chosen.bursts:
            figures += show(growth(rows, url, took))
            figures += show(at_rest(rows, url))
            figures += show(filtered(rows, url))
            figures += show(bytes_of(client, url))
        figures += show(through_the_store(client, urls, PREPARED, rows, more))
        figures += show(through_a_whole_worker(client, urls, PREPARED, rows + more, more))
    if chosen.bursts:
        keep(figures, f"search.py --bursts --sizes, {rows} rows", "search-bursts")
        return 0
    figures += show(plain(np.load(PREPARED), rows, People().asked()[:QUERIES], FILTERS))
    figures += show(through_a_worker())
    keep(figures, f"make bench-search, {rows} rows", "search")
    return 0


@contextmanager
def loaded(rows: int, more: int) -> Iterator[tuple[Client, dict[str, str], float]]:
    """A client of a system in which a worker has stored `rows` vectors and is done with them.

    There are vectors for `more`. Also the URLs, and the seconds from the first submission until
    nothing was left to be built, but for what a quiet time brings.
    """
    np.save(PREPARED, People().many(rows + more))
    with fresh_system() as urls, Client(**urls, statement_timeout=0) as client:
        url = urls["database_url"]
        with worker(urls, STUB_WORKER, STUB_VECTORS=str(PREPARED)):
            start = time.perf_counter()
            client.submit_many(items(0, rows)).wait(timeout=3600)
            wait_for(INDEXED, url)
            took = time.perf_counter() - start
            settle(client, url)
        run_sql(url, "VACUUM ANALYZE")
        yield client, urls, took


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
    """How a search grows with the rows, and the rate at which they became indexed."""
    with psycopg2.connect(url) as connection:
        times = [ask(connection, query)[1] for query in People(1).asked()[:QUERIES]]
    count = "SELECT count(*) FROM pgclip.segments WHERE state = 'sealed'"
    ((sealed,),) = run_sql(url, count)
    return [
        Figure(f"{size:,} rows, {sealed} segments with an index: search, p50",
               quantile(times, 50), "ms"),
        Figure(f"{size:,} rows: submitted, stored and indexed, sustained", size / took, "rows/s"),
    ]  # fmt: skip


def at_rest(rows: int, url: str) -> list[Figure]:
    """Nothing else at work."""
    vectors, asked = np.load(PREPARED)[:rows], People().asked()[:QUERIES]
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
    vectors, asked = np.load(PREPARED)[:rows], People().asked()[:QUERIES]
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


if __name__ == "__main__":
    sys.exit(main())
