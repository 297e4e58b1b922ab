"""A picture's bytes into the pixels that the model gets. Runs in decoding processes: no torch.

The result equals transformers' image processor on the same decoded picture, except that a JPEG
may be decoded at a reduced size of at least twice the target (fast_decode), that EXIF
orientation is applied and that transparent pixels become white.
"""

import hashlib
import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pgclip_workers.preprocessing import Preprocessing
from pgclip_workers.refused import Refused
from pgclip_workers.sources import Limits, read_source

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

# Formats are listed, because decoders of rare ones have crashed and hidden decompression bombs.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "BMP", "TIFF")


@dataclass(frozen=True, slots=True)
class Pixels:
    """A decoded picture: SHA-256 of its bytes, and uint8 RGB as height × width × 3."""

    hash: bytes
    array: "np.ndarray[Any, np.dtype[np.uint8]]"


def decode(
    data: bytes | None, source: str | None, preprocessing: Preprocessing, limits: Limits
) -> Pixels | Refused:
    """Reads and decodes one picture. Returns Refused rather than raising it: it is an answer."""
    try:
        if data is None:
            data = read_source(source or "", limits)
        return Pixels(hashlib.sha256(data).digest(), _pixels(data, preprocessing, limits))
    except Refused as refused:
        return refused
    except MemoryError:
        return Refused("decoder_memory", "decoding it takes more memory than PGCLIP_DECODER_MEMORY")


def _pixels(
    data: bytes, preprocessing: Preprocessing, limits: Limits
) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    import numpy as np
    from PIL import Image, ImageOps, UnidentifiedImageError

    _register_formats()
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
        image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > limits.max_pixels:
            raise Refused(
                "too_large",
                f"the image has {image.width} × {image.height} pixels; the limit is "
                f"{limits.max_pixels} (PGCLIP_MAX_IMAGE_PIXELS)",
            )
        if preprocessing.fast_decode:
            _draft(image, preprocessing)
        image.load()
        image = _rgb(ImageOps.exif_transpose(image))
        return np.asarray(_fit(image, preprocessing))
    except UnidentifiedImageError:
        raise Refused(
            "not_an_image", f"this is no picture in one of the formats {', '.join(FORMATS)}"
        ) from None
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, KeyError) as error:
        # Pillow's decoders report broken files by all of these.
        raise Refused("unreadable_image", f"the image can't be decoded: {error}") from error


def _register_formats() -> None:
    """Pillow opens a format that is asked for by name only once its plugin has been imported."""
    from PIL import (  # noqa: F401
        AvifImagePlugin,
        BmpImagePlugin,
        GifImagePlugin,
        JpegImagePlugin,
        PngImagePlugin,
        TiffImagePlugin,
        WebPImagePlugin,
    )


def _draft(image: "Image", preprocessing: Preprocessing) -> None:
    """Lets the JPEG decoder shrink by 2, 4 or 8 while at least twice the target remains."""
    height, width = _resized(image.height, image.width, preprocessing)
    image.draft(None, (2 * width, 2 * height))


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
    return image.convert("RGB")


def _resized(height: int, width: int, preprocessing: Preprocessing) -> tuple[int, int]:
    """Height and width after the resize; the long side is rounded down, as transformers does."""
    edge = preprocessing.shortest_edge
    if not edge:
        return preprocessing.height, preprocessing.width
    short, long = sorted((height, width))
    longer = int(edge * long / short)
    return (longer, edge) if width <= height else (edge, longer)


def _fit(image: "Image", preprocessing: Preprocessing) -> "Image":
    from PIL import Image

    height, width = _resized(image.height, image.width, preprocessing)
    if height * width > 64 * preprocessing.height * preprocessing.width:
        raise Refused(
            "unreadable_image",
            f"the image is {image.width} × {image.height}: too narrow to be looked at",
        )
    image = image.resize((width, height), Image.Resampling(preprocessing.resample))
    top = math.floor((height - preprocessing.height) / 2)
    left = math.floor((width - preprocessing.width) / 2)
    return image.crop((left, top, left + preprocessing.width, top + preprocessing.height))
