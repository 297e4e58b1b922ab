"""Pillow's modes into RGB, with little memory. Runs in decoding processes: no torch."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

# Pixels that are converted at once: what a conversion needs meanwhile is several times as much.
_BAND = 2**22


def rgb(image: "Image") -> "Image":
    """In RGB; what is transparent becomes white, more than eight bits become eight (`in_bytes`)."""
    from PIL import Image

    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    convert = _conversion(image)
    if image.width * image.height <= _BAND:
        return convert(image)
    whole = Image.new("RGB", image.size)
    for top, band in _bands(image):
        whole.paste(convert(band), (0, top))
    return whole


def _conversion(image: "Image") -> "Callable[[Image], Image]":
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        lows, highs = zip(*(_ends(band) for _, band in _bands(image)), strict=True)
        low, high = min(lows), max(highs)
        return lambda band: _grey(in_bytes(_values(band), low, high))
    return _on_white if image.has_transparency_data else _plain


def _bands(image: "Image") -> "Iterator[tuple[int, Image]]":
    rows = max(1, _BAND // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def in_bytes(
    values: "np.ndarray[Any, np.dtype[np.float64]]", low: float, high: float
) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """Values of more than eight bits, or floats, as uint8; the picture's go from low to high.

    They are taken to count from 0, black, to white: 1 of floats that don't exceed it, else 255,
    else 65,535. Where there are negative ones, or larger ones still, it is from the picture's
    lowest to its highest. What is not a number is black.
    """
    import numpy as np

    black, white = 0.0, 65535.0
    if low < 0 or high > white:
        black, white = low, high
    elif high <= 255:
        white = 255.0 if high > 1 or values.dtype != np.float32 else 1.0
    scaled = (values.astype(np.float64) - black) * (255 / ((white - black) or 1))
    return np.nan_to_num(scaled, posinf=255, neginf=0).clip(0, 255).round().astype(np.uint8)


def _values(band: "Image") -> Any:
    import numpy as np

    return np.asarray(band)


def _ends(band: "Image") -> tuple[float, float]:
    """The lowest and the highest that is a number."""
    import numpy as np

    values = _values(band)
    finite = values[np.isfinite(values)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def _grey(values: Any) -> "Image":
    from PIL import Image

    return Image.fromarray(values).convert("RGB")


def _on_white(band: "Image") -> "Image":
    from PIL import Image

    band = band.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", band.size, "white"), band).convert("RGB")


def _plain(band: "Image") -> "Image":
    return band if band.mode == "RGB" else band.convert("RGB")
