"""Pictures that a caller holds, as bytes."""

from io import BytesIO
from pathlib import Path
from typing import IO, Any, Protocol

from pgclip.errors import InvalidItem

# No picture may have more inline; a file object that has is not read to its end.
_INLINE_BYTES = 64 * 2**20
# Modes of Pillow that a PNG holds; a TIFF holds those and most others.
_PNG_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16"}
_TIFF_MODES = {"CMYK", "YCbCr", "LAB", "I", "F", "I;16B"}


class Pillow(Protocol):
    """An image of Pillow's, which is known by what it can do: a client need not have Pillow."""

    @property
    def mode(self) -> str:
        """Of the pixels, such as RGB."""

    def save(self, fp: Any, format: str | None = None, **params: Any) -> None:
        """Writes it in a format of files."""

    def convert(self, mode: str) -> Any:
        """An image of another mode."""


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
        except OSError as error:
            raise InvalidItem(f"query image {image}: {error.strerror}") from error
    return picture_bytes(image, "query image")


def _read(file: IO[bytes], what: str) -> bytes:
    try:
        data = file.read(_INLINE_BYTES + 1)
        if not data and file.seekable() and file.tell() > 0:
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
        if image.mode not in _PNG_MODES | _TIFF_MODES:
            image = image.convert("RGBA" if image.mode == "RGBa" else "RGB")
        exif = image.getexif()  # it says which side is up
        format, how = ("PNG", {"compress_level": 1}) if image.mode in _PNG_MODES else ("TIFF", {})
        image.save(buffer, format, **how, **({"exif": exif} if exif else {}))
    except Exception as error:  # of a decoder, for what is read only now: there is no list of them
        raise InvalidItem(f"{what}: Pillow can't encode it: {error}") from error
    return buffer.getvalue()
