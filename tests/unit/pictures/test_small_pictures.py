"""Small pictures: upright, in shape, without what a file says besides, and never in the way."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from support.pictures import encoded, jpeg, noise

from pgclip.settings import FORMATS as ALL_FORMATS
from pgclip.settings import Settings
from pgclip_workers.pictures.decode import Picture, Pixels, decode
from pgclip_workers.pictures.decoders import Decoders
from pgclip_workers.pictures.preprocessing import Preprocessing
from pgclip_workers.pictures.sources import Limits

LIMITS = Limits(max_bytes=10**8, max_pixels=10**8, roots=())
CLIP = Preprocessing(
    resize=(224,), crop=(224, 224), resample=3, scale=1 / 255, mean=(0.0,) * 3, std=(1.0,) * 3,
    fast_decode=True,
)  # fmt: skip
RULES = {
    "keeps the shape": CLIP,
    "squares": replace(CLIP, resize=(224, 224)),
    "whole patches": replace(CLIP, resize=(), crop=(0, 0), patch_size=16, max_patches=256),
}
FORMATS = {
    "JPEG": "RGB", "PNG": "RGBA", "WEBP": "RGB", "TIFF": "CMYK", "GIF": "P", "BMP": "L",
    "HEIF": "RGB",
}  # fmt: skip


def small(data: bytes, side: int = 256, rules: Preprocessing = CLIP) -> Image.Image:
    decoded = decode(data, None, rules, LIMITS, side)
    assert isinstance(decoded, Pixels), decoded
    assert decoded.thumbnail
    image = Image.open(io.BytesIO(decoded.thumbnail.data))
    assert image.format == "JPEG"
    assert image.mode == "RGB"
    assert image.size == (decoded.thumbnail.width, decoded.thumbnail.height)
    return image


def apart(one: Image.Image, other: Image.Image) -> float:
    """The mean difference of their values, of 255."""
    return float(np.abs(np.asarray(one, float) - np.asarray(other, float)).mean())


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((640, 480), (256, 192)),
        ((480, 640), (192, 256)),
        ((3000, 2000), (256, 171)),
        ((100, 80), (100, 80)),
        ((256, 256), (256, 256)),
        ((257, 30), (256, 30)),
        ((3, 700), (1, 256)),
        ((20_000, 4), (256, 1)),
        ((1, 1), (1, 1)),
    ],
)
def test_it_shows_the_whole_picture(
    rules: Preprocessing, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    picture = noise(1, *size)
    image = small(encoded(picture, "PNG"), rules=rules)
    assert image.size == expected
    assert apart(image, picture.resize(expected, Image.Resampling.LANCZOS)) < 6


@pytest.mark.parametrize("side", [64, 100, 300, 512])
def test_it_has_the_longest_side_that_was_asked_for(side: int) -> None:
    picture = noise(2, 2000, 1000)
    image = small(encoded(picture, quality=95), side)  # decoded at a half of its size
    assert image.size == (side, side // 2)
    assert apart(image, picture.resize(image.size, Image.Resampling.LANCZOS)) < 7


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_the_model_gets_the_same_pixels(rules: Preprocessing) -> None:
    data = jpeg(3, 900, 700)
    without, with_one = (decode(data, None, rules, LIMITS, side) for side in (0, 256))
    assert isinstance(without, Pixels)
    assert isinstance(with_one, Pixels)
    assert without.thumbnail is None
    assert np.array_equal(without.array, with_one.array)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_is_upright_and_says_nothing_besides(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "a camera"
    exif.get_ifd(0x8825)[1] = "N"  # where it was taken
    turned = noise(4, 400, 300)
    data = encoded(turned, exif=exif, icc_profile=b"a profile", comment=b"a comment", quality=95)
    image = small(data)
    assert image.size == ((192, 256) if orientation > 4 else (256, 192))
    assert not image.getexif()
    assert not {"exif", "icc_profile", "comment"} & image.info.keys()
    upright = decode(data, None, replace(CLIP, resize=(192,), crop=(192, 192)), LIMITS)
    assert isinstance(upright, Pixels)
    left, top = (image.width - 192) // 2, (image.height - 192) // 2
    middle = image.crop((left, top, left + 192, top + 192))
    assert apart(middle, Image.fromarray(upright.array)) < 5


@pytest.mark.parametrize("format", FORMATS)
def test_of_every_format(format: str) -> None:
    picture = noise(5, 300, 200).convert(FORMATS[format])
    limits = replace(LIMITS, formats=tuple(ALL_FORMATS))
    decoded = decode(encoded(picture, format), None, CLIP, limits, 64)
    assert isinstance(decoded, Pixels)
    assert decoded.thumbnail
    assert (decoded.thumbnail.width, decoded.thumbnail.height) == (64, 43)


def test_what_is_transparent_is_white() -> None:
    picture = Image.new("RGBA", (80, 60), (200, 0, 0, 0))
    assert np.asarray(small(encoded(picture, "PNG"))).min() > 250


def test_decoding_processes_make_those_that_are_asked_for() -> None:
    decoders = Decoders(Settings.load({}), 1)
    try:
        pictures = [
            Picture(jpeg(1, 640, 480), None, 64),
            Picture(b"no picture", None, 64),
            Picture(jpeg(2, 640, 480), None),
            Picture(jpeg(3, 480, 640), None, 256),
        ]
        first, broken, without, last = decoders.decode(pictures, CLIP)
    finally:
        decoders.stop()
    assert isinstance(first, Pixels)
    assert first.thumbnail
    assert first.thumbnail.width == 64
    assert not isinstance(broken, Pixels)
    assert isinstance(without, Pixels)
    assert without.thumbnail is None
    assert isinstance(last, Pixels)
    assert last.thumbnail
    assert last.thumbnail.height == 256
