"""The built wheel in empty environments, as users install it: what is undeclared surfaces here."""

import os
import re
import subprocess
import tomllib
import venv
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.version import Version
from support.places import DEMO_MODEL, ROOT
from support.processes import QUICK, eventually

from pgclip import Client

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def installed(wheel: Path, tmp_path: Path) -> Callable[..., Path]:
    """Installs the wheel with extras into an empty environment; returns that one's bin folder."""

    def install(extras: str, constraints_file: Path = ROOT / "constraints.txt") -> Path:
        venv.create(tmp_path / "env", with_pip=True)
        programs = tmp_path / "env" / "bin"
        constraints = ["-c", str(constraints_file)]
        command = [programs / "python", "-m", "pip", "install", "-q", *constraints]
        if "worker" in extras:  # the pinned build first, as the Makefile does
            subprocess.run([*command, "torch"], check=True)
        subprocess.run([*command, f"{wheel}{extras}"], check=True)
        return programs

    return install


def run(programs: Path, *command: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PGCLIP_", "PYTHON", "VIRTUAL_ENV"))
    }
    return subprocess.run(
        [programs / command[0], *command[1:]],
        env={**kept, **environ},
        cwd="/",
        capture_output=True,
        text=True,
    )


SUBMIT = """
import sys
from pgclip import Client, AsyncClient
with Client() as client:
    job = client.submit_text("from the thin client", key="thin")
    batch = client.submit_many([{"image": b"bytes", "key": "picture"}])
    print(job.status().state, batch.accepted, len(list(client.items())))
heavy = {"torch", "PIL", "transformers", "typer", "rich", "pebble"}
assert not heavy & {name.split(".")[0] for name in sys.modules}
"""


def test_the_thin_client(installed: Callable[[str], Path], client: Client) -> None:
    programs = installed("")
    urls = {
        "PGCLIP_DATABASE_URL": client.settings.database_url,
        "PGCLIP_REDIS_URL": client.settings.redis_url,
    }
    listed = run(programs, "python", "-m", "pip", "list", "--format=freeze").stdout.lower()
    packages = {line.split("==")[0] for line in listed.splitlines()}
    assert not {"torch", "pillow", "transformers", "flask"} & packages
    told = run(programs, "python", "-c", SUBMIT, **urls)
    assert told.stdout == "queued 1 2\n", told.stderr
    without_cli = run(programs, "pgclip", "status", **urls)
    assert without_cli.returncode == 1
    assert "pip install 'pgclip[cli]'" in without_cli.stderr
    code = (
        "from pgclip.migrate import migrate; import os; migrate(os.environ['PGCLIP_DATABASE_URL'])"
    )
    assert run(programs, "python", "-c", code, **urls).returncode == 0


@pytest.mark.long
def test_the_thin_client_with_the_oldest_of_what_it_needs(
    installed: Callable[..., Path], client: Client, tmp_path: Path
) -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    oldest = [re.sub(r"(\[.*\])?>=([^,]+).*", r"==\2", each) for each in declared]
    assert len(oldest) > 5
    (tmp_path / "oldest.txt").write_text("\n".join(oldest))
    programs = installed("[cli]", tmp_path / "oldest.txt")
    listed = run(programs, "python", "-m", "pip", "list", "--format=freeze").stdout.lower()
    found = dict(line.split("==") for line in listed.splitlines())
    for each in oldest:
        name, version = each.split("==")
        assert Version(found[name]) == Version(version)
    urls = {
        "PGCLIP_DATABASE_URL": client.settings.database_url,
        "PGCLIP_REDIS_URL": client.settings.redis_url,
    }
    code = SUBMIT.replace('"typer", "rich", ', "")
    told = run(programs, "python", "-c", code, **urls)
    assert told.stdout == "queued 1 2\n", told.stderr
    assert run(programs, "pgclip", "migrate", **urls).returncode == 0
    assert run(programs, "pgclip", "list", **urls).returncode == 0


def test_the_worker(installed: Callable[[str], Path], client: Client, tmp_path: Path) -> None:
    programs = installed("[worker]")
    urls = {
        "PGCLIP_DATABASE_URL": client.settings.database_url,
        "PGCLIP_REDIS_URL": client.settings.redis_url,
    }
    assert run(programs, "pgclip", "migrate", **urls).returncode == 0
    job = client.submit_image(next((ROOT / "demo" / "pictures").glob("guitar.*")).read_bytes())
    log = tmp_path / "log"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    with log.open("wb") as output:
        worker = subprocess.Popen(
            [programs / "pgclip", "worker"],
            env={**kept, **QUICK, **urls, "PGCLIP_MODEL": str(DEMO_MODEL)},
            cwd="/",
            stdout=output,
            stderr=output,
        )
    try:
        eventually(lambda: job.status().state == "done" or worker.poll() is not None, 120)
        assert job.status().state == "done", log.read_text()
        told = run(programs, "pgclip", "search", "a", "guitar", **urls)
        assert "sha256:" in told.stdout, told.stderr
    finally:
        worker.terminate()
        assert worker.wait(60) == 0
