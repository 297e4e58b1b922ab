"""Running pgclip's commands as people do."""

import io
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import pytest
from support.places import ROOT
from support.processes import Live

from pgclip import Client
from pgclip.cli import main

Run = Callable[..., "subprocess.CompletedProcess[str]"]
PICTURES = ROOT / "demo" / "pictures"


def pgclip(
    *arguments: str | Path, stdin: str = "", **environ: str
) -> "subprocess.CompletedProcess[str]":
    """Runs a command in this process, with an environment and streams of its own."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    given = io.TextIOWrapper(io.BytesIO(stdin.encode()), "utf-8")
    with (
        mock.patch.dict(os.environ, _environment(environ), clear=True),
        mock.patch.object(sys, "stdin", given),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        status = main([str(argument) for argument in arguments])
    told = (stream.buffer.getvalue().decode() for stream in (out, err))  # type: ignore[attr-defined]
    return subprocess.CompletedProcess(arguments, status, *told)


def pgclip_process(
    *arguments: str | Path, stdin: str = "", **environ: str
) -> "subprocess.CompletedProcess[str]":
    """Runs a command as a process, where that is the point."""
    return subprocess.run(
        [sys.executable, "-m", "pgclip", *map(str, arguments)],
        env=_environment(environ),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
    )


def _environment(environ: dict[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PGCLIP_")}
    return {**kept, "PGCLIP_DATA_DIR": "/nonexistent", "COLUMNS": "200", **environ}


def interruptible(*arguments: str, **environ: str) -> "subprocess.Popen[bytes]":
    """A command that hears SIGINT, even if the tests run in the background, where it is ignored."""
    return subprocess.Popen(
        [sys.executable, "-m", "pgclip", *arguments],
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def urls(client: Client) -> dict[str, str]:
    return {
        "PGCLIP_DATABASE_URL": client.settings.database_url,
        "PGCLIP_REDIS_URL": client.settings.redis_url,
    }


@pytest.fixture
def run(live: Live) -> Run:
    """Runs a command against a database with the demo model's worker."""
    return lambda *arguments, **rest: pgclip(*arguments, **urls(live.client), **rest)


@pytest.fixture
def idle(client: Client) -> Run:
    """Runs a command against a database that no worker serves."""
    return lambda *arguments, **rest: pgclip(*arguments, **urls(client), **rest)


def in_terminal(*arguments: str | Path, columns: int = 120, **environ: str) -> str:
    """What a person sees of a command that succeeds, without the colours."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "pgclip", *map(str, arguments)],
        env={**_environment(environ), "TERM": "xterm-256color", "COLUMNS": str(columns)},
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    seen = b""
    try:
        while part := os.read(ours, 4096):
            seen += part
    except OSError:  # the terminal is gone with its last process
        pass
    os.close(ours)
    assert process.wait(30) == 0, seen.decode()
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
