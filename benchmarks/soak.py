"""What a worker holds over 100,000 pictures and texts, all its connections cut every few seconds.

Its encoder is the stub. `python benchmarks/soak.py` keeps results/soak.json.
"""

import io
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

import psutil
import redis
from figures import Figure, keep, show
from here import DATA
from PIL import Image
from system import STUB_WORKER, fresh_system, run_sql, worker

from pgclip import Client

ITEMS = 100_000
_RECONNECT_SECONDS = 3.0
_CUT = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE application_name = 'pgclip worker'
"""
_HELD = """
    SELECT (SELECT count(*) FROM pgclip.embedding_set),
           (SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgclip worker')
"""


class Held(NamedTuple):
    """What the worker and its decoding processes hold at one moment."""

    memory: float  # MiB; what processes share counts once for each
    descriptors: int
    threads: int
    connections: int  # to Postgres
    keys: int  # in Redis


UNITS = Held("MiB", "", "", "", "")  # type: ignore[arg-type]


def main() -> int:
    """Prints and keeps the figures."""
    DATA.mkdir(parents=True, exist_ok=True)
    keep(show(soak()), "python benchmarks/soak.py", "soak")
    return 0


def soak() -> list[Figure]:
    """Medians early on and at the end."""
    with fresh_system() as urls, worker(urls, STUB_WORKER), Client(**urls) as client:
        ((pid,),) = run_sql(urls["database_url"], "SELECT pid FROM pgclip.workers")
        work = threading.Thread(target=lambda: client.submit_many(items()).wait())
        work.start()
        seen: list[tuple[int, Held]] = []
        cuts, cut_at = 0, time.monotonic()
        while work.is_alive():
            seen.append(_look(urls, pid))
            if time.monotonic() - cut_at > _RECONNECT_SECONDS:
                _cut(urls)
                cuts, cut_at = cuts + 1, time.monotonic()
            time.sleep(0.5)
    early = [held for done, held in seen if ITEMS * 0.05 < done < ITEMS * 0.15]
    late = [held for done, held in seen if done > ITEMS * 0.9]
    figures = [Figure("a worker's connections cut, all at once", cuts, "times")]
    for nth, name in enumerate(Held._fields):
        for when, some in (("5,000 to 15,000", early), ("90,000 to 100,000", late)):
            median = statistics.median(held[nth] for held in some)
            figures.append(Figure(f"a worker's {name}, {when} items done", median, str(UNITS[nth])))
    return figures


def items() -> Iterator[dict[str, object]]:
    """Pictures of 48 × 36 and texts in turn, each different."""
    for number in range(ITEMS // 2):
        buffer = io.BytesIO()
        colour = (number & 255, number >> 8 & 255, number * 7 & 255)
        Image.new("RGB", (48, 36), colour).save(buffer, "PNG", compress_level=1)
        yield {"image": buffer.getvalue(), "key": f"picture {number}"}
        yield {"text": f"a short text {number}"}


def _look(urls: dict[str, str], pid: int) -> tuple[int, Held]:
    """How many items are stored, and what is held."""
    process = psutil.Process(pid)
    family = [process, *process.children(recursive=True)]
    ((stored, connections),) = run_sql(urls["database_url"], _HELD)
    with redis.Redis.from_url(urls["redis_url"]) as asking:
        keys = int(asking.dbsize())  # type: ignore[arg-type]
    memory = sum(each.memory_info().rss for each in family) / 2**20
    descriptors = sum(each.num_fds() for each in family)
    threads = sum(each.num_threads() for each in family)
    return stored, Held(memory, descriptors, threads, connections, keys)


def _cut(urls: dict[str, str]) -> None:
    run_sql(urls["database_url"], _CUT)
    with redis.Redis.from_url(urls["redis_url"]) as asking:
        asking.client_kill_filter(_type="normal", skipme=True)


if __name__ == "__main__":
    sys.exit(main())
