"""Real pictures of every format, damaged by hypothesis: each is refused in words or decoded."""

import re

import pillow_heif
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.damaged import (
    real_pictures,
    survived,
    with_checksums,
)

from pgclip.settings import Settings
from pgclip_workers.pictures.decode import Pixels
from pgclip_workers.pictures.decoders import Decoders

pillow_heif.register_heif_opener()


# Mutations.

EXTREMES = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 2**31 - 1, 2**31, 2**32 - 1]


def pieces(data: bytes) -> list[bytes]:
    """A picture cut at what looks like a JPEG marker, a GIF block, a chunk or a box."""
    starts = rb"(?s)(?=\xff[\xc0-\xfe]|[\x21\x2c]|\0\0..[A-Za-z]{4}|[A-Z8]{3}[A-Z8 ])"
    return [piece for piece in re.split(starts, data) if piece]


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
    assert names == {*Settings().formats, "HEIF"}
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
