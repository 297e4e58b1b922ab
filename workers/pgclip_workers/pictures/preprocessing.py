"""What happens to a picture before the model sees it. Imported by decoding processes: no torch."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Raise it when the pixels that come out of `decode` change for the same picture by more than the
# precision of a model's numbers does to its vectors, unless those before were wrong.
VERSION = 1

Three = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """Geometry and normalisation as the checkpoint's image processor defines them.

    `resize` is (shortest edge,), which keeps the picture's shape, or (height, width), which does
    not; `crop` is the (height, width) that is then taken from the middle. Where `max_patches` is
    not 0, neither counts: the picture keeps about its shape and becomes as many patches of
    `patch_size` pixels a side as fit into `max_patches` (NaFlex). `resample` is Pillow's number
    of the filter. Of an odd margin around the crop, `even_margin` rounds the half to even, as
    torchvision does; else it is rounded down. The model gets (value · scale - mean) / std for each
    channel.
    """

    resize: tuple[int, ...]
    crop: tuple[int, int]
    resample: int
    scale: float
    mean: Three
    std: Three
    fast_decode: bool
    patch_size: int = 0
    max_patches: int = 0
    even_margin: bool = False

    @classmethod
    def from_processor(cls, processor: Any, fast_decode: bool) -> "Preprocessing":
        """Reads a transformers image processor. Raises ValueError for one of another kind."""
        mean, std = _normalisation(processor)
        geometry = _patches(processor) if hasattr(processor, "max_num_patches") else _box(processor)
        return cls(
            resample=int(processor.resample),
            scale=float(processor.rescale_factor) if processor.do_rescale else 1.0,
            mean=mean,
            std=std,
            fast_decode=fast_decode,
            **geometry,
        )

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a picture after the resize.

        The long side is rounded down, as transformers does.
        """
        if self.max_patches:
            return _patched(height, width, self.patch_size, self.max_patches)
        if len(self.resize) == 2:
            return self.resize[0], self.resize[1]
        (edge,) = self.resize
        longer = int(edge * max(height, width) / min(height, width))
        return (longer, edge) if width <= height else (edge, longer)

    def margin(self, excess: int) -> int:
        """What is cut off before the crop, of pixels that are too many."""
        return round(excess / 2) if self.even_margin else excess // 2

    @property
    def most_pixels(self) -> int:
        """Pixels, height times width, of the largest picture that the model gets."""
        return self.max_patches * self.patch_size**2 or self.crop[0] * self.crop[1]

    def fingerprint(self) -> dict[str, Any]:
        """The part of the model's fingerprint that decides which vector a picture gets.

        What a rule adds that most models do not have is there only with that rule, so that a new
        rule leaves the others' fingerprints as they are.
        """
        rare = {
            "resize": self.resize if len(self.resize) == 2 and self.resize != self.crop else None,
            "patch_size": self.patch_size,
            "max_patches": self.max_patches,
            "even_margin": self.even_margin,
        }
        return {
            "preprocessing": {
                "version": VERSION,
                "exif": "transposed",
                "height": self.crop[0],
                "width": self.crop[1],
                "shortest_edge": self.resize[0] if len(self.resize) == 1 else 0,
                "resample": self.resample,
                "scale": self.scale,
                "mean": self.mean,
                "std": self.std,
                "fast_decode": self.fast_decode,
                **{name: value for name, value in rare.items() if value},
            }
        }


def _box(processor: Any) -> dict[str, Any]:
    size: Mapping[str, int] = dict(processor.size) if processor.do_resize else {}
    crop = dict(processor.crop_size or {}) if processor.do_center_crop else {}
    if set(size) == {"shortest_edge"} and crop:
        resize: tuple[int, ...] = (size["shortest_edge"],)
    elif set(size) == {"height", "width"}:
        resize = (size["height"], size["width"])
    else:
        raise ValueError(f"image size {size} with crop {crop} is not supported")
    return {"resize": resize, "crop": (crop["height"], crop["width"]) if crop else resize}


def _patches(processor: Any) -> dict[str, Any]:
    return {
        "resize": (),
        "crop": (0, 0),
        "patch_size": int(processor.patch_size),
        "max_patches": int(processor.max_num_patches),
    }


def _normalisation(processor: Any) -> tuple[Three, Three]:
    mean = tuple(processor.image_mean) if processor.do_normalize else (0.0, 0.0, 0.0)
    std = tuple(processor.image_std) if processor.do_normalize else (1.0, 1.0, 1.0)
    # EfficientNet's processor, which ALIGN uses, can subtract 1 and divide by std once more.
    if getattr(processor, "rescale_offset", False):
        mean = tuple(value + 1 for value in mean)
    if getattr(processor, "include_top", False):
        std = tuple(value * again for value, again in zip(std, processor.image_std, strict=True))
    return mean, std


def _patched(height: int, width: int, patch: int, most: int) -> tuple[int, int]:
    """The largest size of about this shape that whole patches, at most `most`, cover.

    The same bisection of the same interval as Siglip2ImageProcessor, so that it ends the same.
    """

    def whole(scale: float) -> tuple[int, int]:
        return (
            max(patch, math.ceil(height * scale / patch) * patch),
            max(patch, math.ceil(width * scale / patch) * patch),
        )

    precision = 1e-5
    low, high = precision / 10, 100.0
    while high - low >= precision:
        middle = (low + high) / 2
        rows, columns = whole(middle)
        if (rows / patch) * (columns / patch) <= most:
            low = middle
        else:
            high = middle
    return whole(low)
