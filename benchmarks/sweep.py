"""`make bench-sweep`: a worker's settings one by one, beside its default, on the same files."""

import sys

from checkpoint import make_checkpoint
from encode import LARGE, PHOTOS, TEXTS, system
from figures import Figure, keep, show, timed
from here import DATA
from workload import make_workload, paths

SETTINGS: tuple[dict[str, str], ...] = (
    {},
    {"PGCLIP_DECODERS": "1"},
    {"PGCLIP_DECODERS": "4"},
    {"OMP_NUM_THREADS": "1"},
    {"OMP_WAIT_POLICY": "ACTIVE"},
    {"PGCLIP_BATCH_SIZE": "32"},
    {"PGCLIP_BATCH_SIZE": "128"},
    {},
)


def main() -> int:
    """Prints and keeps the rates of photos and of large pictures for each setting."""
    model = make_checkpoint(DATA / "ViT-B-32-random")
    workload = make_workload(DATA / "workload", PHOTOS, LARGE, TEXTS)
    photos = [path.read_bytes() for path in paths(workload, "photos")[4:324]]
    large = paths(workload, "large")[:96]
    figures: list[Figure] = []
    for settings in SETTINGS:
        name = " ".join(f"{key}={value}" for key, value in settings.items()) or "default"
        with system(model, workload, **settings) as client:
            took = timed(lambda: client.submit_many({"image": d} for d in photos).wait(600))
            slow = timed(lambda: client.submit_many({"image": p} for p in large).wait(600))
        figures += show(
            [
                Figure(f"640 × 427, {name}", len(photos) / took, "images/s"),
                Figure(f"12 MP, {name}", len(large) / slow, "images/s"),
            ]
        )
    keep(figures, "make bench-sweep", "sweep")
    return 0


if __name__ == "__main__":
    sys.exit(main())
