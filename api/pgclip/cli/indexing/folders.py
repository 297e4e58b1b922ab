"""Folders: which of their files are pictures or texts, and what is left out."""

import os
import stat
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from pgclip.cli.indexing.entries import Entry, Passed, Selection
from pgclip.items import Kind
from pgclip.keys import file_key

PICTURES = {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".avif", ".bmp", ".tif", ".tiff",
    ".heic", ".heif",
}  # fmt: skip
# Those of PGCLIP_FORMATS that are not always there.
MORE_PICTURES = {
    "JPEG2000": {".jp2", ".j2k", ".jpx"}, "PPM": {".ppm", ".pgm", ".pbm", ".pnm"},
    "TGA": {".tga"}, "PSD": {".psd"}, "ICO": {".ico"},
}  # fmt: skip
TEXTS = {".txt", ".md"}
_HEAD = 32  # bytes that tell
_SIGNATURES = (
    b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*",
)  # fmt: skip
_BRANDS = {b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1"}


def entries(folder: Path, selection: Selection, passed: Passed) -> Iterator[Entry]:
    """Pictures and texts below a folder, in a stable order, without hidden ones."""
    folder = Path(os.path.abspath(folder))
    seen: set[tuple[int, int]] = set()
    for parent, folders, names in os.walk(
        folder,
        onerror=lambda error: passed.by(error.filename, f"can't be read: {error.strerror}"),
        followlinks=selection.follow,
    ):
        here = Path(parent)
        if _was_there(here, seen):  # by another link
            folders[:] = []
            continue
        # Links last: what is there by itself goes by its own path.
        folders.sort(key=lambda name: ((here / name).is_symlink(), name))
        folders[:] = [
            name for name in folders if _is_entered(here / name, folder, selection, passed)
        ]
        for name in sorted(names):
            path = here / name
            if not name.startswith(".") and not _is_excluded(path, folder, selection, passed):
                kind = kind_of(path, selection, passed)
                if kind:
                    yield entry(path, kind, folder)


def entry(path: Path, kind: Kind, folder: Path) -> Entry:
    """A file as something to index."""
    path = Path(os.path.abspath(path))
    return Entry(file_key(path), path, None, None, {}, is_text=kind == "text", found_in=folder)


def kind_of(path: Path, selection: Selection, passed: Passed) -> Kind | None:
    """By its ending, and where that does not say by its content; None of what is passed over."""
    ending = path.suffix.lower()
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            passed.over("no files")
            return None
        if ending in TEXTS:
            return "text"
        if is_picture_by_name(path.name, selection):
            return "image"
        with path.open("rb") as file:
            if is_picture(file.read(_HEAD)):
                return "image"
    except OSError as error:
        broken = path.is_symlink() and isinstance(error, FileNotFoundError)
        passed.by(path, "a broken link" if broken else f"can't be read: {error.strerror}")
        return None
    passed.over(ending or "no ending")
    return None


def is_picture_by_name(name: str, selection: Selection) -> bool:
    """Whether its ending says so."""
    more = (MORE_PICTURES.get(format, set()) for format in selection.formats)
    return os.path.splitext(name)[1].lower() in PICTURES.union(*more)


def is_picture(head: bytes) -> bool:
    """Whether a file that begins so is a picture of a format that workers read by default."""
    return (
        head.startswith(_SIGNATURES)
        or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
        or (head[4:8] == b"ftyp" and head[8:12] in _BRANDS)
        or (head[:2] == b"BM" and head[6:10] == bytes(4))  # reserved
    )  # fmt: skip


def _is_entered(path: Path, root: Path, selection: Selection, passed: Passed) -> bool:
    if path.name.startswith(".") or _is_excluded(path, root, selection, passed):
        return False
    if path.is_symlink() and not selection.follow:
        passed.over("linked folders (--follow)")
        return False
    return True


def _is_excluded(path: Path, root: Path, selection: Selection, passed: Passed) -> bool:
    below = os.path.relpath(path, root)
    if any(fnmatch(path.name, each) or fnmatch(below, each) for each in selection.exclude):
        passed.over("excluded")
        return True
    return False


def _was_there(folder: Path, seen: set[tuple[int, int]]) -> bool:
    try:
        status = folder.stat()
    except OSError:
        return False
    place = (status.st_dev, status.st_ino)
    if place in seen:
        return True
    seen.add(place)
    return False
