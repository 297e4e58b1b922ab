"""The images: what is copied, what runs, as whom."""

import fnmatch
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.deployment import (
    Stage,
    dockerfile,
)
from support.places import ROOT


def copied_from_repository(stages: dict[str, Stage]) -> list[str]:
    copies = [
        rest
        for stage in stages.values()
        for name, rest in stage.instructions
        if name == "COPY" and "--from" not in rest
    ]
    return [source for rest in copies for source in rest.split()[:-1]]


def in_build_context(path: str) -> bool:
    """Docker's rule: the last pattern that matches the path, or a folder it lies in, decides."""
    inside = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern = line.removeprefix("!").replace("**/", "*")
            parts = Path(path).parts
            parents = ["/".join(parts[: n + 1]) for n in range(len(parts))]
            if any(fnmatch.fnmatch(parent, pattern) for parent in parents):
                inside = line.startswith("!")
    return inside


def test_the_build_context_has_what_is_copied_and_no_more() -> None:
    sources = copied_from_repository(dockerfile())
    assert {"api", "workers", "migrations", "pyproject.toml", "README.md", "LICENSE"} <= {*sources}
    for source in sources:
        assert (ROOT / source).exists(), source
        assert in_build_context(source), source
    for secret in (".env", ".git", ".venv", "tests", "api/pgclip/__pycache__", "demo/model"):
        assert not in_build_context(secret), secret


def test_what_is_copied_is_enough_to_build_the_wheel(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    for name, rest in dockerfile()["wheel"].instructions:
        if name == "COPY":
            for source in rest.split()[:-1]:
                copy: Any = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
                copy(ROOT / source, tmp_path / "src" / source)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    subprocess.run([*command, "-w", str(tmp_path), str(tmp_path / "src")], check=True)
    assert list(tmp_path.glob("pgclip-*.whl"))


@pytest.mark.parametrize("target", ["client", "worker"])
def test_images_run_as_nobody_special_and_hear_signals(target: str) -> None:
    stage = dockerfile()[target]
    user = [rest for name, rest in stage.instructions if name == "USER"]
    assert user == ["10001:10001"]
    assert "--uid 10001 " in dockerfile()["base"].last("RUN")
    names = [name for name, _ in stage.instructions]
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert max(n for n, name in enumerate(names) if name in ("RUN", "COPY")) < names.index("USER")
    entrypoint = json.loads(stage.last("ENTRYPOINT"))  # a list: no shell between it and signals
    assert entrypoint[:2] == ["tini", "--"]
    assert entrypoint[-1] == "pgclip"
    assert isinstance(json.loads(stage.last("CMD")), list)


def test_no_compiler_is_installed() -> None:
    for stage in dockerfile().values():
        for name, rest in stage.instructions:
            assert not (name == "RUN" and re.search(r"build-essential|gcc|-dev\b", rest))
            if "pip install" in rest:
                assert "--only-binary :all:" in rest


def test_extras_of_the_images_exist() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    stages = dockerfile()
    (extras,) = [
        rest.removeprefix("EXTRAS=")
        for name, rest in stages["worker"].instructions
        if name == "ARG" and rest.startswith("EXTRAS=")
    ]
    assert "[cli]" in stages["client"].last("RUN")
    for extra in ("cli", *extras.split(",")):
        assert re.search(rf"^{extra} = \[", text, re.MULTILINE), extra
