"""What is submitted, and how each of it must end: with this vector, or failed for this reason."""

import io
from base64 import b64decode, b64encode
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image
from support.planted_worker import PlantedEncoder, vector_of

from pgclip.settings import Settings
from pgclip_workers.pictures.decode import Pixels, decode
from pgclip_workers.pictures.sources import Limits

# Planted failures: what is submitted, the reason, and how many of ten thousand are so.
_POISON_TEXTS = {
    "not finite": ("not_finite", 60),
    "fail": ("encoding_failed", 60),
    "out of memory": ("out_of_memory", 60),
    "die": ("worker_died", 1),
    "sleep 3600": ("worker_died", 1),
}
_POISON_PICTURES = {
    "ABORT": ("decoder_died", 40),
    "EAT MEMORY": ("decoder_memory", 40),
    "HANG": ("decoder_timeout", 15),
    "RAISE": ("decoder_error", 40),
    "no picture": ("not_an_image", 60),
}


@dataclass(frozen=True)
class Content:
    """Bytes of a picture or a text; or a reference to a file with them.

    `planted` names the fault that it is, and `reason` is that for which its item must fail. What
    hurts its decoder may also time out: on a busy machine the limit may come before the harm.
    """

    kind: str
    data: bytes
    planted: str | None = None
    reason: str | None = None
    path: str | None = None

    def may_fail_for(self, reason: str) -> bool:
        """Whether an item with this content may have failed for a reason."""
        hurts_decoder = (self.reason or "").startswith("decoder_")
        return reason == self.reason or (hurts_decoder and reason == "decoder_timeout")

    def to_json(self) -> dict[str, Any]:
        """As the ledger keeps it."""
        return {**vars(self), "data": b64encode(self.data).decode()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Content":
        """What to_json gave."""
        return cls(**{**value, "data": b64decode(value["data"])})

    def vector(self) -> Any:
        """The embedding, computed directly; float32, of unit norm."""
        if self.kind == "text":
            return vector_of(self.data)
        rules = PlantedEncoder(Settings.load({})).preprocessing
        pixels = decode(self.data, None, rules, Limits(10**7, 10**7))
        assert isinstance(pixels, Pixels)
        return vector_of(np.ascontiguousarray(pixels.array).tobytes())


def make(random: Random, name: str, folder: Path) -> Content:
    """Something to submit, poison now and then. `name` is in it, so that it is its own."""
    draw = random.randrange(10_000)
    for prefix, (reason, share) in _POISON_TEXTS.items():
        if (draw := draw - share) < 0:
            return Content("text", f"{prefix} {name}".encode(), f"text: {prefix}", reason)
    for prefix, (reason, share) in _POISON_PICTURES.items():
        if (draw := draw - share) < 0:
            data = f"{prefix} {name}".encode()
            return Content("image", data, f"picture: {prefix}", reason)
    if draw < 20:
        missing = folder / f"missing-{name}.png"
        return Content("image", b"", "reference to no file", "missing_file", str(missing))
    if draw < 30:
        # Ends the worker once; the second time it is a text like any other.
        text = f"die once {folder / name}"
        return Content("text", text.encode(), "text: die once")
    if draw < 60:
        # The same words again and again: contents that items share.
        return Content("text", f"one of {random.randrange(20)} sayings".encode())
    if draw < 5000:
        return Content("text", f"text {name} {random.random()}".encode())
    data = _picture(random)
    if draw < 5500:
        path = folder / f"{name}.png"
        path.write_bytes(data)
        return Content("image", data, path=str(path))
    return Content("image", data)


def _picture(random: Random) -> bytes:
    picture = Image.frombytes("RGB", (12, 12), random.randbytes(12 * 12 * 3))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
