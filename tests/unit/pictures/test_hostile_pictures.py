"""Pictures made to hurt: sizes, bombs, junk, loops, many frames."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image
from support.damaged import (
    LIMITS,
    MAX_BYTES,
    PREPROCESSING,
    chunk,
    good_pictures,
    real_pictures,
    single,
    standing,
    survived,
    with_checksums,
)
from support.pictures import encoded, noise
from support.processes import eventually

from pgclip.settings import Settings
from pgclip_workers.pictures.decode import Picture, Pixels, decode
from pgclip_workers.pictures.decoders import Decoders
from pgclip_workers.pictures.refused import Refused

pillow_heif.register_heif_opener()
FORMATS = Settings().formats  # the default


def outcome_of(decoders: Decoders, hostile: bytes) -> Pixels | Refused:
    (outcome,) = survived(decoders, [hostile])
    return outcome


def reason(outcome: Pixels | Refused) -> str | None:
    return outcome.reason if isinstance(outcome, Refused) else None


# Bombs: small files that ask for much.


def overwritten(name: str, at: bytes | int, offset: int, field: bytes) -> bytes:
    """A real picture with other bytes some way behind a place or a mark."""
    data = real_pictures()[name]
    start = (at if isinstance(at, int) else data.index(at)) + offset
    return data[:start] + field + data[start + len(field) :]


def png_with(*chunks: bytes) -> bytes:
    data = real_pictures()["PNG"]
    return data[:33] + b"".join(chunks) + data[33:]


def directory(entries: dict[int, int], following: int) -> bytes:
    """A TIFF's directory: the values of tags, and where the next directory is."""
    fields = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(entries.items())]
    return struct.pack("<H", len(fields)) + b"".join(fields) + struct.pack("<I", following)


GREY_TIFF = {256: 40, 257: 30, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 30, 279: 1200}
AFTER_PIXELS = 8 + 1200  # where the directory of a grey TIFF is


def tiff(following: int = 0, **tags: int) -> bytes:
    """A grey TIFF; tags are given as t256=…"""
    entries = GREY_TIFF | {int(name[1:]): value for name, value in tags.items()}
    header = b"II*\0" + struct.pack("<I", AFTER_PIXELS)
    return header + bytes(1200) + directory(entries, following)


# What says in each format's header how large the picture is.
HEADERS: dict[str, Callable[[int, int], bytes]] = {
    "JPEG": lambda w, h: overwritten("JPEG", b"\xff\xc0", 5, struct.pack(">HH", h, w)),
    "PNG": lambda w, h: with_checksums(overwritten("PNG", 16, 0, struct.pack(">II", w, h))),
    "WEBP": lambda w, h: overwritten(
        "WEBP, several", b"VP8X", 12, (w - 1).to_bytes(3, "little") + (h - 1).to_bytes(3, "little")
    ),
    "GIF": lambda w, h: overwritten("GIF", 6, 0, struct.pack("<HH", w, h)),
    "AVIF": lambda w, h: overwritten("AVIF", b"ispe", 8, struct.pack(">II", w, h)),
    "BMP": lambda w, h: overwritten("BMP", 18, 0, struct.pack("<II", w, h)),
    "TIFF": lambda w, h: tiff(t256=w, t257=h),
}


assert set(HEADERS) == set(FORMATS)


@pytest.mark.parametrize("format", FORMATS)
def test_the_header_s_size_is_refused_before_pixels(decoders: Decoders, format: str) -> None:
    """There are hardly any pixels: who looks for them finds another reason to refuse."""
    times = 8 if format == "JPEG" else 1  # which is decoded at an eighth
    outcome = outcome_of(decoders, HEADERS[format](1001 * times, 1000 * times))
    assert reason(outcome) == "too_large"
    widest = {"JPEG": 2**16, "GIF": 2**16, "WEBP": 2**24, "BMP": 2**31}.get(format, 2**32) - 1
    for width, height in ((widest, widest), (widest, 1), (1, widest)):
        assert isinstance(outcome_of(decoders, HEADERS[format](width, height)), Refused)


