"""A picture's bytes into the pixels that the model gets. Runs in decoding processes: no torch.

The result equals transformers' image processor on the same decoded picture, except that with
fast_decode a JPEG may be decoded at a reduced size of at least twice the target, and a picture made
smaller by vector instructions; that EXIF orientation is applied and that transparent pixels become
white.
"""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from pgclip_workers.pictures.arena import Address, Borrowed, Span
from pgclip_workers.pictures.formats import is_heic, registered, without_extras
from pgclip_workers.pictures.modes import rgb
from pgclip_workers.pictures.preprocessing import Preprocessing
from pgclip_workers.pictures.refused import Refused
from pgclip_workers.pictures.shrink import shrink
from pgclip_workers.pictures.sources import Limits, read_source
from pgclip_workers.pictures.thumbnails import Thumbnail, thumbnail_of

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

# A JPEG, alone or the first of several. Others answer a request for less with another picture:
# HEIF with the thumbnail that the file carries.
_DRAFTED = ("JPEG", "MPO")
_ORIENTATION = 0x0112  # EXIF
# Resized pictures that have so many times the pixels of the crop are cropped first.
_LONG = 64


class Picture(NamedTuple):
    """A picture to decode: its bytes, or the source that has them.

    `thumbnail`: the longest side of one to be made besides; 0: none.
    """

    data: bytes | None
    source: str | None
    thumbnail: int = 0


@dataclass(frozen=True, slots=True)
class Pixels:
    """A decoded picture: SHA-256 of its bytes, and uint8 RGB as height × width × 3.

    With a thumbnail if one was asked for and could be made.
    """

    hash: bytes
    array: "np.ndarray[Any, np.dtype[np.uint8]]"
    thumbnail: Thumbnail | None = None


class Order(NamedTuple):
    """A picture as a decoding process gets it: bytes and pixels are in an arena."""

    data: Span | None
    source: str | None
    pixels: Span
    thumbnail: int


class Decoded(NamedTuple):
    """What a decoding process answers: the hash of the bytes, the shape of the pixels, and the
    thumbnail if one was asked for and could be made."""

    hash: bytes
    shape: tuple[int, ...]
    thumbnail: Thumbnail | None


def decode_orders(
    address: Address, orders: Sequence[Order], preprocessing: Preprocessing, limits: Limits
) -> list[Decoded | Refused]:
    """Decodes pictures of an arena into it."""
    answers: list[Decoded | Refused] = []
    with Borrowed(address) as arena:
        for order in orders:
            data = None if order.data is None else arena.read(order.data)
            decoded = decode(data, order.source, preprocessing, limits, order.thumbnail)
            if isinstance(decoded, Pixels):
                arena.write(order.pixels, decoded.array)
                answers.append(Decoded(decoded.hash, decoded.array.shape, decoded.thumbnail))
            else:
                answers.append(decoded)
    return answers


def decode(
    data: bytes | None,
    source: str | None,
    preprocessing: Preprocessing,
    limits: Limits,
    thumbnail: int = 0,
) -> Pixels | Refused:
    """Reads and decodes one picture. Returns Refused rather than raising it: it is an answer."""
    try:
        if data is None:
            data = read_source(source or "", limits)
        array, small = _pixels(data, preprocessing, limits, thumbnail)
        return Pixels(hashlib.sha256(data).digest(), array, small)
    except Refused as refused:
        # Anew: by its traceback, the one that was raised keeps the picture in memory.
        return Refused(refused.reason, refused.message, refused.retry_after)
    except MemoryError:
        return Refused("decoder_memory", "decoding it takes more memory than PGCLIP_DECODER_MEMORY")


