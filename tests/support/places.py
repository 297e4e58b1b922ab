"""Where things lie."""

from pathlib import Path

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
DEMO_MODEL = ROOT / "demo" / "model"
