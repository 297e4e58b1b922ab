"""Pictures for tests, made on the spot."""

import io
from typing import Any

import numpy as np
from PIL import Image


def noise(seed: int, width: int = 120, height: int = 90) -> Image.Image:
    """Soft coloured blobs that differ by seed."""
    values = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, format: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def jpeg(seed: int, width: int = 120, height: int = 90) -> bytes:
    return encoded(noise(seed, width, height), quality=90)
