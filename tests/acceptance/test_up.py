"""`pgclip up`: everything on one machine, until Ctrl-C."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
from support.commands import PICTURES, pgclip, pgclip_process, urls
from support.databases import run_sql
from support.places import DEMO_MODEL
from support.processes import eventually

from pgclip import Client


def test_up_runs_everything_and_stops_it(tmp_path: Path) -> None:
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PGCLIP_")},
        "PGCLIP_DATA_DIR": str(tmp_path / "data"),
    }
    log = tmp_path / "log"
    with log.open("wb") as output:
        up = subprocess.Popen(
            [sys.executable, "-m", "pgclip", "up", "--browse", "--model", str(DEMO_MODEL)],
            env={**environ, "BROWSER": "true"},  # that opens nothing
            stdout=output,
            stderr=output,
        )
    try:
        eventually(lambda: "Ready;" in log.read_text() or up.poll() is not None, 120)
        data = {"PGCLIP_DATA_DIR": str(tmp_path / "data")}
        assert pgclip("index", PICTURES / "guitar.jpg", **data).returncode == 0, log.read_text()
        assert "guitar.jpg" in pgclip("search", "a guitar", **data).stdout
        (address,) = re.findall("Pages: (.*)", log.read_text())
        page = httpx.get(address + "&q=a+guitar", follow_redirects=True, timeout=30)
        assert "guitar.jpg" in page.text
        doctor = pgclip("doctor", **data)
        assert doctor.returncode == 0, doctor.stdout
        file = tmp_path / "data" / "urls.json"
        assert file.stat().st_mode & 0o777 == 0o600
        passwords = re.findall(":([^:]*)@", file.read_text())
        assert len(passwords) == 2
        assert str(file) in log.read_text()
        assert not any(password in log.read_text() for password in passwords)
        second = pgclip("up", "--model", DEMO_MODEL, **data)
        assert (second.returncode, "runs already" in second.stderr) == (1, True)
        up.send_signal(signal.SIGINT)
        assert up.wait(60) == 0
    finally:
        if up.poll() is None:
            up.terminate()
            up.wait(60)
    told = log.read_text()
    assert told.startswith("Starting Postgres and Redis …\nStarting a worker with ")
    assert told.endswith("Stopping: what is being encoded is stored …\nStopped; the data stay.\n")
    assert len(told.splitlines()) <= 15
    assert "ready: model" in (tmp_path / "data" / "worker.log").read_text()
    assert not (tmp_path / "data" / "urls.json").exists()
    status = pgclip("status", PGCLIP_DATA_DIR=str(tmp_path / "data"))
    assert status.returncode == 1
    assert "pgclip up" in status.stderr


def test_a_worker_ends_with_a_killed_up(tmp_path: Path, client: Client, database_url: str) -> None:
    log = tmp_path / "log"
    with log.open("wb") as output:
        up = subprocess.Popen(
            [sys.executable, "-m", "pgclip", "up", "--model", str(DEMO_MODEL), "--data", "."],
            env={**os.environ, **urls(client)},
            cwd=tmp_path,
            stdout=output,
            stderr=output,
        )
    eventually(lambda: "Ready;" in log.read_text() or up.poll() is not None, 120)
    up.kill()
    up.wait()
    eventually(lambda: run_sql(database_url, "SELECT count(*) FROM pgclip.workers") == [(0,)])


def test_up_says_why_a_worker_does_not_start(tmp_path: Path, client: Client) -> None:
    told = pgclip_process(
        "up", "--model", tmp_path / "no-model", "--data", tmp_path, **urls(client)
    )
    assert told.returncode == 1
    assert "the worker ended with status 1" in told.stderr
    assert "no-model' can't be loaded" in told.stderr
