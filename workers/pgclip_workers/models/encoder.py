"""What the worker needs of a model. `clip` has the one that ships."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from pgclip_workers.pictures.preprocessing import Preprocessing

Floats = np.ndarray[Any, np.dtype[np.float32]]
Bytes = np.ndarray[Any, np.dtype[np.uint8]]


class TooLarge(Exception):
    """The device has not enough memory for this one input alone."""


class DeviceLost(Exception):
    """The device's context is dead, for this process for good: the process has to end."""


class Encoder(Protocol):
    """A model on a device. Vectors are float32 rows of unit norm.

    The logit of a text for a picture is `logit_scale` times their cosine. Several texts share one
    softmax, unless there is a `logit_bias` to add: then each has a sigmoid of its own.

    `fingerprint` has two parts: "fatal", which must be equal in all workers of a model, and
    "recorded". Both methods may be called from several threads at once; they raise TooLarge and
    DeviceLost, and anything else for an input that the model fails on.
    """

    name: str
    dimension: int
    logit_scale: float
    logit_bias: float | None
    device: str
    precision: str
    batch_size: int
    preprocessing: Preprocessing
    fingerprint: dict[str, Any]

    def encode_images(self, pixels: Sequence[Bytes]) -> Floats:
        """uint8 pictures (height, width, 3) → (n, dimension)."""
        ...

    def encode_texts(self, texts: Sequence[str]) -> list[Floats]:
        """For each text (windows, dimension): one window unless it exceeds the context."""
        ...
