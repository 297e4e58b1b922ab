"""What `pgclip index` says of a file by itself, as fields of the item's metadata."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgclip.errors import InvalidItem

if TYPE_CHECKING:
    from PIL.Image import Image

_MAKE, _MODEL, _EXIF, _TAKEN = 0x010F, 0x0110, 0x8769, 0x9003  # EXIF


def _modified(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")


def _taken(image: "Image") -> str | None:
    """As EXIF has it, "2024:05:01 12:30:00" in the camera's own time, which has no zone."""
    text = str(image.getexif().get_ifd(_EXIF).get(_TAKEN, "")).strip("\0 ")
    try:
        return datetime.strptime(text, "%Y:%m:%d %H:%M:%S").isoformat()
    except ValueError:
        return None


def _camera(image: "Image") -> str | None:
    make, model = (str(image.getexif().get(tag, "")).strip("\0 ") for tag in (_MAKE, _MODEL))
    return (model if model.startswith(make) else f"{make} {model}").strip() or None


# Of the file itself, and of a picture's header, which Pillow reads.
_OF_FILES: dict[str, Callable[[Path], Any]] = {
    "name": lambda path: _text(path.name),
    "folder": lambda path: _text(path.parent.name),
    "size": lambda path: path.stat().st_size,
    "modified": _modified,
}
_OF_PICTURES: dict[str, Callable[["Image"], Any]] = {
    "width": lambda image: image.width,
    "height": lambda image: image.height,
    "taken": _taken,
    "camera": _camera,
}
FIELDS = (*_OF_FILES, *_OF_PICTURES)


def chosen_from(text: str) -> tuple[str, ...]:
    """Names with commas. Raises InvalidItem for an unknown one, or if Pillow is lacking for it."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if unknown := set(names) - set(FIELDS):
        raise InvalidItem(f"{', '.join(sorted(unknown))}: fields are {', '.join(FIELDS)}")
    if set(names) & set(_OF_PICTURES):
        try:
            import PIL.Image  # noqa: F401
        except ImportError as error:
            raise InvalidItem("pip install pillow: it reads pictures' headers") from error
    return names


def of_file(path: Path, names: tuple[str, ...], is_text: bool) -> dict[str, Any]:
    """The fields, but those that the file does not have. Raises OSError."""
    found = {name: _OF_FILES[name](path) for name in names if name in _OF_FILES}
    wanted = [name for name in names if name in _OF_PICTURES]
    if wanted and not is_text:
        found |= _of_picture(path, wanted)
    return {name: value for name, value in found.items() if value is not None}


def _of_picture(path: Path, names: list[str]) -> dict[str, Any]:
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # only headers are read
    try:
        with Image.open(path) as image:
            return {name: _OF_PICTURES[name](image) for name in names}
    except OSError:  # the worker will say what is wrong with it
        return {}
    except Exception:  # broken EXIF, in as many ways as there are
        return {}


def _text(name: str) -> str:
    """What is not UTF-8 is seen as such."""
    return os.fsencode(name).decode(errors="replace")
