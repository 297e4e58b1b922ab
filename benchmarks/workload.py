"""What is encoded: photos, large ones, short texts, on disk. The same in every run."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from photos import photo
from PIL import Image

_WORDS = (  # noqa: SIM905  one a line would be a page
    "a an the photo drawing of with in on under beside small large old young red blue green black "
    "white cat dog horse bird tree house car boat bridge river mountain beach street night morning "
    "snow rain sun people woman man child table chair bread apple coffee running sleeping standing"
).split()


def make_workload(folder: Path, photos: int, large: int, texts: int) -> Path:
    """Writes photos/, large/ and texts.json, what of them is missing; returns the folder."""
    for name, count, make in (("photos", photos, photo), ("large", large, large_photo)):
        _write(folder / name, count, make)
    (folder / "texts.json").write_text(json.dumps([short_text(seed) for seed in range(texts)]))
    return folder


def paths(workload: Path, name: str) -> list[Path]:
    """The files of photos or large, in order."""
    return sorted((workload / name).glob("*.jpg"))


def large_photo(seed: int) -> bytes:
    """A photo of 12 megapixels, 4032 × 3024, about 1.4 MB as JPEG."""
    picture = Image.open(io.BytesIO(photo(seed))).resize((4032, 3024), Image.Resampling.BICUBIC)
    grain = np.random.default_rng(seed).normal(0, 3, (3024, 4032, 1))
    values = (np.asarray(picture) + grain).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def short_text(seed: int) -> str:
    """Three to ten words, each text different: 7 to 20 tokens, half of them at most 12."""
    random = np.random.default_rng(seed)
    words = random.choice(_WORDS, random.integers(3, 11))
    return f"{' '.join(words)} {seed}"


def _write(folder: Path, count: int, make: Callable[[int], bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        path = folder / f"{seed:05}.jpg"
        if not path.exists():
            path.write_bytes(make(seed))
