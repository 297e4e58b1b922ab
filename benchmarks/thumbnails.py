"""`make bench-thumbnails`: what thumbnails cost where decoding bounds, and what they take.

The encoder is a stub, so that a worker's rate is that of its decoding processes. With and without
in turn, each with a database of its own.
"""

import statistics
import sys
from pathlib import Path

from figures import Figure, keep, show, timed
from here import DATA
from system import STUB_WORKER, fresh_system, run_sql, worker
from workload import make_workload, paths

from pgclip import Client

PHOTOS, LARGE = 3072, 256
PAIRS = 5
_TAKEN = """
    SELECT pg_total_relation_size('pgclip.thumbnail') / count(*), avg(octet_length(data))::int
    FROM pgclip.thumbnail
"""


def main() -> int:
    """Prints and keeps rates, their ratio, and bytes."""
    workload = make_workload(DATA / "workload", PHOTOS, LARGE, 0)
    figures: list[Figure] = []
    for name, files in (
        ("640 × 427", paths(workload, "photos")[:PHOTOS]),
        ("12 MP", paths(workload, "large")[:LARGE]),
    ):
        figures += show(compared(name, files))
    keep(figures, "make bench-thumbnails", "thumbnails", pairs=PAIRS)
    return 0


def compared(name: str, files: list[Path]) -> list[Figure]:
    """Files by reference: rates without and with, the median of the pairs' ratios, bytes."""
    rates: dict[str, list[float]] = {"0": [], "256": []}
    taken: list[tuple[int, int]] = []
    for pair in range(PAIRS):
        for side in ("0", "256") if pair % 2 else ("256", "0"):
            with fresh_system() as urls:
                rates[side].append(rate(urls, files, side))
                if side != "0":
                    taken += run_sql(urls["database_url"], _TAKEN)
    ratios = [
        with_ones / without for without, with_ones in zip(rates["0"], rates["256"], strict=True)
    ]
    on_disk, data = taken[0]
    return [
        Figure(f"{name}, without thumbnails", statistics.median(rates["0"]), "images/s"),
        Figure(f"{name}, of 256 pixels", statistics.median(rates["256"]), "images/s"),
        Figure(f"{name}, ratio of the two", statistics.median(ratios), "", "≥ 0.95"),
        Figure(f"{name}, a thumbnail", data, "bytes"),
        Figure(f"{name}, a thumbnail on disk", on_disk, "bytes"),
    ]


def rate(urls: dict[str, str], files: list[Path], side: str) -> float:
    """Pictures a second, from the submission to the last vector; the first few warm up."""
    allowed = {"PGCLIP_ROOTS": str(files[0].parent), "PGCLIP_THUMBNAILS": side}
    with worker(urls, STUB_WORKER, **allowed), Client(**urls) as client:
        client.submit_many({"image": path} for path in files[:16]).wait(120)
        rest = files[16:]
        return len(rest) / timed(lambda: client.submit_many({"image": p} for p in rest).wait(600))


if __name__ == "__main__":
    sys.exit(main())
