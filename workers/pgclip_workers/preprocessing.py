"""What happens to a picture before the model sees it. Imported by decoding processes: no torch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

# Raise it when the pixels that come out of `decode` change for the same picture.
VERSION = 1


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Geometry and normalisation as the checkpoint's image processor defines them.

    `height` and `width` are the model's input. `shortest_edge` is the size to resize to while
    keeping the shape; 0 resizes to height × width directly. `resample` is Pillow's number of the
    filter. Values are multiplied by `scale`, then (value - mean) / std for each channel.
    """

    height: int
    width: int
    shortest_edge: int
    resample: int
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    fast_decode: bool

    @classmethod
    def from_processor(cls, processor: Any, fast_decode: bool) -> "Preprocessing":
        """Reads a transformers image processor. Raises ValueError for one of another kind."""
        size: Mapping[str, int] = dict(processor.size)
        crop = dict(processor.crop_size or {}) if processor.do_center_crop else {}
        if set(size) == {"shortest_edge"} and crop:
            edge, height, width = size["shortest_edge"], crop["height"], crop["width"]
        elif set(size) == {"height", "width"}:
            edge, height, width = 0, size["height"], size["width"]
            if crop and (crop["height"], crop["width"]) != (height, width):
                raise ValueError(f"a crop to {crop} after a resize to {size} is not supported")
        else:
            raise ValueError(f"image size {size} with crop {crop} is not supported")
        return cls(
            height=height,
            width=width,
            shortest_edge=edge,
            resample=int(processor.resample),
            scale=float(processor.rescale_factor) if processor.do_rescale else 1.0,
            mean=tuple(processor.image_mean) if processor.do_normalize else (0.0, 0.0, 0.0),
            std=tuple(processor.image_std) if processor.do_normalize else (1.0, 1.0, 1.0),
            fast_decode=fast_decode,
        )

    def fingerprint(self) -> dict[str, Any]:
        """The part of the model's fingerprint that decides which vector a picture gets."""
        return {"preprocessing": {"version": VERSION, "exif": "transposed", **asdict(self)}}
