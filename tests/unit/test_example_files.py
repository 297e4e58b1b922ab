"""What the examples' files promise."""

import json
import re
from importlib.metadata import version

from packaging.requirements import Requirement
from support.examples import (
    EXAMPLES,
    README,
    commands,
)
from support.places import ROOT

# All of them


def test_the_readme_names_what_is_there() -> None:
    shown = {path.name for path in EXAMPLES.iterdir() if path.name != "README.md"}
    linked = set(re.findall(r"\]\(([^)/]+)", README)) - {"..", "http:"}
    assert linked == shown - {"__pycache__", ".ruff_cache"}
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert (EXAMPLES / target).exists(), target
    for line in commands():
        for path in re.findall(r"(?:examples|demo)/[\w./-]+", line):
            assert (ROOT / path).exists(), line
    for target in re.findall(r"^make (\w+)", "\n".join(commands()), re.MULTILINE):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_examples_use_public_names_only() -> None:
    import pgclip

    for file in EXAMPLES.rglob("*.py"):
        source = file.read_text()
        for names in re.findall(r"from pgclip import (\([^)]*\)|.*)", source):
            assert set(re.findall(r"\w+", names)) <= set(pgclip.__all__), file
        assert not re.search(r"(from|import) pgclip\.", source), file
    for file in [*EXAMPLES.rglob("*.sql"), EXAMPLES / "node" / "store.js"]:
        assert not re.search(r"pgclip\._", file.read_text()), file


def test_the_lock_file_names_no_host() -> None:
    lock = (EXAMPLES / "node" / "package-lock.json").read_text()
    assert "://" not in lock
    assert json.loads(lock)["packages"][""]["dependencies"] == {"pg": "^8.13.0"}


def test_what_examples_require_is_what_they_are_tested_with() -> None:
    files = list(EXAMPLES.glob("*/requirements.txt"))
    assert len(files) == 2
    for file in files:
        for requirement in map(Requirement, file.read_text().splitlines()):
            assert version(requirement.name) in requirement.specifier, requirement
