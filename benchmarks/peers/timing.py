"""What the peers share: arguments, the workload, the clock and the line that is printed."""

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

PARTS = ("photos", "large", "texts")
WARM = 4
Vectors = np.ndarray[Any, Any]


class Peer(Protocol):
    """A loaded model, used as the library would have it; vectors come in the items' order."""

    def photos(self, photos: Sequence[bytes]) -> Vectors:
        """Vectors of files that are in memory."""

    def large(self, paths: Sequence[Path]) -> Vectors:
        """Vectors of files on disk."""

    def texts(self, texts: Sequence[str]) -> Vectors:
        """Vectors of texts."""

    def close(self) -> None:
        """Ends what the peer has started."""


def main(package: str, load: Callable[[argparse.Namespace], Peer]) -> None:
    """Measures the parts that were asked for; nothing but the result goes to standard output."""
    arguments = parse()
    with (
        contextlib.redirect_stdout(sys.stderr),
        contextlib.closing(load(arguments)) as peer,
    ):
        figures = measure(peer, arguments.workload, arguments.parts)
    result = {
        "peer": package,
        "version": version(package),
        "precision": arguments.precision,
        "batch_size": arguments.batch_size,
        "processes": arguments.processes,
        **figures,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(result), flush=True)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("workload", type=Path)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--parts", type=parts, default=PARTS, help="names with commas between them")
    parser.add_argument("--processes", type=int, default=1)
    return parser.parse_args()


def parts(listed: str) -> tuple[str, ...]:
    """The parts of a list with commas."""
    names = tuple(listed.split(","))
    if unknown := set(names) - set(PARTS):
        raise argparse.ArgumentTypeError(f"no such part: {', '.join(sorted(unknown))}")
    return names


def measure(peer: Peer, workload: Path, names: Sequence[str]) -> dict[str, Any]:
    """Items per second of each part, null for those left out, and numbers of a vector."""
    figures: dict[str, Any] = {**dict.fromkeys(PARTS), "sample_photo": None}
    for name in names:
        figures[name], vectors = rate(getattr(peer, name), items(workload, name))
        if name == "photos":
            figures["sample_photo"] = [round(float(number), 6) for number in vectors[0][:4]]
    return figures


def items(workload: Path, name: str) -> list[Any]:
    """What a part is given: bytes, paths or strings."""
    if name == "texts":
        return list(json.loads((workload / "texts.json").read_text()))
    paths = sorted((workload / name).glob("*.jpg"))
    return [path.read_bytes() for path in paths] if name == "photos" else list(paths)


def rate(encode: Callable[[Any], Vectors], given: list[Any]) -> tuple[float, Vectors]:
    """Items per second, and the vectors, which have to be some."""
    encode(given[:WARM])
    start = time.perf_counter()
    vectors = encode(given)
    took = time.perf_counter() - start
    assert len(vectors) == len(given) > 0
    norms = np.linalg.norm(vectors, axis=1)
    assert np.allclose(norms, 1, atol=0.01), norms  # as near as bfloat16 comes
    return len(given) / took, vectors