@pytest.mark.parametrize("format", [*FORMATS, "HEIF"])
def test_a_blank_picture_of_many_pixels_is_refused(decoders: Decoders, format: str) -> None:
    side = 8 * 1024 if format == "JPEG" else 1024  # which is decoded at an eighth
    blank = Image.new("L" if format == "TIFF" else "RGB", (side, side))
    options = {"compression": "tiff_deflate"} if format == "TIFF" else {}
    data = encoded(blank, format, **options)
    assert reason(outcome_of(decoders, data)) == "too_large"


def test_a_file_of_many_bytes_is_refused(decoders: Decoders) -> None:
    data = single("BMP")
    assert isinstance(outcome_of(decoders, data.ljust(MAX_BYTES, b"\0")), Pixels)
    assert reason(outcome_of(decoders, data.ljust(MAX_BYTES + 1, b"\0"))) == "too_large"


ZEROS = zlib.compress(bytes(2**28), 9)
MEGABYTE = zlib.compress(bytes(2**20 - 1), 9)


@pytest.mark.parametrize(
    "chunks",
    [
        [chunk(b"iCCP", b"name\0\0" + ZEROS)],
        [chunk(b"zTXt", b"name\0\0" + ZEROS)],
        [chunk(b"iTXt", b"name\0\1\0\0\0" + ZEROS)],
        [chunk(b"zTXt", b"%d\0\0" % n + MEGABYTE) for n in range(200)],
    ],
    ids=["profile", "text", "international text", "many texts"],
)
def test_metadata_that_would_unpack_to_much_are_left_packed(
    decoders: Decoders, chunks: list[bytes]
) -> None:
    assert isinstance(outcome_of(decoders, png_with(*chunks)), Pixels)


def test_an_orientation_that_unpacks_to_much_is_refused(decoders: Decoders) -> None:
    packed = zlib.compress(bytes(2**25), 9)
    assert len(packed) < 2**16
    turned = chunk(b"zTXt", b"Raw profile type exif\0\0" + packed)
    assert reason(outcome_of(decoders, png_with(turned))) == "unreadable_image"


@pytest.mark.parametrize(
    "data",
    [
        tiff(AFTER_PIXELS),
        tiff(2**31),
        tiff(t34665=AFTER_PIXELS, t34853=AFTER_PIXELS, t40965=AFTER_PIXELS, t330=AFTER_PIXELS),
        tiff(t274=99),
        tiff(t274=2**32 - 1),
        tiff(t34665=2**32 - 1),
    ],
    ids=["next is itself", "next is nowhere", "parts are itself", "orientation 99",
         "orientation 4294967295", "EXIF is nowhere"],
)  # fmt: skip
def test_a_tiff_that_leads_astray_is_read_where_it_can_be(decoders: Decoders, data: bytes) -> None:
    survived(decoders, [data])


# It lies on its side, and its TileWidth is a text: a directory that can't be written again.
MIXED_UP = directory({0x0112: 6, 0x0142: 0}, 0).replace(b"\x42\1\4", b"\x42\1\2")


@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"junk" * 9,
        b"Exif\0\0II*\0",
        b"II*\0\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0" + MIXED_UP,
    ],
    ids=["none", "junk", "cut off", "nowhere", "mixed up"],
)
def test_exif_that_is_junk(decoders: Decoders, exif: bytes) -> None:
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 8) + b"Exif\0\0" + exif
    data = single("JPEG")
    for picture in (data[:2] + segment + data[2:], png_with(chunk(b"eXIf", exif))):
        assert isinstance(outcome_of(decoders, picture), Pixels)


OTHERS = ["PPM", "EPS", "PDF", "ICO", "ICNS", "PCX", "DDS", "JPEG2000", "SGI", "TGA", "DIB"]


@pytest.mark.parametrize("format", OTHERS)
def test_other_formats_are_no_pictures(decoders: Decoders, format: str) -> None:
    assert reason(outcome_of(decoders, encoded(noise(1, 64, 64), format))) == "not_an_image"


