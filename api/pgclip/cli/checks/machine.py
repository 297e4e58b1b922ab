"""What a worker on this machine would need: packages, folders, libraries for storage."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator

from pgclip.cli.checks.finding import Finding
from pgclip.settings import Settings, masked

_STORAGE = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}
# Says which device torch has; in a process of its own, because the client loads no torch.
_DEVICE = """
import torch
name = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU, the CPU encodes"
print(f"torch {torch.__version__}: {name}")
"""


def worker_parts(settings: Settings) -> Iterator[Finding]:
    """Whether a worker could run here."""
    missing = [
        name
        for name in ("torch", "transformers", "PIL", "pebble")
        if importlib.util.find_spec(name) is None
    ]
    if missing:
        yield Finding(
            "worker",
            "warning",
            f"can't run here: {', '.join(missing)} is not installed",
            "Only on machines that encode: pip install 'pgclip[worker]'",
        )
        return
    probe = subprocess.run(
        ["timeout", "60", sys.executable, "-c", _DEVICE], capture_output=True, text=True
    )
    if probe.returncode:
        last = probe.stderr.strip().splitlines()[-1:] or [f"status {probe.returncode}"]
        advice = "Install torch again, for this machine: https://pytorch.org/get-started"
        yield Finding("worker", "trouble", f"torch does not load: {''.join(last)}", advice)
    else:
        yield Finding("worker", "ok", probe.stdout.strip())


def places(settings: Settings) -> Iterator[Finding]:
    """Folders and URLs that workers may read."""
    for root in settings.roots:
        if not root.is_dir():
            advice = "Create it, mount it, or take it out of PGCLIP_ROOTS"
            yield Finding("root", "trouble", f"{root} is no folder", advice)
        elif not os.access(root, os.R_OK | os.X_OK):
            yield Finding("root", "trouble", f"{root} can't be read", "Change its permissions")
        else:
            yield Finding("root", "ok", f"{root} can be read")
    for prefix in settings.urls:
        scheme = prefix.split(":")[0]
        needed = _STORAGE.get(scheme)
        if needed and importlib.util.find_spec(needed) is None:
            advice = f"pip install {needed}"
            yield Finding("URLs", "trouble", f"{masked(prefix)} needs {needed}", advice)
        else:
            yield Finding("URLs", "ok", f"{masked(prefix)} may be fetched")
