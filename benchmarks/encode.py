"""`make bench-encode`: the encoder, the whole system around it, and its peers, in one run.

    python benchmarks/encode.py [--no-peers]

What a ratio compares is measured in the same run, on the same files, with the same weights.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import peers
from bare import bare
from checkpoint import make_checkpoint
from figures import Figure, keep, show, timed
from here import DATA
from run import queue_and_store
from sequential import Sequential
from soak import soak
from system import working
from workload import make_workload, paths

from pgclip import Client

PHOTOS, LARGE, TEXTS = 768, 192, 12_000
# Peers and loops take fewer: their rates do not depend on how many there are.
SAMPLE_PHOTOS, SAMPLE_LARGE, SAMPLE_TEXTS = 192, 16, 2000
BATCHES = (1, 8, 64)
LABELS = ("cat", "dog", "car", "house", "tree", "person", "food", "boat", "street", "mountain")


def main() -> int:
    """Runs all parts, prints the table, keeps the JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--no-peers", action="store_true")
    with_peers = not parser.parse_args().no_peers
    DATA.mkdir(parents=True, exist_ok=True)
    model = make_checkpoint(DATA / "ViT-B-32-random")
    workload = make_workload(DATA / "workload", PHOTOS, LARGE, TEXTS)
    sample = make_workload(DATA / "sample", SAMPLE_PHOTOS, SAMPLE_LARGE, SAMPLE_TEXTS)
    measured = peers.measure(model, sample, BATCHES) if with_peers else []

    loop = Sequential(model)
    figures = show(bare(loop))
    figures += show(whole(model, workload, loop))
    figures += show(flat(model, workload))
    figures += show(queue_and_store())
    figures += show(soak())
    if measured:
        figures += show(against(measured, figures))
    keep(figures, "make bench-encode", "encode", peers=measured)
    return 0


@contextmanager
def system(model: Path, workload: Path, **environ: str) -> Iterator[Client]:
    """A fresh system in its default configuration, with a label set, warm."""
    with working(model, PGCLIP_ROOTS=str(workload), **environ) as client:
        client.define_label_set("things", LABELS)
        warm = paths(workload, "photos")[:4]
        client.submit_many({"image": path, "key": f"warm {path}"} for path in warm).wait(120)
        yield client


def whole(model: Path, workload: Path, loop: Sequential) -> list[Figure]:
    """Submission to committed rows with labels, before and after a loop in one process."""
    photos = [path.read_bytes() for path in paths(workload, "photos")[4:]]
    large = paths(workload, "large")
    texts = json.loads((workload / "texts.json").read_text())[:6000]
    loops = [loop.photos_per_second(photos[:SAMPLE_PHOTOS])]
    with system(model, workload) as client:
        took = timed(lambda: client.submit_many({"image": data} for data in photos).wait(600))
        took_large = timed(lambda: client.submit_many({"image": path} for path in large).wait(600))
        took_texts = timed(lambda: client.submit_many({"text": text} for text in texts).wait(600))
    loops.append(loop.photos_per_second(photos[:SAMPLE_PHOTOS]))
    rate, alone = len(photos) / took, sum(loops) / 2
    large_alone = loop.photos_per_second([path.read_bytes() for path in large[:SAMPLE_LARGE]])
    return [
        Figure("640 × 427, decoded and encoded in one process", alone, "images/s"),
        Figure("640 × 427, bytes submitted to rows with labels", rate, "images/s"),
        Figure("… as a share of the former", rate / alone, "", "≥ 1.0"),
        Figure("12 MP, decoded and encoded in one process", large_alone, "images/s"),
        Figure("12 MP, files referenced to rows with labels", len(large) / took_large, "images/s"),
        Figure("short texts submitted to rows with labels", len(texts) / took_texts, "texts/s"),
    ]


def flat(model: Path, workload: Path) -> list[Figure]:
    """Whether the cost of an item depends on how many are submitted."""
    texts = json.loads((workload / "texts.json").read_text())
    figures = []
    with system(model, workload) as client:
        at = 0
        for count in (100, 1000, 10_000):
            items = [{"text": text} for text in texts[at : at + count]]
            took = timed(lambda items=items: client.submit_many(items).wait(600))  # type: ignore[misc]
            figures.append(Figure(f"{count} short texts, each", 1000 * took / count, "ms"))
            at += count
    return figures


def against(measured: list[dict[str, object]], figures: list[Figure]) -> list[Figure]:
    """The whole system's rates over the best that each peer reached in any batch size."""
    ours = {figure.name: figure.value for figure in figures}
    parts = (
        ("photos", "640 × 427, bytes submitted to rows with labels", "≥ 1.5"),
        ("large", "12 MP, files referenced to rows with labels", "≥ 12"),
        ("texts", "short texts submitted to rows with labels", "≥ 2.5"),
    )
    found = []
    for part, name, aim in parts:
        best: dict[str, float] = {}
        for run in measured:
            pool = f", {run['processes']} processes" if run["processes"] != 1 else ""
            peer = f"{run['peer']} {run['precision']}{pool}"
            best[peer] = max(best.get(peer, 0.0), float(run[part] or 0))  # type: ignore[arg-type]
        best = {peer: rate for peer, rate in best.items() if rate}
        unit = "texts/s" if part == "texts" else "images/s"
        found += [Figure(f"{part} by {peer}", rate, unit) for peer, rate in best.items()]
        single = [rate for peer, rate in best.items() if "processes" not in peer]
        found.append(
            Figure(f"{part}: ours over the best of them", ours[name] / max(single), "×", aim)
        )
        if max(best.values()) > max(single):
            ratio = ours[name] / max(best.values())
            found.append(Figure(f"{part}: … with its pool of processes", ratio, "×"))
    return found


if __name__ == "__main__":
    sys.exit(main())
