"""A worker's memory over 100,000 pictures and texts; its encoder is the stub."""

import io
import statistics
import threading
import time
from collections.abc import Iterator

import psutil
from figures import Figure
from PIL import Image
from system import STUB_WORKER, fresh_system, run_sql, worker

from pgclip import Client

ITEMS = 100_000


def memory() -> list[Figure]:
    """The worker's resident memory, its decoding processes included, early on and at the end."""
    with fresh_system() as urls, worker(urls, STUB_WORKER), Client(**urls) as client:
        ((pid,),) = run_sql(urls["database_url"], "SELECT pid FROM pgclip.workers")
        work = threading.Thread(target=lambda: client.submit_many(items()).wait())
        work.start()
        sizes: list[tuple[int, float]] = []
        while work.is_alive():
            sizes.append((_stored(urls["database_url"]), _resident(pid)))
            time.sleep(0.5)
    early = [size for done, size in sizes if ITEMS * 0.05 < done < ITEMS * 0.15]
    late = [size for done, size in sizes if done > ITEMS * 0.9]
    return [
        Figure("a worker's memory, 5,000 to 15,000 items done", statistics.median(early), "MiB"),
        Figure("a worker's memory, 90,000 to 100,000 items done", statistics.median(late), "MiB"),
    ]


def items() -> Iterator[dict[str, object]]:
    """Pictures of 48 × 36 and texts in turn, each different."""
    for number in range(ITEMS // 2):
        buffer = io.BytesIO()
        colour = (number & 255, number >> 8 & 255, number * 7 & 255)
        Image.new("RGB", (48, 36), colour).save(buffer, "PNG", compress_level=1)
        yield {"image": buffer.getvalue(), "key": f"picture {number}"}
        yield {"text": f"a short text {number}"}


def _stored(url: str) -> int:
    ((count,),) = run_sql(url, "SELECT count(*) FROM pgclip.embedding_set")
    return int(count)


def _resident(pid: int) -> float:
    """MiB of the process and its children; what they share counts once for each."""
    process = psutil.Process(pid)
    family = [process, *process.children(recursive=True)]
    return float(sum(each.memory_info().rss for each in family) / 2**20)
