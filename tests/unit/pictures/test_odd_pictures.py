"""Pictures as people have them: much beside the pixels, very many of them, floats, panoramas."""

import io
import struct
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from support.pictures import encoded, noise
from transformers import CLIPImageProcessorPil

from pgclip.errors import ConfigurationError
from pgclip.settings import FORMATS, Settings
from pgclip_workers.pictures.decode import Picture, Pixels, decode
from pgclip_workers.pictures.decoders import Decoders
from pgclip_workers.pictures.modes import in_bytes
from pgclip_workers.pictures.preprocessing import Preprocessing
from pgclip_workers.pictures.refused import Refused
from pgclip_workers.pictures.sources import Limits

DEFAULTS = Settings()
LIMITS = Limits(DEFAULTS.max_image_bytes, DEFAULTS.max_image_pixels)
EDGE = Preprocessing(
    resize=(32,), crop=(32, 32), resample=3, scale=1 / 255, mean=(0.0,) * 3, std=(1.0,) * 3,
    fast_decode=True,
)  # fmt: skip


def pixels(data: bytes, limits: Limits = LIMITS) -> "np.ndarray[Any, Any]":
    decoded = decode(data, None, EDGE, limits)
    assert isinstance(decoded, Pixels), decoded
    return decoded.array


# Beside the pixels.


@pytest.mark.parametrize("compressed", [True, False], ids=["zTXt", "iTXt"])
def test_words_and_profiles_of_a_png_are_passed_over(compressed: bool) -> None:
    """Image generators write their settings; Pillow alone refuses more than a megabyte."""
    about = PngImagePlugin.PngInfo()
    about.add_itxt("workflow", "a prompt, " * 300_000, zip=compressed)
    about.add_text("parameters", "steps " * 300_000, zip=compressed)
    about.add(b"zTXt", b"after\0\0" + zlib.compress(bytes(2_000_000)), after_idat=True)
    picture = noise(1, 90, 120)
    plain = pixels(encoded(picture, "PNG"))
    data = encoded(picture, "PNG", pnginfo=about, icc_profile=b"profile " * 400_000)
    np.testing.assert_array_equal(pixels(data), plain)


def test_a_png_turned_by_its_words_is_turned() -> None:
    """As ImageMagick and Adobe write it."""
    picture = noise(1, 90, 120)
    upright = pixels(encoded(picture.transpose(Image.Transpose.ROTATE_180), "PNG"))
    exif = Image.Exif()
    exif[0x0112] = 3
    as_hex = exif.tobytes().hex()
    about = PngImagePlugin.PngInfo()
    about.add_text("Raw profile type exif", f"\nexif\n{len(as_hex) // 2}\n{as_hex}\n", zip=True)
    np.testing.assert_array_equal(pixels(encoded(picture, "PNG", pnginfo=about)), upright)
    about = PngImagePlugin.PngInfo()
    about.add_itxt("XML:com.adobe.xmp", '<x:xmpmeta tiff:Orientation="3"/>')
    np.testing.assert_array_equal(pixels(encoded(picture, "PNG", pnginfo=about)), upright)


def test_a_png_that_is_cut_off_in_its_words_is_refused() -> None:
    whole = encoded(noise(1, 90, 120), "PNG")
    words = struct.pack(">I", 10**6) + b"tEXt" + b"x" * 100
    data = whole[:33] + words  # after its header
    assert isinstance(decode(data, None, EDGE, LIMITS), Refused)


# Very many pixels.


def large_jpeg(width: int, height: int, **options: Any) -> bytes:
    row = Image.linear_gradient("L").resize((width, height), Image.Resampling.NEAREST)
    return encoded(Image.merge("RGB", (row, row, row)), "JPEG", **options)


def test_a_phone_s_108_megapixels_are_decoded_at_an_eighth() -> None:
    data = large_jpeg(12000, 9000)
    values = pixels(data)
    np.testing.assert_allclose(values, pixels(large_jpeg(1200, 900)), atol=4)
    full = replace(EDGE, fast_decode=False)
    refused = decode(data, None, full, LIMITS)
    assert isinstance(refused, Refused)
    assert refused.reason == "too_large"
    assert "12000 × 9000 pixels" in refused.message


