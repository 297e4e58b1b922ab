"""Pictures made smaller by vector instructions are Pillow's, but for the last digits."""

import sys
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image
from PIL.Image import Resampling
from support import pictures

from pgclip_workers.pictures import shrink as module
from pgclip_workers.pictures.shrink import shrink

FILTERS = (Resampling.BILINEAR, Resampling.BICUBIC, Resampling.LANCZOS)
SIZES = ((336, 224), (224, 149), (640, 3), (1, 427), (80, 427))


def photograph(width: int, height: int) -> Image.Image:
    """Soft shapes, and a sensor's grain."""
    grain = np.random.default_rng(7).normal(0, 9, (height, width, 1))
    values = np.asarray(pictures.noise(3, width, height)) + grain
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def noise(width: int, height: int) -> Image.Image:
    values = np.random.default_rng(5).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(values)


def checks(width: int, height: int, side: int) -> Image.Image:
    odd = np.indices((height, width)).sum(axis=0) // side % 2 == 1
    return Image.fromarray(odd).convert("RGB")


def apart(picture: Image.Image, size: tuple[int, int], resample: int) -> np.ndarray:
    ours, theirs = (np.asarray(each, np.int16) for each in
                    (shrink(picture, size, resample), picture.resize(size, resample)))  # fmt: skip
    assert ours.shape == theirs.shape == (size[1], size[0], 3)
    return np.abs(ours - theirs)


@pytest.fixture
def anew() -> Iterator[None]:
    module._plans.cache_clear()
    yield
    module._plans.cache_clear()


@pytest.mark.parametrize("resample", FILTERS)
@pytest.mark.parametrize("size", SIZES)
def test_a_photograph(size: tuple[int, int], resample: Resampling) -> None:
    difference = apart(photograph(640, 427), size, resample)
    assert difference.max() <= 2
    assert difference.mean() <= 0.5


@pytest.mark.parametrize("resample", FILTERS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("picture", [noise(640, 427), checks(640, 427, 1), checks(640, 427, 5)])
def test_what_is_no_photograph(
    picture: Image.Image, size: tuple[int, int], resample: Resampling
) -> None:
    difference = apart(picture, size, resample)
    assert difference.max() <= 15
    assert difference.mean() <= 1


def test_it_is_not_pillow_that_does_it() -> None:
    assert apart(noise(640, 427), (336, 224), Resampling.BICUBIC).any()


@pytest.mark.parametrize(
    ("picture", "size", "resample"),
    [
        (noise(64, 48), (65, 48), Resampling.BICUBIC),
        (noise(64, 48), (64, 48), Resampling.BICUBIC),
        (noise(64, 48), (32, 24), Resampling.NEAREST),
        (noise(64, 48), (32, 24), Resampling.BOX),
        (noise(64, 48), (32, 24), Resampling.HAMMING),
        (noise(64, 48).convert("L"), (32, 24), Resampling.BICUBIC),
        (noise(64, 48).convert("RGBA"), (32, 24), Resampling.BICUBIC),
    ],
)
def test_what_is_left_to_pillow(
    picture: Image.Image, size: tuple[int, int], resample: Resampling
) -> None:
    ours = shrink(picture, size, resample)
    assert ours.mode == picture.mode
    assert ours is not picture
    np.testing.assert_array_equal(ours, picture.resize(size, resample))


def test_large_pictures_are_left_to_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = noise(640, 427)
    monkeypatch.setattr(module, "_MOST_PIXELS", 640 * 427 - 1)
    assert not apart(picture, (336, 224), Resampling.BICUBIC).any()
    monkeypatch.setattr(module, "_MOST_PIXELS", 640 * 427)
    assert apart(picture, (336, 224), Resampling.BICUBIC).any()


def test_a_gap_is_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_PIXELS", 1)
    picture, to = noise(640, 427), (64, 43)
    ours = shrink(picture, to, Resampling.BILINEAR, reducing_gap=1.0)
    theirs = picture.resize(to, Resampling.BILINEAR, reducing_gap=1.0)
    np.testing.assert_array_equal(ours, theirs)
    assert (np.asarray(ours) != picture.resize(to, Resampling.BILINEAR)).any()


@pytest.mark.usefixtures("anew")
def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cykooz_resizer", None)
    assert not apart(noise(640, 427), (336, 224), Resampling.BICUBIC).any()
