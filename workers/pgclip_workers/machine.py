"""What this process may use of the machine. Standard library only: it runs before torch."""

import math
import os
from pathlib import Path

_QUOTAS = (  # what a container may use: quota and period, of cgroups version 2 and 1
    ("/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/cpu.max"),
    ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"),
)


def processors() -> int:
    """Processors by affinity and by the container's quota, rounded up; at least 1."""
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    else:
        allowed = os.cpu_count() or 1
    return max(1, min(allowed, _quota() or allowed))


def decoding_processes(device: str) -> int:
    """How many a worker starts by default.

    One for each processor that there is, beside a model on the processor too: fewer get too small a
    share of it to keep up with large pictures. For a GPU its share of them, but for two that feed
    it.
    """
    gpus = len(list(Path("/dev").glob("nvidia[0-9]*")))
    if device.startswith("cuda") or (device == "auto" and gpus):
        return max(1, processors() // max(1, gpus) - 2)
    return processors()


def _quota() -> int | None:
    for quota_file, period_file in _QUOTAS:
        try:
            quota = Path(quota_file).read_text().split()[0]
            period = Path(period_file).read_text().split()[-1]
        except (OSError, IndexError):
            continue
        if quota not in ("max", "-1"):
            return math.ceil(int(quota) / int(period))
    return None
