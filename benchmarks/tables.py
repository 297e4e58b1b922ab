"""`make bench-tables`: what writing to an indexed table costs, and how soon its rows are found.

Three tables of the same five columns: bare; indexed; and with a plain AFTER ROW trigger that
inserts each row's key into a queue, as others do. Writes to the three take turns.
"""

import argparse
import io
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import psycopg2
from figures import Figure, keep, quantile, show, timed
from system import STUB_WORKER, fresh_system, run_sql, worker

from pgclip import Client

TABLES = ("bare", "indexed", "queued")
COLUMNS = "id int PRIMARY KEY, photo text, title text, price numeric, stock int"
QUEUE = """
    CREATE TABLE queue (id bigserial PRIMARY KEY, row_id int NOT NULL);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN INSERT INTO queue (row_id) VALUES (NEW.id); RETURN NULL; END';
    CREATE TRIGGER note AFTER INSERT OR UPDATE ON queued FOR EACH ROW EXECUTE FUNCTION note()
"""
INDEX = """
    SELECT pgclip.index_table('indexed', image => 'photo', text => 'title', metadata => '{price}')
"""


def main() -> int:
    """Runs all parts, prints the table, keeps the JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--singles", type=int, default=2000)
    parser.add_argument("--copied", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--filled", type=int, default=1_000_000)
    chosen = parser.parse_args()
    figures = show(writing(chosen.singles, chosen.copied, chosen.rounds))
    figures += show(found(60))
    figures += show(filling(chosen.filled))
    keep(figures, "make bench-tables", "tables")
    return 0


def writing(singles: int, copied: int, rounds: int) -> list[Figure]:
    """Nobody works meanwhile: what a statement and its commit take."""
    with fresh_system() as urls:
        url = urls["database_url"]
        for table in TABLES:
            run_sql(url, f"CREATE TABLE {table} ({COLUMNS})")
        run_sql(url, QUEUE)
        run_sql(url, INDEX)
        connection = psycopg2.connect(url)
        connection.autocommit = True
        with connection.cursor() as cursor:
            one = _in_turn(singles, lambda table, n: _insert(cursor, table, n))
            many = _in_turn(rounds, lambda table, n: _copy(cursor, table, n, copied))
            for table in TABLES:
                cursor.execute(f"VACUUM ANALYZE {table}")
            apart = _in_turn(singles, lambda table, n: _update(cursor, table, f"id = {n}"))
            all_at_once = _in_turn(rounds, lambda table, n: _update(cursor, table, "true"))
        connection.close()
    names = {
        "single insert and commit": (one, "ms", "≤ 0.15 ms more"),
        f"COPY of {copied:,}": (many, "s", "≤ 1.5 times"),
        "single update of what does not count": (apart, "ms", "≤ 1.05 times"),
        f"update of {copied * rounds:,}, what does not count": (all_at_once, "s", "≤ 1.05 times"),
    }  # fmt: skip
    figures = []
    for name, (seconds, unit, aim) in names.items():
        medians = {
            table: quantile(taken, 50) / (1000 if unit == "s" else 1)
            for table, taken in seconds.items()
        }
        figures += [Figure(f"{name}, {table}, p50", medians[table], unit) for table in TABLES]
        if "≤ 0.15" in aim:
            more = medians["indexed"] - medians["bare"]
            figures.append(Figure(f"{name}: indexed takes more", more, unit, "≤ 0.15"))
        else:
            ratio = medians["indexed"] / medians["bare"]
            figures.append(Figure(f"{name}: indexed by bare", ratio, "", aim))
    return figures


def _in_turn(times: int, work: Callable[[str, int], None]) -> dict[str, list[float]]:
    """Seconds of each table, one after the other in each round, another first each time."""
    seconds: dict[str, list[float]] = {table: [] for table in TABLES}
    for n in range(times):
        for place in range(len(TABLES)):
            table = TABLES[(n + place) % len(TABLES)]
            seconds[table].append(timed(partial(work, table, n)))
    return seconds


def _insert(cursor: Any, table: str, n: int) -> None:
    row = (-1 - n, f"/p/{n}.jpg", f"no. {n}", n, n)
    cursor.execute(f"INSERT INTO {table} VALUES (%s, %s, %s, %s, %s)", row)


def _copy(cursor: Any, table: str, n: int, rows: int) -> None:
    numbers = range(n * rows, (n + 1) * rows)
    lines = (f"{i}\t/p/{i}.jpg\ttitle number {i}\t{i}\t{i}\n" for i in numbers)
    cursor.copy_from(io.StringIO("".join(lines)), table)


def _update(cursor: Any, table: str, condition: str) -> None:
    cursor.execute(f"UPDATE {table} SET stock = stock + 1 WHERE {condition}")


def found(times: int) -> list[Figure]:
    """From the commit of a row until its vector is committed, which searches then see at once; with
    an idle worker of default settings."""
    seconds = []
    with fresh_system() as urls:
        url = urls["database_url"]
        run_sql(url, f"CREATE TABLE indexed ({COLUMNS})")
        with worker(urls, STUB_WORKER), Client(**urls) as client:
            run_sql(url, "SELECT pgclip.index_table('indexed', text => 'title')")
            for n in range(times):
                time.sleep(0.5 + n % 10 / 10)
                run_sql(url, f"INSERT INTO indexed (id, title) VALUES ({n}, 'number {n}')")
                begun = time.perf_counter()
                while client.count(collection="indexed")["done"] <= n:
                    time.sleep(0.01)
                seconds.append(time.perf_counter() - begun)
    return [
        Figure("from commit to found, idle, p50", quantile(seconds, 50) / 1000, "s", "≤ 1.5"),
        Figure("from commit to found, idle, p95", quantile(seconds, 95) / 1000, "s"),
    ]


def filling(rows: int) -> list[Figure]:
    """Rows that are there when a table is indexed become items, beside submit_many of as many."""
    with fresh_system() as urls:
        url = urls["database_url"]
        run_sql(url, f"CREATE TABLE indexed ({COLUMNS})")
        run_sql(url, f"INSERT INTO indexed SELECT n, NULL, 'title number ' || n, n, n "
                     f"FROM generate_series(1, {rows}) n")  # fmt: skip
        with worker(urls, STUB_WORKER):
            pass  # registers the model
        run_sql(url, "SELECT pgclip.index_table('indexed', text => 'title', metadata => '{price}')")
        took = timed(lambda: _follow(url))
        texts = (
            {"text": f"title no. {n}", "metadata": {"price": n}, "collection": "other"}
            for n in range(rows)
        )
        with Client(**urls) as client:
            submitted = timed(lambda: client.submit_many(texts))
    return [
        Figure(f"{rows:,} rows filled", rows / took, "rows/s"),
        Figure(f"submit_many of {rows:,} texts", rows / submitted, "items/s"),
        Figure("filled by submit_many", submitted / took, ""),
    ]


def _follow(url: str) -> None:
    connection = psycopg2.connect(url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        is_busy = True
        while is_busy:
            cursor.execute("SELECT did FROM pgclip.follow_tables()")
            (is_busy,) = cursor.fetchone() or (False,)
    connection.close()


if __name__ == "__main__":
    raise SystemExit(main())
