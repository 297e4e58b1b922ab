"""`make demo`, twice, as a new user runs it; it must leave nothing running."""

import json
import re
import subprocess
import sys

import psutil
from support.places import ROOT

PICTURES = json.loads((ROOT / "demo" / "pictures" / "pictures.json").read_text())
TEXTS = json.loads((ROOT / "demo" / "texts.json").read_text())


def test_the_demo_shows_what_it_promises_and_cleans_up() -> None:
    before = set(psutil.pids())
    for _ in range(2):
        run = subprocess.run(
            [sys.executable, "demo/demo.py"], cwd=ROOT, capture_output=True, text=True, timeout=240
        )
        assert run.returncode == 0, run.stderr
        indexed = f"{len(PICTURES)} pictures and {len(TEXTS)} texts indexed in"
        assert indexed in run.stdout
        assert run.stdout.count("Search for") == 4
        hits = re.findall(r"^ +(-?\d\.\d\d)  (?:image|text ) ", run.stdout, re.MULTILINE)
        assert len(hits) == 20
        assert "Zero-shot labels" in run.stdout
        assert "client.search(" in run.stdout
        assert "CALL pgclip.embed(" in run.stdout
    left = [
        process.info["cmdline"]
        for process in psutil.process_iter(["pid", "cmdline"])
        if process.info["pid"] not in before
        and any(
            ".pgclip/demo" in part or part == "worker" for part in process.info["cmdline"] or []
        )
    ]
    assert left == []
