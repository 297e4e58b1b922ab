"""What memory this machine has, or the container that we are in."""

import os
from pathlib import Path

# Limits of control groups, versions 2 and 1; "max", or a number beyond any machine, is none.
_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")


def usable_memory(
    groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> int:
    """Bytes: the machine's, or the least that a control group of ours may use."""
    everything = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([everything, *_limits(groups, own)])


def _limits(groups: Path, own: Path) -> list[int]:
    """Of the group at the root, as a container sees it, and of ours with those above it."""
    folders = [groups]
    try:
        path = own.read_text().strip().rpartition(":")[2].strip("/")
    except OSError:
        path = ""
    for part in filter(None, path.split("/")):
        folders.append(folders[-1] / part)
    found = []
    for folder in folders:
        for name in _LIMITS:
            try:
                found.append(int((folder / name).read_text()))
            except (OSError, ValueError):
                continue
    return found
