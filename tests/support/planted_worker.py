"""A real worker around a planted encoder: texts tell it how to misbehave.

    sleep S        the forward pass takes S seconds
    die            the process is killed in the forward pass
    die once FILE  likewise, but only if FILE does not exist yet
    out of memory  TooLarge
    not finite     a vector of NaN
    fail           an exception of the model
    end the thread FILE  an exception that no thread survives, if FILE does not exist yet
    like WORD ...  the vector is near that of WORD

With PLANTED_TURN=near vectors are those of the planted model turned into a space of 24 numbers, and
a little off; with PLANTED_TURN=unlike they have nothing to do with them. PLANTED_PACE is what each
text takes, in seconds; none unless it is set. Everything else is the
product's own. Vectors depend on the content alone. With tests/planted on PYTHONPATH, the decoding
processes misbehave too.
"""

import hashlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pgclip.errors import PgclipError
from pgclip.settings import Settings
from pgclip_workers.models.encoder import Bytes, DeviceLost, Floats, TooLarge
from pgclip_workers.pictures.preprocessing import Preprocessing

DIMENSION = 16
TURNED = 24


def vector_of(data: bytes) -> Floats:
    """The planted embedding of a content: a unit vector made from its hash."""
    seed = int.from_bytes(hashlib.sha256(data).digest()[:8], "big")
    values = np.random.default_rng(seed).standard_normal(DIMENSION)
    unit: Floats = (values / np.linalg.norm(values)).astype(np.float32)
    return unit


def turned(vectors: Floats, way: str, data: bytes) -> Floats:
    """The vectors (n, 16) as another model would have them: (n, 24) unit vectors."""
    if not way:
        return vectors
    other = np.random.default_rng(
        int.from_bytes(hashlib.sha256(b"other" + data).digest()[:8], "big")
    )
    noise = other.standard_normal((len(vectors), TURNED))
    axes = np.linalg.qr(np.random.default_rng(1).standard_normal((TURNED, DIMENSION)))[0]
    made = noise if way == "unlike" else vectors @ axes.T + 0.02 * noise
    unit: Floats = (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)
    return unit


class PlantedEncoder:
    """Fulfils pgclip_workers.models.encoder.Encoder without a model."""

    def __init__(self, settings: Settings) -> None:
        self.name = settings.model_name or "planted"
        self._turn = os.environ.get("PLANTED_TURN", "")
        self.dimension = TURNED if self._turn else DIMENSION
        self.logit_scale, self.logit_bias = 10.0, None
        self.device, self.precision = "cpu", "float32"
        self.batch_size = settings.batch_size or 64
        self.preprocessing = Preprocessing(
            resize=(8, 8), crop=(8, 8), resample=3, scale=1 / 255, mean=(0.0,) * 3, std=(1.0,) * 3,
            fast_decode=False,
        )  # fmt: skip
        self._pace = float(os.environ.get("PLANTED_PACE", "0"))
        weights = os.environ.get("PLANTED_WEIGHTS", "planted")
        self.fingerprint: dict[str, Any] = {"fatal": {"weights": weights}, "recorded": {}}

    def encode_images(self, pixels: Sequence[Bytes]) -> Floats:
        return np.concatenate([
            turned(vector_of(data)[None], self._turn, data)
            for data in (picture.tobytes() for picture in pixels)
        ])  # fmt: skip

    def encode_texts(self, texts: Sequence[str]) -> list[Floats]:
        time.sleep(self._pace * len(texts))
        return [turned(self._encode_text(text), self._turn, text.encode()) for text in texts]

    def _encode_text(self, text: str) -> Floats:
        match text.split(" "):
            case ["sleep", seconds, *_]:
                time.sleep(float(seconds))
            case ["die", "once", path] if not Path(path).exists():
                Path(path).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            case ["die", *rest] if rest[:1] != ["once"]:
                os.kill(os.getpid(), signal.SIGKILL)
            case ["lose", "the", "device", path] if not Path(path).exists():
                Path(path).touch()
                raise DeviceLost("planted: device-side assert triggered")
            case ["out", "of", "memory", *_]:
                raise TooLarge("the device has too little memory for this one alone")
            case ["not", "finite", *_]:
                return np.full((1, DIMENSION), np.nan, np.float32)
            case ["end", "the", "thread", path] if not Path(path).exists():
                Path(path).touch()
                raise SystemExit
            case ["like", word, *_]:
                near = vector_of(word.encode()) + 0.6 * vector_of(text.encode())
                return np.asarray(near / np.linalg.norm(near), np.float32)[None]
            case ["fail", *_]:
                raise RuntimeError("the model failed")
        return vector_of(text.encode())[None]


if __name__ == "__main__":
    from pgclip_workers.main import run

    try:
        sys.exit(run(Settings.load(), PlantedEncoder))
    except PgclipError as error:
        sys.exit(f"pgclip: {error}")
