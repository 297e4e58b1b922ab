"""Pictures of a photo's size and weight: 640 × 427, about 100 kB as JPEG, each different."""

import io

import numpy as np
from PIL import Image


def photo(seed: int) -> bytes:
    """Smooth shapes with grain, so that decoding costs what a photo's does."""
    random = np.random.default_rng(seed)
    shapes = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    smooth = np.asarray(shapes.resize((640, 427), Image.Resampling.BICUBIC), np.int16)
    grain = random.normal(0, 9, (427, 640, 1)).astype(np.int16)
    buffer = io.BytesIO()
    Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()
