"""Decoding processes don't ask the kernel for the same memory again for every picture."""

import sys
from pathlib import Path

import psutil
import pytest
from support.pictures import jpeg

from pgclip.settings import Settings
from pgclip_workers.pictures.decode import Picture, Pixels
from pgclip_workers.pictures.decoders import Decoders
from pgclip_workers.pictures.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(
    resize=(224,), crop=(224, 224), resample=3, scale=1 / 255, mean=(0.0,) * 3, std=(1.0,) * 3,
    fast_decode=True,
)  # fmt: skip
PICTURES = 40


def page_faults() -> int:
    """Of the decoding processes until now: pages that the kernel cleared for them."""
    found = 0
    for child in psutil.Process().children(recursive=True):
        stat = Path(f"/proc/{child.pid}/stat").read_text()
        found += int(stat.rpartition(")")[2].split()[7])
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="page faults are read from /proc")
@pytest.mark.parametrize("thumbnail", [0, 256])
@pytest.mark.parametrize(("width", "height"), [(640, 427), (1600, 1200)])
def test_memory_is_kept_for_the_next_picture(width: int, height: int, thumbnail: int) -> None:
    given = [Picture(jpeg(n, width, height), None, thumbnail) for n in range(PICTURES)]
    decoders = Decoders(Settings.load({}), 1)
    try:
        decoders.decode(given[:10], PREPROCESSING)
        before = page_faults()
        decoded = decoders.decode(given, PREPROCESSING)
        faults = page_faults() - before
    finally:
        decoders.stop()
    assert all(isinstance(each, Pixels) for each in decoded)
    # The arena is new for each batch: pages of the picture's bytes, and of what the model gets.
    arena = sum(len(picture.data or b"") for picture in given) + PICTURES * 3 * 224 * 224
    pages = 4 * width * height // 4096
    assert faults < 2 * arena / 4096 + PICTURES * pages / 10
