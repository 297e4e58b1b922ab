"""Running the examples as their README says."""

import io
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from support.places import ROOT
from support.processes import Live, eventually, free_port

from pgclip.local import LocalServices

EXAMPLES = ROOT / "examples"
README = (EXAMPLES / "README.md").read_text()
PICTURES = ROOT / "demo" / "pictures"
Environment = dict[str, str]


def commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def command(part: str, **replaced: str) -> list[str]:
    """The README's command that contains a part, with these Python and paths."""
    (line,) = (line for line in commands() if part in line)
    words = shlex.split(line)
    for old, new in replaced.items():
        words = [word.replace(old, new) for word in words]
    if words[0].startswith(".venv/bin/"):
        words[0] = str(Path(sys.executable).parent / Path(words[0]).name)
    return words


def required(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"{program} is not installed")
        pytest.skip(f"{program} is not installed")
    return found


def environment(database_url: str, redis_url: str, **more: str) -> Environment:
    urls = {"PGCLIP_DATABASE_URL": database_url, "PGCLIP_REDIS_URL": redis_url}
    return {**os.environ, **urls, "PYTHONUNBUFFERED": "1", **more}


@contextmanager
def serving(
    command: list[str], environ: Environment, port: int, log: Path, folder: Path = ROOT
) -> Iterator[httpx.Client]:
    """An application's process, from when it answers until it is told to end."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environ, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            eventually(lambda: process.poll() is not None or answers(port))
            assert process.poll() is None, log.read_text()
            yield http
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def is_thumbnail(data: bytes) -> bool:
    """Whether it is a small JPEG."""
    return data.startswith(b"\xff\xd8\xff") and max(Image.open(io.BytesIO(data)).size) <= 256


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


class Page(HTMLParser):
    """What a browser makes of a page: its elements with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data

    def all(self, tag: str, attribute: str) -> list[str]:
        return [about.get(attribute) or "" for name, about in self.elements if name == tag]


# Node


@pytest.fixture(scope="session")
def node_app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the service, its packages installed."""
    required("node")
    folder = tmp_path_factory.mktemp("node") / "app"
    shutil.copytree(EXAMPLES / "node", folder, ignore=shutil.ignore_patterns("node_modules"))
    install = command("node ci")
    assert install[:3] == ["npm", "--prefix", "examples/node"]
    run = [required("npm"), install[3], "--no-audit", "--no-fund"]
    subprocess.run(run, cwd=folder, check=True, timeout=120)
    return folder


@contextmanager
def node_service(app: Path, database_url: str, redis_url: str, log: Path) -> Iterator[httpx.Client]:
    port = free_port()
    environ = environment(database_url, redis_url, PORT=str(port))
    start = json.loads((app / "package.json").read_text())["scripts"]["start"]
    run = [required("node"), *start.split()[1:]]
    with serving(run, environ, port, log, app) as http:
        yield http


@pytest.fixture(scope="session")
def node(node_app: Path, live: Live, services: LocalServices) -> Iterator[httpx.Client]:
    log = node_app.parent / "log"
    with node_service(node_app, live.database_url, services.redis_url, log) as http:
        yield http


def done(http: httpx.Client, accepted: httpx.Response) -> dict[str, Any]:
    assert accepted.status_code == 202, accepted.text
    status = accepted.headers["location"]
    eventually(lambda: http.get(status).json()["state"] in ("done", "failed"))
    item: dict[str, Any] = http.get(status).json()
    return item
