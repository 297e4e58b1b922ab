"""A real worker whose encoder costs next to nothing: what remains is the queue and the store."""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from pgclip.errors import PgclipError
from pgclip.settings import Settings
from pgclip_workers.encoder import Bytes, Floats
from pgclip_workers.main import run
from pgclip_workers.preprocessing import Preprocessing

DIMENSION = 512
_POOL = np.random.default_rng(0).standard_normal((4096, DIMENSION)).astype(np.float32)
_POOL /= np.linalg.norm(_POOL, axis=1, keepdims=True)


class StubEncoder:
    """Deals out vectors from a pool. It is no model; see pgclip_workers.encoder.Encoder."""

    name = "stub"
    dimension = DIMENSION
    logit_scale = 100.0
    device, precision = "cpu", "float32"
    preprocessing = Preprocessing(224, 224, 224, 3, 1 / 255, (0.0,) * 3, (1.0,) * 3, True)

    def __init__(self, settings: Settings) -> None:
        self.fingerprint: dict[str, Any] = {"fatal": {"weights": "stub"}, "recorded": {}}
        self.batch_size = settings.batch_size or 256

    def encode_images(self, pixels: Sequence[Bytes]) -> Floats:
        """Vectors by position."""
        return _POOL[np.arange(len(pixels)) % len(_POOL)]

    def encode_texts(self, texts: Sequence[str]) -> list[Floats]:
        """Vectors by text."""
        return [_POOL[hash(text) % len(_POOL)][None] for text in texts]


if __name__ == "__main__":
    try:
        sys.exit(run(Settings.load(), StubEncoder))
    except PgclipError as error:
        sys.exit(str(error))
