"""A container takes a GPU that no other has."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.deployment import (
    KUSTOMIZATION,
    ONE_GPU,
    WORKERS,
    dockerfile,
    the,
)
from support.places import ROOT

# GPUs


@pytest.fixture
def one_gpu() -> ModuleType:
    spec = importlib.util.spec_from_file_location("one_gpu", ONE_GPU)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HOLD = """
import sys, time
sys.path.insert(0, sys.argv[1])
import pathlib, os, one_gpu
print(one_gpu.take_place(pathlib.Path(sys.argv[2])), flush=True)
os.execvp("sleep", ["sleep", "600"])
"""


def test_each_worker_has_a_place_until_it_ends(tmp_path: Path) -> None:
    def start() -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", HOLD, str(ONE_GPU.parent), str(tmp_path / "places")]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def place(process: "subprocess.Popen[str]") -> int:
        assert process.stdout
        return int(process.stdout.readline())

    processes = [start() for _ in range(4)]
    try:
        places = [place(process) for process in processes]
        assert sorted(places) == [0, 1, 2, 3]
        processes[1].kill()
        processes[1].wait()
        processes.append(start())
        assert place(processes[-1]) == places[1]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@pytest.mark.parametrize(
    ("devices", "environ", "chosen"),
    [
        (["nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"], {}, "0"),
        (["nvidia0", "nvidia1"], {"PGCLIP_DEVICE": "cuda:1"}, None),
        (["nvidia0", "nvidia1"], {"CUDA_VISIBLE_DEVICES": "1"}, "1"),
        (["nvidia3"], {}, None),
        (["null"], {}, None),
    ],
)
def test_a_gpu_is_chosen_where_there_is_a_choice(
    one_gpu: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    devices: list[str],
    environ: dict[str, str],
    chosen: str | None,
) -> None:
    started: list[Any] = []
    monkeypatch.setattr(os, "listdir", lambda _: devices)
    monkeypatch.setattr(os, "execvp", lambda *command: started.append(command))
    monkeypatch.setattr(os, "environ", {"HF_HOME": str(tmp_path), **environ})
    monkeypatch.setattr(sys, "argv", ["one_gpu.py", "pgclip", "worker"])
    one_gpu.main()
    assert started == [("pgclip", ["pgclip", "worker"])]
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == chosen


# Its README


def test_the_readme_is_about_what_is_there() -> None:
    text = (ROOT / "deploy" / "README.md").read_text()
    services = re.findall(r"--scale ([\w-]+)=\d", text)
    assert set(services) == set(WORKERS)
    targets = re.findall(r"--target (\w+) -t REGISTRY/([\w-]+):", text)
    assert targets
    for target, image in targets:
        assert target in dockerfile()
        assert image in {named["name"] for named in KUSTOMIZATION["images"]}
    for kind, name in re.findall(r"\b(job|deployment)[/ ](pgclip-\w+)", text):
        assert the(kind.capitalize())["metadata"]["name"] == name
    target = the("ScaledObject")["spec"]["triggers"][0]["metadata"]["targetQueryValue"]
    assert f"{int(target):,}" in text
