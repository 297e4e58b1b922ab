"""Locks between processes, which the kernel releases when their last holder dies.

A lock belongs to the open file, so it is shared with whoever inherits the descriptor. That is used
on purpose once: a server inherits the descriptor of its own lock, which makes "the lock is taken"
mean "a process of this server lives". A process id can be reused by a stranger, a lock cannot.
"""

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

_POLL_SECONDS = 0.02


class FileLock:
    """An advisory lock on the file at `path`, which is created when missing and never removed."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def shared(self) -> None:
        """Take the lock together with others; waits while somebody holds it alone."""
        fcntl.flock(self.fd, fcntl.LOCK_SH)

    def exclusive(self, seconds: float = 0.0) -> bool:
        """Take the lock alone, waiting at most `seconds`; False when others still hold it."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    return False
            time.sleep(_POLL_SECONDS)

    def close(self) -> None:
        """Close without unlocking: whoever inherited the descriptor goes on holding the lock."""
        os.close(self.fd)

    def release(self) -> None:
        """Unlock and close; forked children that share the open file lose the lock as well."""
        fcntl.flock(self.fd, fcntl.LOCK_UN)
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()