@pytest.mark.parametrize(
    ("options", "weight"),
    [({}, 0), ({"progressive": True}, 0.75), ({"progressive": True, "subsampling": 0}, 1.5)],
    ids=["baseline", "progressive", "progressive 4:4:4"],
)
def test_a_progressive_jpeg_counts_with_its_coefficients(options: Any, weight: float) -> None:
    data = large_jpeg(1600, 1600, **options)
    needs = int(1600 * 1600 * (1 / 64 + weight))
    pixels(data, Limits(10**7, needs))
    refused = decode(data, None, EDGE, Limits(10**7, needs - 1))
    assert isinstance(refused, Refused)
    assert f"as much as {needs} do" in refused.message


@pytest.mark.parametrize("mode", ["RGBA", "I;16", "LA", "P"])
def test_what_has_as_many_pixels_as_it_may_has_the_memory(mode: str) -> None:
    """In a process of its own with its limit; compositing alone took three times as much."""
    if mode == "I;16":
        picture = Image.fromarray(np.full((10_000, 10_000), 40_000, np.uint16))
    else:
        picture = Image.new(
            mode, (10_000, 10_000), {"LA": (9, 255), "P": 3}.get(mode, (1, 2, 3, 9))
        )
    data = encoded(picture, "PNG", compress_level=1, **({"transparency": 3} if mode == "P" else {}))
    decoders = Decoders(DEFAULTS, 1)
    try:
        (decoded,) = decoders.decode([Picture(data, None)], EDGE)
    finally:
        decoders.stop()
    assert isinstance(decoded, Pixels), decoded


def test_conversion_in_bands_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = []
    for mode in ("RGBA", "LA", "P", "1", "CMYK", "L"):
        picture = noise(3, 70, 90).convert(mode)
        pictures.append(encoded(picture, "TIFF" if mode == "CMYK" else "PNG"))
    ramp = np.linspace(0, 65535, 70 * 90).reshape(70, 90)
    pictures += [encoded(Image.fromarray(ramp.astype(np.uint16)), "PNG"),
                 encoded(Image.fromarray(ramp.astype(np.float32)), "TIFF")]  # fmt: skip
    whole = [pixels(data) for data in pictures]
    monkeypatch.setattr("pgclip_workers.pictures.modes._BAND", 1000)
    for data, expected in zip(pictures, whole, strict=True):
        np.testing.assert_array_equal(pixels(data), expected)


# More than eight bits.


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.float32([0, 0.5, 1]), [0, 128, 255]),
        (np.float32([0, 127.5, 255]), [0, 128, 255]),
        (np.float32([0, 0.25, 0.5]), [0, 64, 128]),  # a dark one stays dark
        (np.float32([0, 32768, 65535]), [0, 128, 255]),
        (np.float32([-1, 0, 1]), [0, 128, 255]),
        (np.float32([0, np.nan, 1]), [0, 0, 255]),
        (np.float32([0, np.inf, 1]), [0, 255, 255]),
        (np.float32([7, 7, 7]), [7, 7, 7]),
        (np.float32([1e9, 1e9, 1e9]), [0, 0, 0]),
        (np.int32([0, 1, 255]), [0, 1, 255]),
        (np.int32([0, 1, 1]), [0, 1, 1]),
        (np.int32([0, 32768, 65535]), [0, 128, 255]),
        (np.int32([0, 2**30, 2**31 - 1]), [0, 128, 255]),
        (np.int32([-1000, 0, 1000]), [0, 128, 255]),
        (np.uint16([0, 4095, 65535]), [0, 16, 255]),
    ],
)  # fmt: skip
def test_by_the_range_of_the_picture(values: Any, expected: list[int]) -> None:
    finite = values[np.isfinite(values)]
    assert in_bytes(values, finite.min(), finite.max()).tolist() == expected


