"""Memory that the worker and its decoding processes share, for the pictures of one batch.

It has no name that could outlive its owner, and is not in /dev/shm, which containers keep small.
Through it a picture costs the worker a third of what it costs through a pipe.
"""

import mmap
import os
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np

    Bytes = np.ndarray[Any, np.dtype[np.uint8]]


class Address(NamedTuple):
    """Where another process finds an arena. The path may be another's later, the inode is not."""

    path: str
    inode: int


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of an arena: offset and length in bytes."""

    offset: int
    length: int


class Arena:
    """Owned by the worker: bytes are put in first, then space is reserved for what comes of them.

    Arrays made of it keep it in memory. `seal` ends the sharing, and gives back what was put in.
    """

    def __init__(self, size: int) -> None:
        # Anonymous on Linux, where other processes find it below /proc; elsewhere a file.
        if hasattr(os, "memfd_create"):
            self._file: Any = open(os.memfd_create("pgclip"), "r+b")  # noqa: SIM115
            path = f"/proc/{os.getpid()}/fd/{self._file.fileno()}"
        else:
            self._file = tempfile.NamedTemporaryFile(prefix="pgclip-")  # noqa: SIM115
            path = self._file.name
        self.address = Address(path, os.fstat(self._file.fileno()).st_ino)
        self._file.truncate(max(1, size))
        self._map = mmap.mmap(self._file.fileno(), max(1, size))
        self._put = self._used = 0

    def put(self, data: bytes) -> Span:
        """Copies bytes into it."""
        span = self.reserve(len(data))
        self._map[span.offset : span.offset + span.length] = data
        self._put = self._used
        return span

    def reserve(self, length: int) -> Span:
        """A stretch for others to write to."""
        span = Span(self._used, length)
        self._used += length
        return span

    def array(self, span: Span, shape: tuple[int, ...]) -> "Bytes":
        """What is at a span's beginning, as uint8 of this shape, without a copy."""
        import numpy as np

        count = int(np.prod(shape))
        return np.frombuffer(self._map, np.uint8, count, span.offset).reshape(shape)

    def seal(self) -> None:
        """No process can open it any more."""
        if self._put >= mmap.PAGESIZE and hasattr(mmap, "MADV_REMOVE"):
            self._map.madvise(mmap.MADV_REMOVE, 0, self._put // mmap.PAGESIZE * mmap.PAGESIZE)
        self._file.close()


class Borrowed:
    """An arena in a decoding process, to be used in a `with` statement.

    Read and written as a file: mapped, all of a batch would count against the process's memory.
    Raises FileNotFoundError if the arena was sealed.
    """

    def __init__(self, address: Address) -> None:
        self._file = os.open(address.path, os.O_RDWR)
        if os.fstat(self._file).st_ino != address.inode:
            os.close(self._file)
            raise FileNotFoundError(f"{address.path} is another arena by now")

    def __enter__(self) -> "Borrowed":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def read(self, span: Span) -> bytes:
        """A copy of what is there."""
        return os.pread(self._file, span.length, span.offset)

    def write(self, span: Span, values: "Bytes") -> None:
        """Writes an array to the span's beginning. Raises ValueError if it is too long."""
        if values.nbytes > span.length:
            raise ValueError(f"{values.nbytes} bytes for a span of {span.length}")
        os.pwrite(self._file, values.tobytes(), span.offset)
