"""What the wheel holds."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support.databases import run_sql, with_database
from support.places import ROOT

from pgclip.local import LocalServices


@pytest.fixture
def unpacked_wheel(wheel: Path, tmp_path: Path) -> Path:
    """The built wheel as it lies in site-packages."""
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    return tmp_path / "site"


def test_the_wheel_holds_the_packages_and_the_migrations(unpacked_wheel: Path) -> None:
    for name in ("pgclip/py.typed", "pgclip_workers/main.py", "pgclip/migrations/env.py"):
        assert (unpacked_wheel / name).is_file()
    for file in (ROOT / "migrations").rglob("*.sql"):
        inside = file.relative_to(ROOT / "migrations")
        assert (unpacked_wheel / "pgclip" / "migrations" / inside).is_file()
    for file in (ROOT / "web" / "pgclip_web").rglob("*.*"):
        if file.suffix != ".pyc":
            assert (unpacked_wheel / file.relative_to(ROOT / "web")).is_file()
    assert not (unpacked_wheel / "tests").exists()


def test_migrate_works_from_an_installed_wheel(
    unpacked_wheel: Path, services: LocalServices, tmp_path: Path
) -> None:
    run_sql(services.database_url, "CREATE DATABASE from_wheel")
    url = with_database(services.database_url, "from_wheel")
    environ = {**os.environ, "PYTHONPATH": str(unpacked_wheel), "PGCLIP_DATABASE_URL": url}
    code = "import pgclip.cli; print(pgclip.__file__); pgclip.cli.main(['migrate'])"
    run = subprocess.run(
        [sys.executable, "-c", code], env=environ, cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[0] == str(unpacked_wheel / "pgclip" / "__init__.py")
    assert run_sql(url, "SELECT count(*) FROM pgclip.items") == [(0,)]
