"""Pictures that a caller holds, as bytes."""

from io import BytesIO
from pathlib import Path
from typing import IO, Any, Protocol

from pgclip.errors import InvalidItem

# No picture may have more inline; a file object that has is not read to its end.
_INLINE_BYTES = 64 * 2**20
# Modes of Pillow that a PNG holds; a TIFF holds those and most others.
_PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}
_TIFF_MODES = {"CMYK", "YCbCr", "LAB", "I", "F", "I;16B"}
_CONVERTED = {"PA": "RGBA", "RGBa": "RGBA", "La": "LA"}  # others to RGB
_ORIENTATION = 0x0112


class Pillow(Protocol):
    """An image of Pillow's, which is known by what it can do: a client need not have Pillow."""

    @property
    def mode(self) -> str:
        """Of the pixels, such as RGB."""

    def save(self, fp: Any, format: str | None = None, **params: Any) -> None:
        """Writes it in a format of files."""

    def convert(self, mode: str) -> Any:
        """An image of another mode."""

    def load(self) -> Any:
        """Reads the pixels, if that has not been done."""

    def getexif(self) -> Any:
        """What the camera said of it."""


def picture_bytes(image: Any, what: str) -> bytes:
    """A picture inline, from bytes, a binary file or an image of Pillow's. Raises InvalidItem.

    Of a file what is left to read; if nothing is, all of it, as when it has just been written.
    Pixels of Pillow are kept as they are (PNG, or TIFF for what that does not hold).
    """
    if callable(getattr(image, "save", None)) and hasattr(image, "mode"):
        image = _encoded(image, what)
    elif callable(getattr(image, "read", None)):
        image = _read(image, what)
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    raise InvalidItem(
        f"{what}: an image is bytes, a binary file, a Pillow image, a pathlib.Path or a URL, not "
        f"{type(image).__name__}"
    )


def query_image(image: Any) -> bytes:
    """A picture to search with, also a file that this process reads. Raises InvalidItem."""
    if isinstance(image, str):
        raise InvalidItem(
            f"query image: {image!r:.200} is a str. Pass a pathlib.Path of it for a file that this "
            "process reads, or the picture's bytes"
        )
    if isinstance(image, Path):
        try:
            return image.read_bytes()
        except (OSError, ValueError) as error:  # a NUL in it
            why = getattr(error, "strerror", None) or error
            raise InvalidItem(f"query image {image!s:.200}: {why}") from error
    return picture_bytes(image, "query image")


def _read(file: IO[bytes], what: str) -> bytes:
    try:
        data = file.read(_INLINE_BYTES + 1)
        seekable = getattr(file, "seekable", None)
        if not data and seekable is not None and seekable() and file.tell() > 0:
            file.seek(0)
            data = file.read(_INLINE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise InvalidItem(f"{what}: the file can't be read: {error}") from error
    if not isinstance(data, bytes):
        raise InvalidItem(f"{what}: the file must be opened for binary reading")
    return data


def _encoded(image: Any, what: str) -> bytes:
    buffer = BytesIO()
    try:
        image.load()  # by which a TIFF is turned, and says so no more
        whole = image.getexif()
        exif = type(whole)()  # which side is up, and no more: the rest is about another file
        if _ORIENTATION in whole:
            exif[_ORIENTATION] = whole[_ORIENTATION]
        if image.mode not in _PNG_MODES | _TIFF_MODES:
            image = image.convert(_CONVERTED.get(image.mode, "RGB"))
        format, how = ("PNG", {"compress_level": 1}) if image.mode in _PNG_MODES else ("TIFF", {})
        image.save(buffer, format, **how, exif=exif)
    except Exception as error:  # of a decoder, for what is read only now: there is no list of them
        raise InvalidItem(f"{what}: Pillow can't encode it: {error}") from error
    return buffer.getvalue()
