"""The memory that a container, or the machine, has."""

from pathlib import Path

import psutil
import pytest

from pgclip.local.memory import usable_memory

EVERYTHING = psutil.virtual_memory().total


@pytest.fixture
def groups(tmp_path: Path) -> Path:
    (tmp_path / "cgroup").mkdir()
    return tmp_path / "cgroup"


def limit(folder: Path, text: str, name: str = "memory.max") -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"{text}\n")


def test_without_a_limit_it_is_the_machines(groups: Path, tmp_path: Path) -> None:
    assert usable_memory(groups, tmp_path / "nothing") == EVERYTHING
    limit(groups, "max")
    limit(groups, str(2**62), "memory/memory.limit_in_bytes")
    assert usable_memory(groups, tmp_path / "nothing") == EVERYTHING


@pytest.mark.parametrize("name", ["memory.max", "memory/memory.limit_in_bytes"])
def test_a_containers(groups: Path, tmp_path: Path, name: str) -> None:
    limit(groups, "1000000", name)
    assert usable_memory(groups, tmp_path / "nothing") == 1_000_000


def test_the_least_of_the_groups_that_we_are_in(groups: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("0::/system.slice/pgclip.service\n")
    limit(groups / "system.slice", "3000000")
    limit(groups / "system.slice" / "pgclip.service", "max")
    assert usable_memory(groups, own) == 3_000_000
    limit(groups / "system.slice" / "pgclip.service", "2000000")
    assert usable_memory(groups, own) == 2_000_000


def test_here() -> None:
    assert 2**27 < usable_memory() <= EVERYTHING
