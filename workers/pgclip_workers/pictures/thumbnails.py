"""A small picture of a picture, for pages. Runs in decoding processes: no torch."""

import io
from typing import TYPE_CHECKING, NamedTuple

from pgclip_workers.pictures.shrink import shrink

if TYPE_CHECKING:
    from PIL.Image import Image

# Of a photograph of 256 × 192 this makes 11 kB. WebP would have 8 kB, and take ten times as long,
# longer than the picture's decoding (docs/decisions.md).
_QUALITY = 75


class Thumbnail(NamedTuple):
    """A JPEG, without anything that the picture's file says besides, and its size in pixels."""

    width: int
    height: int
    data: bytes


def thumbnail_of(picture: "Image", resized: "Image | None", side: int) -> Thumbnail:
    """Of a picture in RGB, with a longest side of at most `side` pixels; never larger than it is.

    `resized`, if given, is the same picture as the model gets it, before the crop: where it is
    large enough, most of the work has been done with it.
    """
    from PIL.Image import Resampling

    scale = min(1.0, side / max(picture.size))
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    if resized is not None and _covers(resized.size, size) and _covers(picture.size, resized.size):
        picture = resized
    small = shrink(picture, size, Resampling.BILINEAR, reducing_gap=1.0)
    small.info = {}  # a comment would be written again
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=_QUALITY)
    return Thumbnail(*size, buffer.getvalue())


def _covers(larger: tuple[int, int], smaller: tuple[int, int]) -> bool:
    return larger[0] >= smaller[0] and larger[1] >= smaller[1]
