"""`make demo`, twice, as a new user runs it; it must leave nothing running."""

import json
import re
import subprocess
import sys
from uuid import uuid4

import psutil
from support.places import ROOT

PICTURES = json.loads((ROOT / "demo" / "pictures" / "pictures.json").read_text())
TEXTS = json.loads((ROOT / "demo" / "texts.json").read_text())


def test_the_demo_shows_what_it_promises_and_cleans_up() -> None:
    mark = f"PGCLIP_TEST_MARK={uuid4()}"
    for _ in range(2):
        run = subprocess.run(
            ["env", mark, sys.executable, "demo/demo.py"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert run.returncode == 0, run.stderr
        indexed = f"{len(PICTURES)} pictures and {len(TEXTS)} texts indexed in"
        assert indexed in run.stdout
        assert run.stdout.count("Search for") == 4
        hits = re.findall(r"^ +(-?\d\.\d\d)  (?:image|text ) ", run.stdout, re.MULTILINE)
        assert len(hits) == 20
        assert "weapon?" in run.stdout
        assert "client.search(" in run.stdout
        assert "CALL pgclip.embed(" in run.stdout
    # Servers have an environment of their own, and a folder by which they are known.
    assert [
        process.cmdline()
        for process in psutil.process_iter()
        if _says(process, mark) or ".pgclip/demo" in " ".join(_cmdline(process))
    ] == []


def _says(process: psutil.Process, mark: str) -> bool:
    name, _, value = mark.partition("=")
    try:
        return process.environ().get(name) == value
    except psutil.Error:
        return False


def _cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
