"""A real worker whose encoder costs next to nothing: what remains is the queue and the store."""

import os
import sys
from collections.abc import Sequence
from typing import Any

from pgclip.errors import PgclipError
from pgclip.settings import Settings
from pgclip_workers.main import run
from pgclip_workers.models.encoder import Bytes, Floats
from pgclip_workers.pictures.preprocessing import Preprocessing

DIMENSION = 512


class StubEncoder:
    """Deals out vectors from a pool. It is no model; see pgclip_workers.models.encoder.Encoder."""

    dimension = DIMENSION
    logit_scale, logit_bias = 100.0, None
    device, precision = "cpu", "float32"
    preprocessing = Preprocessing(
        resize=(224,), crop=(224, 224), resample=3, scale=1 / 255, mean=(0.0,) * 3, std=(1.0,) * 3,
        fast_decode=True,
    )  # fmt: skip

    def __init__(self, settings: Settings) -> None:
        import numpy as np  # after pgclip_workers, which sets what numpy reads on import

        pool = np.random.default_rng(0).standard_normal((4096, DIMENSION)).astype(np.float32)
        self._pool = pool / np.linalg.norm(pool, axis=1, keepdims=True)
        file = os.environ.get("STUB_VECTORS")
        self._prepared = np.load(file, mmap_mode="r") if file else None
        self.name = settings.model_name or "stub"
        self.fingerprint: dict[str, Any] = {"fatal": {"weights": self.name}, "recorded": {}}
        self.batch_size = settings.batch_size or 256

    def encode_images(self, pixels: Sequence[Bytes]) -> Floats:
        """Vectors by position."""
        vectors: Floats = self._pool[[n % len(self._pool) for n in range(len(pixels))]]
        return vectors

    def encode_texts(self, texts: Sequence[str]) -> list[Floats]:
        """Vectors by text; of "vector 7" the eighth of those in the file STUB_VECTORS."""
        return [self._vector(text)[None] for text in texts]

    def _vector(self, text: str) -> Floats:
        if self._prepared is not None and text.startswith("vector "):
            at = int(text.removeprefix("vector "))
            prepared: Floats = self._prepared[at].astype("float32", copy=False)
            return prepared
        dealt: Floats = self._pool[hash(text) % len(self._pool)]
        return dealt


if __name__ == "__main__":
    try:
        sys.exit(run(Settings.load(), StubEncoder))
    except PgclipError as error:
        sys.exit(str(error))
