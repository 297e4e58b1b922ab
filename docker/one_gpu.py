"""Runs a command on one GPU: `one_gpu.py pgclip worker`.

Docker shows all replicas of a service the same GPUs, and each would take the first. So replicas
take places, files that they lock in a folder they share: with four GPUs, places 0 and 4 are on the
first. The lock ends with the process, however that ends. With one GPU or none, or if PGCLIP_DEVICE
or CUDA_VISIBLE_DEVICES says which, nothing is done.
"""

import fcntl
import itertools
import os
import re
import sys
from pathlib import Path


def take_place(folder: Path) -> int:
    """The first place that no living process has. It is this process's until it ends."""
    folder.mkdir(exist_ok=True)
    for place in itertools.count():
        lock = os.open(folder / str(place), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        os.set_inheritable(lock, True)
        return place
    raise AssertionError("places don't end")


def main() -> None:
    """Chooses, then becomes the command."""
    gpus = len([name for name in os.listdir("/dev") if re.fullmatch(r"nvidia\d+", name)])
    undecided = os.environ.get("PGCLIP_DEVICE", "") in ("", "auto", "cuda")
    if gpus > 1 and undecided and "CUDA_VISIBLE_DEVICES" not in os.environ:
        place = take_place(Path(os.environ["HF_HOME"]) / ".places")
        os.environ["CUDA_VISIBLE_DEVICES"] = str(place % gpus)
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
