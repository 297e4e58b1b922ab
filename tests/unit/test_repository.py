"""What people expect of a repository that they fork: the workflow, the hooks, the commands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.places import ROOT, TESTS

MAKEFILE = (ROOT / "Makefile").read_text()
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", MAKEFILE, re.MULTILINE))


def python(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True
    )


def test_the_workflow_is_valid() -> None:
    told = python("check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(WORKFLOW))
    assert told.returncode == 0, told.stdout


def test_the_workflow_tests_what_is_supported() -> None:
    jobs = yaml.safe_load(WORKFLOW.read_text())["jobs"]
    matrix = jobs["test"]["strategy"]["matrix"]
    assert set(matrix["python"]) == {"3.11", "3.12", "3.13"}
    assert {*matrix["postgres"], *(each["postgres"] for each in matrix["include"])} == {"16", "18"}
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert {"make check", "make dist"} <= set(commands)
    for command in commands:
        assert not command.startswith("make ") or command.split()[1] in TARGETS


def test_the_hooks_are_valid_and_run_what_is_installed() -> None:
    assert python("pre_commit", "validate-config").returncode == 0
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    entries = [hook["entry"].split() for repo in config["repos"] for hook in repo["hooks"]]
    for program, *arguments in entries:
        assert (Path(sys.executable).parent / Path(program).name).exists()
        for argument in arguments:
            assert not argument.startswith("tests/") or (ROOT / argument).is_file()


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_the_commands_that_pages_name_exist(page: str) -> None:
    named = re.findall(r"\bmake ([a-z][a-z-]+)", (ROOT / page).read_text())
    assert len(named) > 1
    assert set(named) <= TARGETS


def test_benchmarks_import_what_they_mean() -> None:
    """Some read the demo's modules, which stand before their own on the path."""
    names = [{path.stem for path in (ROOT / room).glob("*.py")} for room in ("benchmarks", "demo")]
    assert not set.intersection(*names)


def test_every_target_that_makes_no_file_is_phony() -> None:
    (phony,) = re.findall(r"^\.PHONY:((?:.*\\\n)*.*)$", MAKEFILE, re.MULTILINE)
    assert set(phony.replace("\\", "").split()) == TARGETS


@pytest.mark.parametrize("room", ["unit", "integration", "acceptance"])
def test_no_file_of_tests_has_grown_past_its_subject(room: str) -> None:
    lengths = {file: file.read_text().count("\n") for file in (TESTS / room).rglob("*.py")}
    assert lengths
    assert [file for file, length in lengths.items() if length > 500] == []
