"""The short form of `make chaos`: real services, workers and submitters, a fault of each kind."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHAOS = Path(__file__).parent


@pytest.mark.timeout(900)
def test_nothing_is_lost_under_faults(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = [sys.executable, str(CHAOS), "--seed", "7", "--faults", "33"]
    done = subprocess.run(
        [*command, "--report", str(report), "--keep", str(tmp_path / "run")],
        capture_output=True,
        text=True,
    )
    assert report.exists(), done.stdout[-5000:] + done.stderr[-5000:]
    found = json.loads(report.read_text())
    assert done.returncode == 0, {name: found[name] for name in ("examples", "troubles", "faults")}
    assert found["faults_injected"] == 33
    assert found["kinds_of_faults"] >= 30
    assert found["items_accepted"] > 500
