"""Vectors as arrays."""

from typing import TypeAlias

import numpy as np

Floats: TypeAlias = "np.ndarray[tuple[int, ...], np.dtype[np.float32]]"

DIMENSION = 512
