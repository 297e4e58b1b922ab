"""Decoding of pictures that may be damaged, and what must come of it."""

import gc
import struct
import zlib
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain, zip_longest
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from support.pictures import encoded, jpeg, noise

from pgclip.settings import Settings
from pgclip_workers.pictures.decode import Picture, Pixels, decode
from pgclip_workers.pictures.decoders import Decoders
from pgclip_workers.pictures.preprocessing import Preprocessing
from pgclip_workers.pictures.refused import Refused
from pgclip_workers.pictures.sources import Limits

MAX_BYTES, MAX_PIXELS = 2**22, 10**6


LIMITS = Limits(MAX_BYTES, MAX_PIXELS)
PREPROCESSING = Preprocessing(
    resize=(32,), crop=(32, 28), resample=3, scale=1 / 255, mean=(0.0,) * 3, std=(1.0,) * 3,
    fast_decode=True,
)  # fmt: skip


# Of the reasons in docs/reference.md, those that a picture's bytes may have. Not decoder_error,
# which is a defect of ours, nor decoder_died and decoder_timeout, which these pictures don't earn.
REASONS = {"empty", "too_large", "not_an_image", "unreadable_image", "decoder_memory"}


# Real pictures.


def several(format: str, mode: str = "RGB", **options: Any) -> bytes:
    """A picture of three frames."""
    first, *others = (noise(n, 40, 30).convert(mode) for n in (1, 2, 3))
    return encoded(first, format, save_all=True, append_images=others, **options)


def single(format: str, mode: str = "RGB", **options: Any) -> bytes:
    return encoded(noise(1, 40, 30).convert(mode), format, **options)


@cache
def real_pictures() -> dict[str, bytes]:
    """Small pictures of every format, with what it can have beside pixels."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "description"
    exif.get_ifd(0x8769)[0x9000] = b"0231"
    texts = PngInfo()
    texts.add_text("plain", "text" * 20)
    texts.add_text("packed", "text" * 99, zip=True)
    texts.add_itxt("international", "text" * 99, zip=True)
    texts.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    profile = bytes(range(200))
    return {
        "JPEG": single("JPEG", exif=exif, icc_profile=profile),
        "JPEG, progressive CMYK": single("JPEG", "CMYK", progressive=True),
        "JPEG, several": several("MPO"),
        "PNG": single("PNG", pnginfo=texts),
        "PNG, palette": single("PNG", "P", transparency=0, exif=exif, icc_profile=profile),
        "PNG, several": several("PNG"),
        "WEBP": single("WEBP", exif=exif),
        "WEBP, lossless": single("WEBP", "RGBA", lossless=True),
        "WEBP, several": several("WEBP", icc_profile=profile),
        "GIF": single("GIF", "P", transparency=3, comment=b"comment"),
        "GIF, several": several("GIF", "P"),
        "AVIF": single("AVIF", exif=exif),
        "AVIF, several": several("AVIF"),
        "BMP": single("BMP"),
        "BMP, palette": single("BMP", "P"),
        "TIFF": single("TIFF", exif=exif),
        "TIFF, JPEG": single("TIFF", compression="jpeg"),
        "TIFF, LZW": single("TIFF", "RGBA", compression="tiff_lzw"),
        "TIFF, fax": single("TIFF", "1", compression="group4"),
        "TIFF, big": single("TIFF", "F", big_tiff=True, compression="tiff_deflate"),
        "TIFF, several": several("TIFF"),
        "HEIF": single("HEIF", exif=exif),
        "HEIF, several": several("HEIF", thumbnails=[16]),
    }


def with_checksums(data: bytes) -> bytes:
    """A PNG with each chunk's checksum made right, so that its reader gets beyond it."""
    if not data.startswith(b"\x89PNG"):
        return data
    png, at = bytearray(data), 8
    while at + 12 <= len(png):
        end = at + 8 + int.from_bytes(png[at : at + 4], "big")
        if end + 4 > len(png):
            break
        png[end : end + 4] = struct.pack(">I", zlib.crc32(png[at + 4 : end]))
        at = end + 4
    return bytes(png)


# The promise.


def standing() -> tuple[int, int]:
    """How many descriptors this process has, and how many processes are below it."""
    gc.collect()  # a batch's memory has a descriptor, and its errors refer to each other
    process = psutil.Process()
    return process.num_fds(), len(process.children(recursive=True))


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    """For all of the module; after all of it, as much stands as before."""
    limits = {"max_image_bytes": MAX_BYTES, "max_image_pixels": MAX_PIXELS}
    decoders = Decoders(Settings.load({}, **limits), 1)
    try:
        decoders.warm_up()
        before = standing()
        yield decoders
        decoders.warm_up()
        assert standing() == before
    finally:
        decoders.stop()


@cache
def good_pictures() -> list[tuple[bytes, Pixels]]:
    """Pictures, and what they come out as with no other beside them."""
    made = [jpeg(1), single("PNG", "RGBA"), single("WEBP"), single("AVIF"), single("TIFF")]
    alone = [decode(data, None, PREPROCESSING, LIMITS) for data in made]
    return [
        (data, each) for data, each in zip(made, alone, strict=True) if isinstance(each, Pixels)
    ]


def survived(decoders: Decoders, hostile: Sequence[bytes]) -> list[Pixels | Refused]:
    """What becomes of hostile pictures, each with a good one before it and one after it."""
    good = [good_pictures()[n % len(good_pictures())] for n in range(len(hostile) + 1)]
    given = chain.from_iterable(zip_longest((data for data, _ in good), hostile))
    pictures = [Picture(data, None) for data in given if data is not None]
    outcomes = decoders.decode(pictures, PREPROCESSING)
    for (_, expected), outcome in zip(good, outcomes[::2], strict=True):
        assert isinstance(outcome, Pixels), outcome
        assert outcome.hash == expected.hash
        np.testing.assert_array_equal(outcome.array, expected.array)
    for outcome in outcomes[1::2]:
        if isinstance(outcome, Pixels):
            assert outcome.array.shape == (32, 28, 3)
            assert outcome.array.dtype == np.uint8
        else:
            assert outcome.reason in REASONS, outcome
    return outcomes[1::2]


def chunk(name: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(name + body)
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", checksum)
