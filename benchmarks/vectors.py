"""Vectors as CLIP's are: unit length, in clusters, the variance in few of many directions.

Two of one cluster have a cosine of about 0.8, two of different clusters of about 0.5.
"""

from typing import TypeAlias

import numpy as np

Floats: TypeAlias = "np.ndarray[tuple[int, ...], np.dtype[np.float32]]"

DIMENSION = 512
_CLUSTERS = 2000


def clustered(count: int, seed: int) -> Floats:
    """`count` unit vectors, (count, DIMENSION); every seed draws from the same clusters."""
    spectrum = np.arange(1, DIMENSION + 1, dtype=np.float32) ** -0.5
    spectrum /= np.linalg.norm(spectrum)
    fixed = np.random.default_rng(0)
    centres = fixed.standard_normal((_CLUSTERS, DIMENSION), np.float32) * spectrum
    common = fixed.standard_normal(DIMENSION, np.float32)
    centres = _unit(_unit(centres) + _unit(common[None]))
    random = np.random.default_rng([1, seed])
    noise = random.standard_normal((count, DIMENSION), np.float32) * spectrum
    return _unit(centres[random.integers(0, _CLUSTERS, count)] + 0.5 * _unit(noise))


def _unit(vectors: Floats) -> Floats:
    unit: Floats = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return unit
