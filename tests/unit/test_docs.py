"""The docs name what is there: settings, methods, commands, metrics, links."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest
import typer
from support.documents import README, REFERENCE
from support.places import ROOT

import pgclip
from pgclip.cli import main
from pgclip.cli.app import app_for
from pgclip.settings import Settings


def test_every_setting_is_documented_with_its_default() -> None:
    documented = dict(re.findall(r"^\| `(PGCLIP_\w+)` \| (.*?) \|", REFERENCE, re.MULTILINE))
    assert set(documented) == {f"PGCLIP_{field.name.upper()}" for field in fields(Settings)}
    for field in fields(Settings):
        default = str(field.default)
        if isinstance(field.default, tuple):
            default = ",".join(field.default)
        if isinstance(field.default, bool):
            default = "on" if field.default else "off"
        assert documented[f"PGCLIP_{field.name.upper()}"] == default


def test_every_method_and_reason_is_documented() -> None:
    for name in dir(pgclip.Client):
        if not name.startswith("_") and name != "close":
            assert f"`{name}(" in REFERENCE, name
    workers = "".join(file.read_text() for file in (ROOT / "workers").rglob("*.py"))
    reasons = set(re.findall(r'(?:Refused|Failure)\(\s*"(\w+)"', workers)) | {"worker_died"}
    assert len(reasons) > 12
    documented = set(re.findall(r"`(\w+)`", REFERENCE.split("## Reasons for failure")[1]))
    assert reasons <= documented


def test_every_command_and_option_is_documented() -> None:
    rows = dict(
        re.findall(r"^\| `pgclip ([a-z ]+)(?: [A-Z].*?)?` \| (.*?) \|", REFERENCE, re.MULTILINE)
    )
    found = dict(commands(typer.main.get_command(app_for([]))))
    assert rows.keys() == found.keys()
    common = {"--database-url", "--redis-url", "--json", "--help"}
    for name, options in found.items():
        documented = set(re.findall(r"`(-.*?)`", rows[name]))
        assert documented == {max(names, key=len) for names in options} - common, name


def commands(group: Any, prefix: str = "") -> Iterator[tuple[str, list[list[str]]]]:
    """Every command's name, with the spellings of each of its options."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        if not getattr(command, "commands", None) or command.invoke_without_command:
            options = [p for p in command.params if p.param_type_name == "option"]
            spellings = [p.opts for p in options] + [p.secondary_opts for p in options]
            yield prefix + name, [names for names in spellings if names]


def test_every_metric_is_documented() -> None:
    code = (ROOT / "workers" / "pgclip_workers" / "telemetry" / "metrics.py").read_text()
    names = set(re.findall(r'"(pgclip_\w+)"', code))
    documented = set(re.findall(r"`(pgclip_\w+)`", REFERENCE.split("## Metrics")[1]))
    assert {re.sub("_(total|info)$", "", name) for name in documented} == names


SHELL = [
    line.strip()
    for name in (
        "README.md",
        "docs/quickstart.md",
        "docs/how-to.md",
        "docs/search.md",
        "docs/change-the-model.md",
    )
    for line in (ROOT / name).read_text().splitlines()
]


@pytest.mark.parametrize("line", [line for line in SHELL if re.match(r"(\w+=\S+ )*pgclip ", line)])
def test_the_commands_in_the_docs_are_ones(line: str) -> None:
    words = shlex.split(line, comments=True)
    words = words[words.index("pgclip") + 1 :]
    found = dict(commands(typer.main.get_command(app_for([]))))
    name = " ".join(words[:2]) if " ".join(words[:2]) in found else words[0]
    options = [option for names in found[name] for option in names]
    assert {word for word in words if word.startswith("-")} <= set(options)


def test_links_lead_somewhere() -> None:
    for file in [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *ROOT.glob("*/README.md")]:
        for target in re.findall(r"\]\(([^)#]+)", file.read_text()):
            if "://" not in target:
                assert (file.parent / target).exists(), (file, target)


def test_the_commands_that_the_readme_names_exist() -> None:
    for command in re.findall(r"^ +.*?pgclip (\w+)", README, re.MULTILINE):
        assert main([command, "--help"]) == 0
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"make (\w+)", README)
    assert {"demo", "test", "bench"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
