"""The same checkpoint and workload by sentence-transformers and infinity, each at its own best.

Each has an environment of its own, because they need different versions of transformers, and
nothing of theirs is in pgclip's. `peers/*_peer.py` run in there.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from here import DATA, HERE

PEERS = ("sentence-transformers", "infinity")
SCRIPTS = HERE / "peers"
# As in pgclip's own environment; of the rest, peers need other versions.
(TORCH,) = re.findall("^torch==.*$", (HERE.parent / "constraints.txt").read_text(), re.MULTILINE)
TIMEOUT = 3600
# pgclip_workers sets these in the process that imports it; peers get what a user has.
OURS = ("OMP_WAIT_POLICY", "OPENBLAS_NUM_THREADS", "TOKENIZERS_PARALLELISM")


def measure(checkpoint: Path, workload: Path, batch_sizes: Sequence[int]) -> list[dict[str, Any]]:
    """The peers' figures, a run at a time: each peer, precision and batch size."""
    pythons = environments()
    paths = (checkpoint.resolve(), workload.resolve())
    return [
        run(pythons[peer], peer, [*map(str, paths), *options])
        for batch_size in batch_sizes
        for peer, options in runs(batch_size)
    ]


def runs(batch_size: int) -> Iterator[tuple[str, list[str]]]:
    """The settings in which a peer can be at its best."""
    size = ["--batch-size", str(batch_size)]
    for precision in ("float32", "bfloat16"):
        yield "sentence-transformers", [*size, "--precision", precision]
        # Two processes decode at once, but their threads get in each other's way: a gain only where
        # decoding is most of the work.
        pool = ["--parts", "large", "--processes", str(os.cpu_count())]
        yield "sentence-transformers", [*size, "--precision", precision, *pool]
    yield "infinity", size  # its bfloat16 has no effect on a CPU


def run(python: Path, peer: str, arguments: list[str]) -> dict[str, Any]:
    """The result that a peer's script prints."""
    script = SCRIPTS / f"{peer.replace('-', '_')}_peer.py"
    environ = {name: value for name, value in os.environ.items() if name not in OURS}
    log = DATA / "peers" / f"{peer}.log"
    with log.open("w") as errors:
        done = subprocess.run(
            [python, script, *arguments],
            cwd=DATA / "peers",  # infinity leaves a folder where it is started
            env=environ,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            timeout=TIMEOUT,
        )
    if done.returncode:
        raise RuntimeError(f"{peer} {' '.join(arguments)}:\n{log.read_text()}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def environments() -> dict[str, Path]:
    """The Python of each peer's environment; environments are made if they are missing."""
    return {peer: environment(peer) for peer in PEERS}


def environment(peer: str) -> Path:
    """The Python of a peer, with its requirements as they are now."""
    folder = DATA / "peers" / peer
    requirements = SCRIPTS / f"requirements-{peer}.txt"
    wanted = f"{TORCH}\n{requirements.read_text()}"
    python = folder / "bin" / "python"
    installed = folder / "installed.txt"
    if installed.exists() and installed.read_text() == wanted:
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    pip = [python, "-m", "pip", "install", "--quiet", TORCH]
    # torch first: what needs it then takes the build that is there.
    subprocess.run(pip, check=True)
    subprocess.run([*pip, "-r", requirements], check=True)
    installed.write_text(wanted)
    return python
