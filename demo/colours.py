"""Names the colours of a drawing, so that captions can say "a red car"."""

from __future__ import annotations

import numpy as np
from PIL import Image

SHARE = 0.4  # a colour is named when it covers this share of the drawing
HUES = ((18, "red"), (42, "orange"), (60, "yellow"), (165, "green"), (255, "blue"),
        (290, "purple"), (340, "pink"), (361, "red"))  # fmt: skip


def colours(drawing: Image.Image) -> list[str]:
    """The colour names that cover much of an RGBA drawing; usually one, often none."""
    rgba = np.asarray(drawing).reshape(-1, 4)
    hsv = np.asarray(drawing.convert("RGB").convert("HSV")).reshape(-1, 3)[rgba[:, 3] > 128]
    if len(hsv) == 0:
        return []
    hue, saturation, value = hsv[:, 0] * 360.0 / 255, hsv[:, 1], hsv[:, 2]
    names = np.full(len(hsv), "none", dtype="<U8")
    for upper, name in reversed(HUES):
        names[hue < upper] = name
    names[(names == "orange") & (value < 150)] = "brown"
    names[saturation < 60] = "grey"
    names[(saturation < 40) & (value > 205)] = "white"
    names[(value < 75)] = "black"
    found, counts = np.unique(names, return_counts=True)
    return [str(n) for n, c in zip(found, counts, strict=True) if c >= SHARE * len(hsv)]
