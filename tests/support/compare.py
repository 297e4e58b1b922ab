"""What a change of the tests lost: tests, kinds of faults, examples of hypothesis.

    python tests/support/compare.py REVISION

Tests are compared by their names and parameters, wherever they stand: so they may move. What is
gone is printed, what is new is counted; the exit status says whether anything is gone.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]


def tests(root: Path) -> Counter[str]:
    """Tests by class, name and parameters."""
    environ = {**os.environ, "PYTHONPATH": f"{root / 'api'}:{root / 'workers'}:{root / 'tests'}"}
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "", "-p", "no:xdist"]
    told = subprocess.run(command, cwd=root, env=environ, capture_output=True, text=True)
    found = [line.partition("::")[2] for line in told.stdout.splitlines() if "::" in line]
    # Folders of the machine may stand in parameters.
    return Counter(name.replace(str(root), "") for name in found)


def faults(root: Path) -> Counter[str]:
    """Kinds of faults that chaos knows."""
    files = (root / "tests" / "chaos").glob("*.py")
    return Counter(
        name for file in files for name in re.findall(r'@fault\(\s*"([^"]+)"', file.read_text())
    )


def examples(root: Path) -> Counter[str]:
    """How many examples hypothesis tries, in each of the places that say so."""
    files = (root / "tests").rglob("*.py")
    found = [re.findall(r"max_examples=(\d+)", file.read_text()) for file in files]
    return Counter(number for numbers in found for number in numbers)


def main(revision: str) -> int:
    with tempfile.TemporaryDirectory() as folder:
        before = Path(folder) / "before"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", before, revision], check=True)
        try:
            gone = 0
            for what in (tests, faults, examples):
                then, now = what(before), what(ROOT)
                lost = then - now
                gone += lost.total()
                print(f"{what.__name__}: {then.total()} before, {now.total()} now, "
                      f"{lost.total()} gone, {(now - then).total()} new")  # fmt: skip
                for name in sorted(lost):
                    print(f"  gone: {name}")
        finally:
            subprocess.run([*git, "remove", "--force", before], check=True)
    return int(gone > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
