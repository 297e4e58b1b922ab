"""`make bench`: the main job's figures, as a table and as JSON with the machine's description."""

import sys
import threading
import time
from pathlib import Path

from checkpoint import make_checkpoint
from figures import Figure, keep, quantile, show, timed
from here import DATA
from photos import photo
from system import STUB_WORKER, fresh_system, worker, working

from pgclip import Client

PICTURES = 384
QUEUED = 100_000
REFERENCES = 20_000


def main() -> int:
    """Runs all parts, prints the table, keeps the JSON."""
    DATA.mkdir(parents=True, exist_ok=True)
    model = make_checkpoint(DATA / "ViT-B-32-random")
    figures: list[Figure] = []
    for part in (submitting, queue_and_store):
        figures += show(part())
    figures += show(queries(model))
    keep(figures, "make bench", "main-job")
    return 0


def submitting() -> list[Figure]:
    """The client alone, tickets included; a model is registered, nobody works."""
    with fresh_system() as urls:
        with worker(urls, STUB_WORKER):
            pass  # registers the model
        with Client(**urls) as client:
            client.submit_text("warm")
            singles = [timed(lambda n=n: client.submit_text(f"text {n}")) for n in range(500)]  # type: ignore[misc]
            references = ({"image": Path(f"/data/{n}.jpg")} for n in range(REFERENCES))
            took = timed(lambda: client.submit_many(references))
    return [
        Figure("submit_text, p50", quantile(singles, 50), "ms", "≤ 3"),
        Figure("submit_text, p95", quantile(singles, 95), "ms", ""),
        Figure("submit_many, references", REFERENCES / took, "items/s", "≥ 10,000"),
    ]


def queue_and_store() -> list[Figure]:
    """Items that are queued already, through claim, fetch, labels and store, by a stub."""
    with fresh_system() as urls:
        with worker(urls, STUB_WORKER):
            pass
        with Client(**urls) as client:
            batch = client.submit_many({"text": f"a short text {n}"} for n in range(QUEUED))
            with worker(urls, STUB_WORKER):
                took = timed(lambda: batch.wait(timeout=300))
    name = "queue and store, stub encoder, 512 dimensions"
    return [Figure(name, QUEUED / took, "items/s", "≥ 10,000")]


def queries(model: Path) -> list[Figure]:
    """A new text each time, from the call to the hits, alone and while pictures are indexed."""
    photos = [photo(10_000 + seed) for seed in range(PICTURES)]
    with working(model) as client:
        client.submit_many({"image": data} for data in photos[:64]).wait(timeout=120)
        client.search("warm", timeout=60)
        idle = [timed(lambda n=n: client.search(f"a photo of thing {n}")) for n in range(100)]  # type: ignore[misc]
        batch = client.submit_many({"image": data} for data in photos[64:])
        bulk = threading.Thread(target=lambda: batch.wait(timeout=600))
        bulk.start()
        busy: list[float] = []
        while bulk.is_alive():
            query = f"another thing {len(busy)}"
            busy.append(timed(lambda query=query: client.search(query, timeout=60)))  # type: ignore[misc]
            time.sleep(0.02)
    return [
        Figure("text query to hits, idle, p50", quantile(idle, 50), "ms", ""),
        Figure("text query to hits, idle, p95", quantile(idle, 95), "ms", ""),
        Figure("text query to hits, beside bulk work, p50", quantile(busy, 50), "ms", ""),
        Figure("text query to hits, beside bulk work, p95", quantile(busy, 95), "ms", ""),
    ]


if __name__ == "__main__":
    sys.exit(main())
