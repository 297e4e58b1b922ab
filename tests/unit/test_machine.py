"""How many processors there are for us, and what a worker makes of them."""

import os
from pathlib import Path

import pytest

from pgclip_workers import machine


@pytest.fixture
def quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A planted cgroup's cpu.max, on a machine of 64 processors."""
    file = tmp_path / "cpu.max"
    monkeypatch.setattr(machine, "_QUOTAS", ((str(file), str(file)),))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    return file


@pytest.mark.parametrize(
    ("content", "processors"),
    [("max 100000", 64), ("400000 100000", 4), ("50000 100000", 1), ("150000 100000", 2), ("", 64)],
)
def test_a_container_has_what_its_quota_says(quota: Path, content: str, processors: int) -> None:
    quota.write_text(content)
    assert machine.processors() == processors


def test_the_older_cgroups(quota: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    period = quota.with_name("period")
    monkeypatch.setattr(machine, "_QUOTAS", ((str(quota), str(period)),))
    assert machine.processors() == 64
    quota.write_text("-1\n")
    period.write_text("100000\n")
    assert machine.processors() == 64
    quota.write_text("800000\n")
    assert machine.processors() == 8


def test_affinity_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_QUOTAS", ())
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 4, 5}, raising=False)
    assert machine.processors() == 3


@pytest.mark.parametrize(
    ("gpus", "device", "decoders"),
    [(0, "auto", 64), (0, "cpu", 64), (1, "auto", 62), (8, "cuda:1", 6), (1, "cpu", 64)],
)
def test_decoding_processes(
    quota: Path, monkeypatch: pytest.MonkeyPatch, gpus: int, device: str, decoders: int
) -> None:
    monkeypatch.setattr(Path, "glob", lambda *_: iter(range(gpus)))
    assert machine.decoding_processes(device) == decoders


def test_it_is_never_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "processors", lambda: 1)
    assert machine.decoding_processes("cpu") == machine.decoding_processes("cuda") == 1
