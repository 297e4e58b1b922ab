"""Hostile pictures through the real decoding processes: each is pixels or a refusal by reason.

Good pictures stand between the hostile ones, and must come out as they do alone. The examples are
the same in every run.
"""

import gc
import io
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import chain, zip_longest
from typing import Any

import numpy as np
import pillow_heif
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures import encoded, jpeg, noise
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pgclip.settings import Settings
from pgclip_workers.pictures.decode import FORMATS, Picture, Pixels, decode
from pgclip_workers.pictures.decoders import Decoders
from pgclip_workers.pictures.preprocessing import Preprocessing
from pgclip_workers.pictures.refused import Refused
from pgclip_workers.pictures.sources import Limits

pillow_heif.register_heif_opener()

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


# Mutations.

EXTREMES = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 2**31 - 1, 2**31, 2**32 - 1]


def pieces(data: bytes) -> list[bytes]:
    """A picture cut at what looks like a JPEG marker, a GIF block, a chunk or a box."""
    starts = rb"(?s)(?=\xff[\xc0-\xfe]|[\x21\x2c]|\0\0..[A-Za-z]{4}|[A-Z8]{3}[A-Z8 ])"
    return [piece for piece in re.split(starts, data) if piece]


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


def places(data: bytes) -> st.SearchStrategy[int]:
    """Somewhere; as often as not in the first bytes, where headers are."""
    last = max(0, len(data) - 1)
    return st.integers(0, min(last, 64)) | st.integers(0, last)


def flip(draw: st.DrawFn, data: bytes) -> bytes:
    changed = bytearray(data)
    for at in draw(st.lists(places(data), min_size=1, max_size=8)):
        changed[at] ^= 1 << draw(st.integers(0, 7))
    return bytes(changed)


def exaggerate(draw: st.DrawFn, data: bytes) -> bytes:
    """A field of the header becomes very large, very small, or off by a sign."""
    at, size = draw(places(data)), draw(st.sampled_from([1, 2, 3, 4, 8]))
    value: int = draw(st.sampled_from(EXTREMES)) % 256**size
    field = value.to_bytes(size, draw(st.sampled_from(["little", "big"])))
    return data[:at] + field + data[at + size :]


def truncate(draw: st.DrawFn, data: bytes) -> bytes:
    return data[: draw(places(data))]


def append(draw: st.DrawFn, data: bytes) -> bytes:
    return data + draw(st.binary(max_size=200))


def splice(draw: st.DrawFn, data: bytes) -> bytes:
    other = draw(st.sampled_from(list(real_pictures().values())))
    return data[: draw(places(data))] + other[draw(places(other)) :]


def repeat(draw: st.DrawFn, data: bytes) -> bytes:
    parts = pieces(data)
    at = draw(st.integers(0, len(parts) - 1))
    parts[at] *= draw(st.sampled_from([2, 3, 50]))
    return b"".join(parts)


def swap(draw: st.DrawFn, data: bytes) -> bytes:
    parts = pieces(data)
    one, other = draw(st.tuples(*[st.integers(0, len(parts) - 1)] * 2))
    parts[one], parts[other] = parts[other], parts[one]
    return b"".join(parts)


def drop(draw: st.DrawFn, data: bytes) -> bytes:
    parts = pieces(data)
    del parts[draw(st.integers(0, len(parts) - 1))]
    return b"".join(parts)


MUTATIONS = [flip, exaggerate, exaggerate, truncate, append, splice, repeat, swap, drop]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    data = draw(st.sampled_from(list(real_pictures().values())))
    for mutate in draw(st.lists(st.sampled_from(MUTATIONS), min_size=1, max_size=3)):
        if data:
            data = mutate(draw, data)
    return with_checksums(data) if draw(st.booleans()) else data


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


def outcome_of(decoders: Decoders, hostile: bytes) -> Pixels | Refused:
    (outcome,) = survived(decoders, [hostile])
    return outcome


def reason(outcome: Pixels | Refused) -> str | None:
    return outcome.reason if isinstance(outcome, Refused) else None


# Hypothesis.

FUZZ = settings(
    max_examples=500, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
SIGNATURES = [
    b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"RIFF\xff\0\0\0WEBPVP8X",
    b"GIF89a", b"BM", b"II*\0\x08\0\0\0", b"MM\0+\0\x08\0\0", b"\0\0\0\x1cftypavif",
    b"\0\0\0\x1cftypheic",
]  # fmt: skip


def test_every_format_is_there_and_is_read_as_it_is(decoders: Decoders) -> None:
    names = {name.split(",")[0] for name in real_pictures()}
    assert names == {*FORMATS, "HEIF"}
    for name, outcome in zip(
        real_pictures(), survived(decoders, list(real_pictures().values())), strict=True
    ):
        assert isinstance(outcome, Pixels), (name, outcome)


@FUZZ
@given(
    junk=st.lists(
        st.builds(bytes.__add__, st.sampled_from(SIGNATURES), st.binary(max_size=300)),
        min_size=6, max_size=6,
    )
)  # fmt: skip
def test_arbitrary_bytes(decoders: Decoders, junk: list[bytes]) -> None:
    survived(decoders, junk)


@FUZZ
@given(hostile=st.lists(mutated(), min_size=6, max_size=6))
def test_mutated_pictures(decoders: Decoders, hostile: list[bytes]) -> None:
    survived(decoders, hostile)


# Bombs: small files that ask for much.


def overwritten(name: str, at: bytes | int, offset: int, field: bytes) -> bytes:
    """A real picture with other bytes some way behind a place or a mark."""
    data = real_pictures()[name]
    start = (at if isinstance(at, int) else data.index(at)) + offset
    return data[:start] + field + data[start + len(field) :]


def chunk(name: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(name + body)
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", checksum)


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
    outcome = outcome_of(decoders, HEADERS[format](1001, 1000))
    assert reason(outcome) == "too_large"
    widest = {"JPEG": 2**16, "GIF": 2**16, "WEBP": 2**24, "BMP": 2**31}.get(format, 2**32) - 1
    for width, height in ((widest, widest), (widest, 1), (1, widest)):
        assert isinstance(outcome_of(decoders, HEADERS[format](width, height)), Refused)


@pytest.mark.parametrize("format", [*FORMATS, "HEIF"])
def test_a_blank_picture_of_many_pixels_is_refused(decoders: Decoders, format: str) -> None:
    blank = Image.new("L" if format == "TIFF" else "RGB", (1024, 1024))
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
def test_metadata_that_unpack_to_much(decoders: Decoders, chunks: list[bytes]) -> None:
    assert reason(outcome_of(decoders, png_with(*chunks))) == "unreadable_image"


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
        assert standing() == before
    finally:
        decoders.stop()
