"""Memory shared with decoding processes."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pgclip_workers.pictures.arena import Arena, Borrowed, Span


def test_both_sides_see_the_same_bytes() -> None:
    arena = Arena(100)
    given, free = arena.put(b"hello"), arena.reserve(12)
    with Borrowed(arena.address) as borrowed:
        assert borrowed.read(given) == b"hello"
        borrowed.write(free, np.arange(12, dtype=np.uint8).reshape(2, 2, 3))
    array = arena.array(free, (2, 2, 3))
    assert array.tolist() == np.arange(12).reshape(2, 2, 3).tolist()


def test_another_process_sees_them_until_it_is_sealed() -> None:
    arena = Arena(10)
    span = arena.put(b"hello")
    code = (
        "import sys; from pgclip_workers.pictures.arena import Address, Borrowed, Span\n"
        f"with Borrowed({arena.address!r}) as b: sys.stdout.buffer.write(b.read(Span(0, 5)))"
    )
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"hello"
    arena.seal()
    assert subprocess.run(command, capture_output=True).returncode != 0
    assert bytes(arena.array(span, (5,))) == b"hello"  # less than a page


def test_what_was_put_in_is_given_back() -> None:
    arena = Arena(10**6 + 100)
    given = arena.put(b"x" * 10**6)
    pixels = arena.reserve(100)
    with Borrowed(arena.address) as borrowed:
        borrowed.write(pixels, np.full(100, 7, np.uint8))
        used = os.stat(arena.address.path).st_blocks
        arena.seal()
        assert arena.array(pixels, (100,)).tolist() == [7] * 100
        assert borrowed.read(given)[:900_000] == bytes(900_000)
    assert used >= 10**6 // 512


def test_a_late_task_does_not_write_into_the_next_arena() -> None:
    first = Arena(10)
    first.seal()
    second = Arena(10)
    assert second.address.path == first.address.path
    with pytest.raises(FileNotFoundError, match="another arena"):
        Borrowed(first.address)


def test_nothing_is_written_beyond_a_span() -> None:
    arena = Arena(10)
    with Borrowed(arena.address) as borrowed, pytest.raises(ValueError, match="6 bytes"):
        borrowed.write(Span(0, 5), np.zeros(6, np.uint8))


def test_its_memory_goes_with_the_last_array() -> None:
    def mapped() -> int:
        with open("/proc/self/maps") as maps:
            return sum("memfd:pgclip" in line for line in maps)

    def opened() -> int:
        links = Path("/proc/self/fd").iterdir()
        return sum("memfd:pgclip" in os.readlink(link) for link in links if link.is_symlink())

    before, descriptors = mapped(), opened()
    arena = Arena(10**6)
    array = arena.array(arena.reserve(100), (10, 10))
    arena.seal()
    del arena
    gc.collect()
    assert mapped() == before + 1
    assert array.sum() == 0
    del array
    gc.collect()
    assert mapped() == before
    assert opened() == descriptors
