"""Making a picture smaller with vector instructions, which Pillow has none of. No torch."""

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

# The bytes are copied in and out. Of more pixels the copies would be large beside what a decoding
# process may have, and they have to be there at once: here a lack of memory ends the process.
_MOST_PIXELS = 12_000_000


def shrink(
    picture: "Image", size: tuple[int, int], resample: int, reducing_gap: float | None = None
) -> "Image":
    """As `picture.resize(size, resample)`, at about a quarter of its time.

    Of a photograph every fifth value is another, by 1 or 2 of 255; of noise by up to 15 where a
    filter overshoots (bicubic, Lanczos), since the passes are rounded in another order. What is
    not in RGB, is to become larger, has a filter that only Pillow has, or where the library has no
    build for the machine, is Pillow's own, with `reducing_gap` if it is given.
    """
    plan = _plans().get(resample)
    larger = size[0] > picture.width or size[1] > picture.height
    huge = picture.width * picture.height > _MOST_PIXELS
    if plan is None or larger or huge or picture.mode != "RGB" or picture.size == size:
        return picture.resize(size, resample, reducing_gap=reducing_gap)
    return _resized(picture, size, plan)


def _resized(picture: "Image", size: tuple[int, int], plan: Any) -> "Image":
    from cykooz_resizer import ImageData, PixelType, Resizer
    from PIL import Image

    # By bytes: it can also read Pillow's own memory, whose layout is nobody's promise. By four, of
    # which the last says nothing: vectors of three take longer on both sides.
    whole = ImageData(*picture.size, PixelType.U8x4, picture.tobytes("raw", "RGBX"))
    small = ImageData(*size, PixelType.U8x4)
    Resizer().resize(whole, small, plan)
    return Image.frombytes("RGB", size, small.get_buffer(), "raw", "RGBX")


@cache
def _plans() -> dict[int, Any]:
    """Pillow's numbers of filters, and the same filters there."""
    try:
        from cykooz_resizer import FilterType, ResizeAlg, ResizeOptions
    except ImportError:
        return {}
    from PIL.Image import Resampling

    filters = {
        Resampling.BILINEAR: FilterType.bilinear,
        Resampling.BICUBIC: FilterType.catmull_rom,
        Resampling.LANCZOS: FilterType.lanczos3,
    }
    return {
        int(number): ResizeOptions(ResizeAlg.convolution(each), use_alpha=False)
        for number, each in filters.items()
    }
