"""What those who share the server have from us: connections, statements, builds; and a pooler.

    python benchmarks/shared.py        results/shared.json

Through PgBouncer in transaction mode with two sessions, beside the same without, in one run. What a
build does to others is seen from outside: how long its snapshot is held, what it writes and takes.
"""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from figures import Figure, keep, quantile, show, timed
from here import DATA, HERE
from system import STUB_WORKER, fresh_system, run_sql, worker

sys.path.insert(0, str(HERE.parent / "tests"))
from support.pooler import open_folder, start_pooler

from pgclip import Client

VECTORS = 100_000
QUERIES = 60
COMMITS = (
    "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
)
CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pgclip%%'"
BUILDING = """
    SELECT pid, extract(epoch FROM clock_timestamp() - xact_start)::float FROM pg_stat_activity
    WHERE application_name = 'pgclip segments' AND state <> 'idle' AND backend_xmin IS NOT NULL
"""


def main() -> int:
    """Prints the table, keeps the JSON."""
    DATA.mkdir(parents=True, exist_ok=True)
    figures = []
    with fresh_system() as urls:
        figures += show(sessions(urls, ""))
        with open_folder() as folder:
            pooler = start_pooler(urls["database_url"], folder)
            try:
                figures += show(sessions(urls, pooler.through(urls["database_url"])))
            finally:
                pooler.stop()
    with fresh_system() as urls:
        figures += show(building(urls))
    keep(figures, "python benchmarks/shared.py", "shared")
    return 0


def sessions(urls: dict[str, str], pooled: str) -> list[Figure]:
    """Connections and statements, and how long people wait; the stub encodes in no time."""
    how = "through PgBouncer" if pooled else "direct"
    given = {**urls, "database_url": pooled} if pooled else urls
    with worker(given, STUB_WORKER), Client(**given) as client:
        client.submit_text("warm", key="warm").wait(60)
        client.search("warm", k=1)
        queries = [timed(lambda: client.search(f"new {uuid4()}", k=1)) for _ in range(QUERIES)]
        known = [timed(lambda: client.search("warm", k=1)) for _ in range(QUERIES)]
        waits = [_waited(client, urls) for _ in range(20)]
        at_once = timed(lambda: _together(client, 8))
        connections = run_sql(urls["database_url"], CONNECTIONS)[0][0]
        time.sleep(15)  # what was counted late
        before, begin = run_sql(urls["database_url"], COMMITS)[0][0], time.monotonic()
        time.sleep(30)
        asked = run_sql(urls["database_url"], COMMITS)[0][0] - before
        idle = asked / (time.monotonic() - begin)
    return [
        Figure(f"{how}: a query never asked, p50", quantile(queries, 50), "ms", ""),
        Figure(f"{how}: a query never asked, p95", quantile(queries, 95), "ms", ""),
        Figure(f"{how}: a query asked before, p50", quantile(known, 50), "ms", ""),
        Figure(f"{how}: wait returns after the store, p50", quantile(waits, 50), "ms", "≤ 300"),
        Figure(f"{how}: wait returns after the store, p95", quantile(waits, 95), "ms", "≤ 300"),
        Figure(f"{how}: eight queries never asked, at once", 1000 * at_once, "ms", "≤ 1000"),
        Figure(f"{how}: transactions a second, idle worker and client", idle, "1/s", "≤ 20"),
        Figure(f"{how}: sessions of a worker and a client", connections, "", ""),
    ]


def _waited(client: Client, urls: dict[str, str]) -> float:
    """Seconds from the store's transaction to the return of wait."""
    key = str(uuid4())
    client.submit_text(f"text {key}", key=key).wait(60)
    since = "SELECT extract(epoch FROM clock_timestamp() - stored_at)::float FROM pgclip.items"
    return float(run_sql(urls["database_url"], f"{since} WHERE key = '{key}'")[0][0])


def _together(client: Client, count: int) -> None:
    asking = [
        threading.Thread(target=client.search, args=(f"new {uuid4()}",)) for _ in range(count)
    ]
    for each in asking:
        each.start()
    for each in asking:
        each.join()


def building(urls: dict[str, str]) -> list[Figure]:
    """One index over VECTORS, beside an idle database."""
    url = urls["database_url"]
    unbuilt = {"PGCLIP_SEGMENT_ROWS": "10000000", "PGCLIP_MAX_UNINDEXED": "20000000"}
    with worker(urls, STUB_WORKER, **unbuilt), Client(**urls) as client:
        client.submit_many({"text": f"text {n}"} for n in range(VECTORS)).wait(600)
    size = run_sql(url, "SELECT sum(table_bytes) FROM pgclip.segments")[0][0]
    begin = run_sql(url, "SELECT pg_current_wal_lsn()")[0][0]
    with worker(urls, STUB_WORKER, PGCLIP_SEGMENT_ROWS="1000"), _watching(url) as seen:
        while "sealed" not in str(run_sql(url, "SELECT state FROM pgclip.segments")):
            time.sleep(0.2)
    (written,) = run_sql(url, f"SELECT pg_current_wal_lsn() - '{begin}'::pg_lsn")[0]
    return [
        Figure("vectors of 512 dimensions in one build", VECTORS, "", ""),
        Figure("their table", float(size) / 2**20, "MiB", ""),
        Figure("a snapshot (xmin) is held for", seen["seconds"], "s", ""),
        Figure("WAL written", float(written) / 2**20, "MiB", ""),
        Figure("memory of the session that builds, at most", seen["memory"] / 2**20, "MiB", ""),
    ]


@contextmanager
def _watching(url: str) -> Iterator[dict[str, Any]]:
    """The longest transaction of who builds, and the private memory of its session, at most."""
    seen = {"seconds": 0.0, "memory": 0.0}
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.1):
            for pid, seconds in run_sql(url, BUILDING):
                seen["seconds"] = max(seen["seconds"], seconds)
                seen["memory"] = max(seen["memory"], _private(pid))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def _private(pid: int) -> float:
    """Bytes of a process that are its own: shared buffers are everybody's."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(1024 * float(line.split()[1]) for line in lines if line.startswith("Private_"))


if __name__ == "__main__":
    sys.exit(main())
