"""Renews constraints.txt: the newest versions that go together, with the torch that is pinned.

Nothing is installed: pip resolves as for an empty environment. Run by `make constraints`.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILE = ROOT / "constraints.txt"
EXTRAS = "worker,local,dev,gcs"  # all that the Makefile and the Dockerfile install
HEADER = """\
# What the tests and the images run with; renewed by make constraints. torch is pinned so that an
# open range never picks another build: its version is changed here, by hand.
"""


def resolved(torch: str) -> dict[str, str]:
    """The version of each distribution, by its name."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    wanted = [torch, f"--editable={ROOT}[{EXTRAS}]"]
    report = subprocess.run(
        [*pip, "--dry-run", "--ignore-installed", "--report", "-", *wanted],
        check=True,
        stdout=subprocess.PIPE,
    )
    found = [item["metadata"] for item in json.loads(report.stdout)["install"]]
    return {
        re.sub(r"[-_.]+", "-", about["name"]).lower(): about["version"].split("+")[0]
        for about in found
    }


def write(versions: dict[str, str]) -> None:
    """Writes the file: torch first, then the others by name."""
    names = sorted(versions.keys() - {"pgclip", "torch"})
    lines = [f"{name}=={versions[name]}\n" for name in ["torch", *names]]
    FILE.write_text(HEADER + "".join(lines))


if __name__ == "__main__":
    (pinned,) = re.findall(r"^torch==.*$", FILE.read_text(), re.MULTILINE)
    write(resolved(pinned))