@pytest.mark.parametrize(
    "data",
    [
        b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 64, 64, 8, 3) + bytes(64 * 64 * 3 + 14),
        b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'><rect/></svg>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n(%pipe%id) (r) file\n",
        b"PK\3\4" + single("PNG"),
    ],
    ids=["PSD", "SVG", "PostScript", "a picture in an archive"],
)
def test_other_files_are_no_pictures(decoders: Decoders, data: bytes) -> None:
    assert reason(outcome_of(decoders, data)) == "not_an_image"


# Frames.

SEVERAL = [name for name in real_pictures() if name.endswith("several")]


@pytest.mark.parametrize("name", SEVERAL)
def test_of_several_frames_only_the_first_is_looked_for(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = real_pictures()[name]
    image = Image.open(io.BytesIO(data))
    assert image.n_frames == 3
    asked: set[int] = set()

    def noted(seek: Callable[..., None]) -> Callable[..., None]:
        def note(image: Image.Image, frame: int, *rest: Any) -> None:
            asked.add(frame)
            seek(image, frame, *rest)

        return note

    for method in ("seek", "_seek"):
        if hasattr(image, method):
            monkeypatch.setattr(type(image), method, noted(getattr(type(image), method)))
    assert isinstance(decode(data, None, PREPROCESSING, LIMITS), Pixels)
    assert asked <= {0}


def many_frames() -> dict[str, bytes]:
    gif, png, webp = (real_pictures()[f"{name}, several"] for name in ("GIF", "PNG", "WEBP"))
    last = gif[gif.rindex(b"!\xf9\x04") : -1]
    frame = webp[webp.rindex(b"ANMF") :]
    frames = webp[8:] + frame * 1000
    control = png[png.rindex(b"fcTL") - 4 : -12]
    chain = [directory(GREY_TIFF, AFTER_PIXELS + (n + 1) * 114) for n in range(20_000)]
    assert len(tiff()) == AFTER_PIXELS + 114
    return {
        "GIF": gif[:-1] + last * 2000 + b";",
        "PNG": with_checksums(
            overwritten("PNG, several", b"acTL", 4, b"\0\0\x10\0")[:-12]
            + control * 1000
            + png[-12:]
        ),
        "WEBP": b"RIFF" + struct.pack("<I", len(frames)) + frames,
        "TIFF": tiff()[:AFTER_PIXELS] + b"".join(chain),
    }


@pytest.mark.parametrize("name", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_many_frames_the_first_counts(decoders: Decoders, name: str) -> None:
    few = tiff() if name == "TIFF" else real_pictures()[f"{name}, several"]
    expected, found = survived(decoders, [few, many_frames()[name]])
    assert isinstance(expected, Pixels)
    assert isinstance(found, Pixels), found
    np.testing.assert_array_equal(found.array, expected.array)


# Memory and time.


def test_a_refused_picture_leaves_its_memory_to_the_next() -> None:
    """Each takes an eighth of a process's memory, and they are one task's."""
    side = 8000
    size = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"\0"))
    good = encoded(Image.new("L", (side, side)), "PNG", compress_level=1)
    decoders = Decoders(Settings.load({}, decoder_memory=2**31), 1)
    try:
        *refused, last = decoders.decode(
            [Picture(bomb, None)] * 7 + [Picture(good, None)], PREPROCESSING
        )
    finally:
        decoders.stop()
    assert {reason(each) for each in refused} == {"unreadable_image"}
    assert isinstance(last, Pixels), last


def test_a_picture_that_takes_too_long_is_given_up() -> None:
    """A progressive JPEG may pass over its pixels as often as it likes."""
    data = encoded(Image.new("RGB", (990, 990), "red"), progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    bomb = data[:-2] + scan * 50_000 + data[-2:]
    decoders = Decoders(Settings.load({}, decode_timeout=2), 1)
    try:
        decoders.warm_up()
        before = standing()
        (good, expected), *_ = good_pictures()
        pictures = [Picture(each, None) for each in (good, bomb, good)]
        first, slow, last = decoders.decode(pictures, PREPROCESSING)
        assert reason(slow) == "decoder_timeout"
        for each in (first, last):
            assert isinstance(each, Pixels)
            np.testing.assert_array_equal(each.array, expected.array)
        del first, last, each
        decoders.warm_up()
        eventually(lambda: standing() == before)  # beside tests that have processes, too
    finally:
        decoders.stop()
