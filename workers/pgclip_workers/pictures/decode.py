"""A picture's bytes into the pixels that the model gets. Runs in decoding processes: no torch.

The result equals transformers' image processor on the same decoded picture, except that a JPEG
may be decoded at a reduced size of at least twice the target (fast_decode), that EXIF
orientation is applied and that transparent pixels become white.
"""

import functools
import hashlib
import io
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from pgclip_workers.pictures.arena import Address, Borrowed, Span
from pgclip_workers.pictures.preprocessing import Preprocessing
from pgclip_workers.pictures.refused import Refused
from pgclip_workers.pictures.sources import Limits, read_source

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

# Formats are listed, because decoders of rare ones have crashed and hidden decompression bombs.
# With pgclip[heic], HEIF is one more.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "BMP", "TIFF")

# A JPEG, alone or the first of several. Others answer a request for less with another picture:
# HEIF with the thumbnail that the file carries.
_DRAFTED = ("JPEG", "MPO")
_ORIENTATION = 0x0112  # EXIF
_HEIC_BRANDS = tuple(b"ftyp" + brand for brand in (b"heic", b"heix", b"heim", b"heis", b"mif1"))


class Picture(NamedTuple):
    """A picture to decode: its bytes, or the source that has them."""

    data: bytes | None
    source: str | None


@dataclass(frozen=True, slots=True)
class Pixels:
    """A decoded picture: SHA-256 of its bytes, and uint8 RGB as height × width × 3."""

    hash: bytes
    array: "np.ndarray[Any, np.dtype[np.uint8]]"


class Order(NamedTuple):
    """A picture as a decoding process gets it: bytes and pixels are in an arena."""

    data: Span | None
    source: str | None
    pixels: Span


class Decoded(NamedTuple):
    """What a decoding process answers: the hash of the bytes, and the shape of the pixels."""

    hash: bytes
    shape: tuple[int, ...]


def decode_orders(
    address: Address, orders: Sequence[Order], preprocessing: Preprocessing, limits: Limits
) -> list[Decoded | Refused]:
    """Decodes pictures of an arena into it."""
    answers: list[Decoded | Refused] = []
    with Borrowed(address) as arena:
        for order in orders:
            data = None if order.data is None else arena.read(order.data)
            decoded = decode(data, order.source, preprocessing, limits)
            if isinstance(decoded, Pixels):
                arena.write(order.pixels, decoded.array)
                answers.append(Decoded(decoded.hash, decoded.array.shape))
            else:
                answers.append(decoded)
    return answers


def decode(
    data: bytes | None, source: str | None, preprocessing: Preprocessing, limits: Limits
) -> Pixels | Refused:
    """Reads and decodes one picture. Returns Refused rather than raising it: it is an answer."""
    try:
        if data is None:
            data = read_source(source or "", limits)
        return Pixels(hashlib.sha256(data).digest(), _pixels(data, preprocessing, limits))
    except Refused as refused:
        # Anew: by its traceback, the one that was raised keeps the picture in memory.
        return Refused(refused.reason, refused.message)
    except MemoryError:
        return Refused("decoder_memory", "decoding it takes more memory than PGCLIP_DECODER_MEMORY")


def _pixels(
    data: bytes, preprocessing: Preprocessing, limits: Limits
) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    formats = _formats()
    if not data:
        raise Refused("empty", "the image is empty")
    if len(data) > limits.max_bytes:
        raise Refused(
            "too_large",
            f"the image has {len(data)} bytes; the limit is {limits.max_bytes} "
            "(PGCLIP_MAX_IMAGE_BYTES)",
        )
    Image.MAX_IMAGE_PIXELS = None  # our own limit is checked before any pixel is decoded
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=formats)
        if image.width * image.height > limits.max_pixels:
            raise Refused(
                "too_large",
                f"the image has {image.width} × {image.height} pixels; the limit is "
                f"{limits.max_pixels} (PGCLIP_MAX_IMAGE_PIXELS)",
            )
        if preprocessing.fast_decode and image.format in _DRAFTED:
            _draft(image, preprocessing)
        image.load()
        _lay_upright(image)
        image = _rgb(image)
        return np.asarray(_fit(image, preprocessing))
    except (Refused, MemoryError):
        raise
    except UnidentifiedImageError:
        raise _unknown(data, formats) from None
    except Exception as error:  # Pillow's decoders report broken files by errors of many kinds
        raise Refused("unreadable_image", f"the image can't be decoded: {error}") from error


@functools.cache
def _formats() -> tuple[str, ...]:
    """Imports the plugins: Pillow opens a format that is asked for by name only after that."""
    from PIL import (  # noqa: F401
        AvifImagePlugin,
        BmpImagePlugin,
        GifImagePlugin,
        JpegImagePlugin,
        PngImagePlugin,
        TiffImagePlugin,
        WebPImagePlugin,
    )

    try:
        import pillow_heif
    except ImportError:
        return FORMATS
    pillow_heif.register_heif_opener()
    return (*FORMATS, "HEIF")


def _unknown(data: bytes, formats: tuple[str, ...]) -> Refused:
    message = f"this is no picture in one of the formats {', '.join(formats)}"
    if data[4:12] in _HEIC_BRANDS and "HEIF" not in formats:
        message = "this is HEIC, which workers read where pgclip[heic] is installed"
    return Refused("not_an_image", message)


def _draft(image: "Image", preprocessing: Preprocessing) -> None:
    """Lets the JPEG decoder shrink by 2, 4 or 8 while at least twice the target remains."""
    height, width = image.height, image.width
    if _orientation(image) > 4:  # it lies on its side
        width, height = preprocessing.resized(width, height)
    else:
        height, width = preprocessing.resized(height, width)
    image.draft(None, (2 * width, 2 * height))


def _orientation(image: "Image") -> int:
    """By EXIF, from 1 to 8; 1, upright, where EXIF is broken or says something else."""
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except MemoryError:
        raise
    except Exception:  # as many kinds as there are ways to break it
        return 1
    return orientation if orientation in range(1, 9) else 1


def _lay_upright(image: "Image") -> None:
    from PIL import ImageOps

    if _orientation(image) > 1:
        with suppress(struct.error, TypeError, ValueError, OverflowError):
            # The pixels come first; then EXIF is written anew, which fails if more of it is broken.
            ImageOps.exif_transpose(image, in_place=True)


def _rgb(image: "Image") -> "Image":
    from PIL import Image

    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        import numpy as np

        values = np.asarray(image, np.float64)
        # 16 bits to 8; plain convert() would clip everything above 255 to white.
        scale = 257.0 if values.max(initial=0) > 255 else 1.0
        image = Image.fromarray((values / scale).clip(0, 255).round().astype(np.uint8), "L")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _fit(image: "Image", preprocessing: Preprocessing) -> "Image":
    from PIL import Image

    height, width = preprocessing.resized(image.height, image.width)
    if height * width > 64 * preprocessing.most_pixels:
        raise Refused(
            "unreadable_image",
            f"the image is {image.width} × {image.height}: too narrow to be looked at",
        )
    image = image.resize((width, height), Image.Resampling(preprocessing.resample))
    if preprocessing.max_patches:
        return image
    crop_height, crop_width = preprocessing.crop
    # Where the crop is larger than the picture, what is beyond is black.
    top = preprocessing.margin(height - crop_height)
    left = preprocessing.margin(width - crop_width)
    return image.crop((left, top, left + crop_width, top + crop_height))