def _pixels(
    data: bytes, preprocessing: Preprocessing, limits: Limits, thumbnail: int
) -> "tuple[np.ndarray[Any, np.dtype[np.uint8]], Thumbnail | None]":
    import numpy as np
    from PIL import Image, UnidentifiedImageError

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
        image: Image.Image = Image.open(
            io.BytesIO(without_extras(data)), formats=registered(limits.formats)
        )
        whole = image.size
        if preprocessing.fast_decode and image.format in _DRAFTED:
            _draft(image, preprocessing)
        _refuse_large(image, whole, limits)
        image.load()
        image = _upright(image)
        resized, fitted = _fit(image, preprocessing)
        return np.asarray(fitted), _small(image, resized, thumbnail)
    except (Refused, MemoryError):
        raise
    except UnidentifiedImageError:
        raise _unknown(data, limits) from None
    except Exception as error:  # Pillow's decoders report broken files by errors of many kinds
        raise Refused("unreadable_image", f"the image can't be decoded: {error}") from error


def _small(image: "Image", resized: "Image | None", side: int) -> Thumbnail | None:
    """A picture that the model gets must not fail for a small one that nobody waits for."""
    if not side:
        return None
    try:
        return thumbnail_of(image, resized, side)
    except Exception:
        return None


def _unknown(data: bytes, limits: Limits) -> Refused:
    formats = registered(limits.formats)
    message = f"this is no picture in one of the formats {', '.join(formats)}"
    if is_heic(data) and "HEIF" not in formats:
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


def _refuse_large(image: "Image", whole: tuple[int, int], limits: Limits) -> None:
    """By what decoding takes: the pixels that it makes, four bytes each.

    Of a progressive JPEG all coefficients are kept until its last scan, two bytes each, however
    small it is to become; components that are sampled less often have fewer.
    """
    pixels = image.width * image.height
    if image.info.get("progressive"):
        samples = [horizontal * vertical for _, horizontal, vertical, _ in image.layer]
        pixels += whole[0] * whole[1] * sum(samples) // max(samples) // 2
    if pixels > limits.max_pixels:
        raise Refused(
            "too_large",
            f"the image has {whole[0]} × {whole[1]} pixels, and decoding it takes as much as "
            f"{pixels} do; the limit is {limits.max_pixels} (PGCLIP_MAX_IMAGE_PIXELS)",
        )


def _orientation(image: "Image") -> int:
    """By EXIF, from 1 to 8; 1, upright, where EXIF is broken or says something else."""
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except MemoryError:
        raise
    except Exception:  # as many kinds as there are ways to break it
        return 1
    return orientation if orientation in range(1, 9) else 1


def _upright(image: "Image") -> "Image":
    """In RGB, as EXIF says it was seen."""
    from PIL.Image import Transpose

    turned = {
        2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE, 6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }  # fmt: skip
    orientation = _orientation(image)
    image = rgb(image)
    return image.transpose(turned[orientation]) if orientation > 1 else image


def _fit(image: "Image", preprocessing: Preprocessing) -> "tuple[Image | None, Image]":
    """The whole picture before the crop, if it is made and has kept its shape; and what is left."""
    from PIL import Image

    height, width = preprocessing.resized(image.height, image.width)
    resample = Image.Resampling(preprocessing.resample)
    resize = shrink if preprocessing.fast_decode else Image.Image.resize
    if preprocessing.max_patches:
        return None, resize(image, (width, height), resample)
    crop_height, crop_width = preprocessing.crop
    # Where the crop is larger than the picture, what is beyond is black.
    top = preprocessing.margin(height - crop_height)
    left = preprocessing.margin(width - crop_width)
    if height * width > _LONG * preprocessing.most_pixels:
        # Of a panorama only what the crop leaves is made: the same pixels.
        across, down = image.width / width, image.height / height
        box = (left * across, top * down, (left + crop_width) * across, (top + crop_height) * down)
        return None, image.resize((crop_width, crop_height), resample, box)
    resized = resize(image, (width, height), resample)
    fitted = resized.crop((left, top, left + crop_width, top + crop_height))
    return resized if len(preprocessing.resize) == 1 else None, fitted