@pytest.mark.parametrize("largest", [1, 255, 65535, 2**20])
def test_a_float_tiff_is_a_picture(largest: float) -> None:
    ramp = np.linspace(0, largest, 64 * 64, dtype=np.float32).reshape(64, 64)
    values = pixels(encoded(Image.fromarray(ramp), "TIFF"))
    eight = pixels(encoded(Image.fromarray((ramp / largest * 255).round().astype(np.uint8)), "PNG"))
    np.testing.assert_allclose(values, eight, atol=1)


# Formats.


@pytest.mark.parametrize("format", ["JPEG2000", "PPM", "TGA", "ICO", "PSD"])
def test_an_operator_allows_more_formats(format: str) -> None:
    assert format not in DEFAULTS.formats
    picture = noise(1, 64, 64)
    data = psd(picture) if format == "PSD" else encoded(picture, format)
    refused = decode(data, None, EDGE, LIMITS)
    assert isinstance(refused, Refused)
    assert refused.reason == "not_an_image"
    allowed = Settings.load({"PGCLIP_FORMATS": f"jpeg, {format.lower()}"}).formats
    assert allowed == ("JPEG", format)
    values = pixels(data, replace(LIMITS, formats=allowed))
    np.testing.assert_allclose(values, pixels(encoded(picture, "PNG")), atol=60)
    assert isinstance(decode(encoded(picture, "PNG"), None, EDGE, replace(LIMITS, formats=allowed)),
                      Refused)  # fmt: skip


def psd(picture: Image.Image) -> bytes:
    """The merged picture alone, uncompressed."""
    header = struct.pack(">4sH6xHIIHH", b"8BPS", 1, 3, picture.height, picture.width, 8, 3)
    planes = b"".join(band.tobytes() for band in picture.split())
    return header + bytes(12) + b"\0\0" + planes


def test_a_format_that_is_none() -> None:
    with pytest.raises(ConfigurationError, match="formats are JPEG, PNG"):
        Settings.load({"PGCLIP_FORMATS": "jpeg,svg"})
    assert set(DEFAULTS.formats) < set(FORMATS)


# Panoramas and long screenshots.


@pytest.mark.parametrize(
    "size", [(3000, 50), (50, 3000), (1080, 80_000), (10_000, 33), (33, 10_000)]
)
def test_a_panorama_is_what_the_reference_makes_of_it(size: tuple[int, int]) -> None:
    width, height = size
    across = np.linspace(0, 40 * np.pi, width)
    down = np.linspace(0, 40 * np.pi, height)
    waves = 127 + 60 * np.sin(across)[None, :] + 60 * np.cos(down)[:, None]
    picture = Image.fromarray(waves.astype(np.uint8)).convert("RGB")
    reference = CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, do_rescale=False,
        do_normalize=False,
    )  # fmt: skip
    expected = reference(picture, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
    np.testing.assert_allclose(pixels(encoded(picture, "PNG")), expected, atol=1)


@pytest.mark.parametrize("size", [(10_000, 50), (1080, 80_000), (1, 60_000)])
def test_the_longest_ones_cost_little(size: tuple[int, int]) -> None:
    """224 pixels a side: of 1 × 60,000 the reference would make 3 billion."""
    data = encoded(Image.new("RGB", size, (200, 10, 10)), "PNG")
    decoded = decode(data, None, replace(EDGE, resize=(224,), crop=(224, 224)), LIMITS)
    assert isinstance(decoded, Pixels), decoded
    assert decoded.array.shape == (224, 224, 3)
    np.testing.assert_array_equal(decoded.array[100, 100], (200, 10, 10))


def test_bytes_of_a_png_that_has_no_extras_are_its_own() -> None:
    from pgclip_workers.pictures.formats import without_extras

    data = encoded(noise(1, 20, 20), "PNG")
    assert without_extras(data) == data
    assert without_extras(b"no png") == b"no png"
    assert without_extras(data[:40]) == data[:33]
    assert zlib.crc32(without_extras(data)) == zlib.crc32(data)
    assert Image.open(io.BytesIO(without_extras(data))).size == (20, 20)
