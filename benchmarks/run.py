"""`make bench`: the main job's figures, as a table and as JSON with the machine's description."""

import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from checkpoint import make_checkpoint
from pictures import photo
from system import DATA, HERE, REAL_WORKER, STUB_WORKER, fresh_system, machine, worker

from pgclip import Client

PICTURES = 384
BATCH = 64
QUEUED = 40_000
REFERENCES = 20_000
Figure = tuple[str, float, str, str]


def main() -> int:
    """Runs all parts, prints the table, keeps the JSON."""
    DATA.mkdir(parents=True, exist_ok=True)
    model = make_checkpoint(DATA / "ViT-B-32-random")
    figures: list[Figure] = []
    for part in (submitting, queue_and_store):
        figures += show(part())
    for part_with_model in (images, queries):
        figures += show(part_with_model(model))
    result = {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "make bench",
        "machine": machine(),
        "load_before": LOAD,
        "figures": [
            {"figure": name, "value": round(value, 3), "unit": unit, "aim": aim}
            for name, value, unit, aim in figures
        ],
    }
    target = HERE / "results" / "main-job.json"
    target.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    print(f"\n{json.dumps(result['machine'])}\nkept in {target.relative_to(HERE.parent)}")
    return 0


LOAD = round(os.getloadavg()[0], 2)


def show(figures: list[Figure]) -> list[Figure]:
    """Prints figures as they come."""
    for name, value, unit, aim in figures:
        print(f"{name:<66} {value:>10,.2f} {unit:<9} {aim}", flush=True)
    return figures


def timed(call: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def quantile(values: list[float], q: int) -> float:
    """The q-th percentile, in milliseconds."""
    return 1000 * statistics.quantiles(values, n=100)[q - 1]


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
        ("submit_text, p50", quantile(singles, 50), "ms", "≤ 3"),
        ("submit_text, p95", quantile(singles, 95), "ms", ""),
        ("submit_many, references", REFERENCES / took, "items/s", "≥ 10,000"),
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
    return [("queue and store, stub encoder, 512 dimensions", QUEUED / took, "items/s", "≥ 5,000")]


@contextmanager
def working(model: Path) -> Iterator[Client]:
    """A client of a fresh system in which a real worker has loaded the model."""
    with (
        fresh_system() as urls,
        worker(urls, REAL_WORKER, PGCLIP_MODEL=str(model)),
        Client(**urls) as client,
    ):
        yield client


def images(model: Path) -> list[Figure]:
    """JPEG bytes to committed rows with labels, beside one process that decodes and encodes."""
    photos = [photo(seed) for seed in range(PICTURES)]
    alone = PICTURES / sequential(model, photos)
    with working(model) as client:
        client.submit_many({"image": data} for data in photos[:8]).wait(timeout=120)
        rest = photos[8:]
        took = timed(lambda: client.submit_many({"image": data} for data in rest).wait(timeout=600))
    whole = len(rest) / took
    return [
        ("ViT-B/32, decode and encode in one process, batches of 64", alone, "images/s", ""),
        ("ViT-B/32, submitted bytes to committed rows with labels", whole, "images/s", ""),
        ("… as a share of the former", whole / alone, "", "≥ 0.8"),
    ]


def sequential(model: Path, photos: list[bytes]) -> float:
    """Seconds for the same decode and the same encoder in a plain loop."""
    from pgclip.settings import Settings
    from pgclip_workers.clip import ClipEncoder
    from pgclip_workers.decode import Pixels, decode
    from pgclip_workers.sources import Limits

    encoder = ClipEncoder(Settings.load({}, model=str(model), batch_size=BATCH))
    limits = Limits(10**8, 10**9, ())

    def encode(batch: list[bytes]) -> None:
        decoded = [decode(data, None, encoder.preprocessing, limits) for data in batch]
        encoder.encode_images([each.array for each in decoded if isinstance(each, Pixels)])

    encode(photos[:8])
    return timed(lambda: [encode(photos[at : at + BATCH]) for at in range(0, len(photos), BATCH)])


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
        ("text query to hits, idle, p50", quantile(idle, 50), "ms", ""),
        ("text query to hits, idle, p95", quantile(idle, 95), "ms", ""),
        ("text query to hits, beside bulk work, p50", quantile(busy, 50), "ms", ""),
        ("text query to hits, beside bulk work, p95", quantile(busy, 95), "ms", ""),
    ]


if __name__ == "__main__":
    sys.exit(main())
