"""References: the bytes behind a source URL. Runs in decoding processes.

A file:// URL is read below the folders that the operator allowed, and nowhere else. What a path
really is decides, not how it is spelled: links and ".." can't leave the roots. Other URLs are
fetched (remote.py), if the operator allowed that.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from pgclip.settings import FORMATS, masked
from pgclip_workers.pictures.refused import Refused


@dataclass(frozen=True, slots=True)
class Limits:
    """What a decoding process accepts: bytes of a file, pixels to decode of it, where it may read,
    formats.
    """

    max_bytes: int
    max_pixels: int
    roots: tuple[Path, ...] = ()
    urls: tuple[str, ...] = ()
    private_urls: bool = False
    formats: tuple[str, ...] = tuple(FORMATS)[:7]


def read_source(source: str, limits: Limits) -> bytes:
    """The bytes behind a URL. Raises Refused."""
    if source.split(":", 1)[0].lower() != "file":
        from pgclip_workers.pictures.remote import read_url

        return read_url(source, limits.urls, limits.private_urls, limits.max_bytes)
    parts = urlsplit(source)
    if parts.netloc not in ("", "localhost"):
        raise Refused("unknown_scheme", f"{masked(source)}: a file:// URL has three slashes")
    try:
        # Of names that are not UTF-8 the bytes count.
        path = _allowed(os.fsdecode(unquote_to_bytes(parts.path)), source, limits.roots)
        return _read(path, source, limits.max_bytes)
    except (OSError, ValueError) as error:
        reason = "missing_file" if isinstance(error, FileNotFoundError) else "unreadable_file"
        message = getattr(error, "strerror", None) or str(error)
        raise Refused(reason, f"{masked(source)}: {message}") from error


def _allowed(path: str, source: str, roots: tuple[Path, ...]) -> str:
    real = os.path.realpath(path)
    for root in roots:
        root_path = os.path.realpath(root)
        if os.path.commonpath([root_path, real]) == root_path:
            return real
    raise Refused(
        "forbidden_path",
        f"{masked(source)} is not below a folder that this worker may read; the operator allows "
        "folders with PGCLIP_ROOTS",
    )


def _read(path: str, source: str, max_bytes: int) -> bytes:
    # The path has no links left: one that appears now is not followed. Opening must not block,
    # should it be a pipe.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Refused("unreadable_file", f"{masked(source)} is not a regular file")
        if status.st_size > max_bytes:
            raise Refused(
                "too_large",
                f"{masked(source)} has {status.st_size} bytes; the limit is {max_bytes} "
                "(PGCLIP_MAX_IMAGE_BYTES)",
            )
        return file.read(max_bytes + 1)[:max_bytes]
