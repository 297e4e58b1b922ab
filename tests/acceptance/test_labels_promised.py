"""`pgclip labels promise|review|decisions`, as a person goes from a set to a kept promise."""

import json
import os
import pty
import subprocess
import sys

import pytest
from support.commands import pgclip
from support.pictures import jpeg
from support.processes import WorkerFactory, eventually

from pgclip import Client
from pgclip.local import LocalServices


class Shell:
    """Runs `pgclip labels` with what a person types."""

    def __init__(self, database_url: str, services: LocalServices) -> None:
        self.environ = {"PGCLIP_DATABASE_URL": database_url, "PGCLIP_REDIS_URL": services.redis_url}

    def __call__(self, *arguments: str, typed: str = "", status: int = 0) -> str:
        told = pgclip("labels", *arguments, stdin=typed, **self.environ)
        assert told.returncode == status, told.stderr
        return " ".join((told.stdout if status == 0 else told.stderr).split())


@pytest.fixture
def labels(
    client: Client, database_url: str, services: LocalServices, start_worker: WorkerFactory
) -> Shell:
    start_worker(database_url)
    client.submit_many(
        [{"text": f"like {word} {n}", "key": f"{word} {n}"}
         for word in ("weapon", "flower") for n in range(120)]
    ).wait(60)  # fmt: skip
    shell = Shell(database_url, services)
    shell("define", "guarded", "weapon", "--no-exclusive", "--background", "flower",
          "--template", "{}", "--threshold", "0.5", "--decide")  # fmt: skip
    return shell


def test_from_a_set_to_a_kept_promise(labels: Shell, client: Client) -> None:
    assert "each alone: weapon (to be reviewed)" in labels("list")
    assert labels("promise") == "Nothing is promised. See pgclip labels promise --help"
    told = labels("promise", "guarded", "weapon", "--precision", "0.9")
    assert "precision 0.9 at 0.95 waiting" in told
    assert "guarded, weapon: items get scores first, from a worker" in told
    eventually(lambda: client.promises()[0].state == "judging")
    assert labels("promise", "guarded").endswith(
        "it takes 29 more judgements: pgclip labels review guarded"
    )
    # A person types a wrong key, goes back, is unsure, and leaves.
    told = labels("review", "guarded", "-n", "8", "--for", "promise", "--by", "ana",
                  typed="x\ny\nb\ny\nu\ny\nq\n")  # fmt: skip
    assert told.startswith("[y]es [n]o [u]nsure [b]ack [q]uit like weapon")
    assert "1/8 weapon? x [y]es" in told
    assert "3 of 8 judged" in told
    assert "weapon, precision: it takes " in told
    # Of what was left nobody else has anything for half an hour; ana gets it by asking again.
    draws = json.loads(labels("review", "guarded", "--for", "promise", "--by", "ben", "--json"))
    assert all(draw["purpose"] == "precision" for draw in draws)
    for draw in draws:
        client.judge("guarded", "weapon", draw["key"], True, by="ben")
    eventually(lambda: client.promises()[0].judged >= 1)
    told = labels("promise", "guarded", "weapon")
    assert "kept" in told or "it takes" in told or "does not keep it" in told
    told = labels("decisions", "guarded", "--only", "yes", "-n", "5")
    assert "yes weapon" in told
    assert "people" in told
    every = json.loads(labels("decisions", "guarded", "weapon", "--limit", "0", "--json"))
    assert len(every) == 240
    assert labels("withdraw", "guarded", "weapon") == "nothing is promised of weapon any more"


def test_nothing_to_review(labels: Shell, client: Client) -> None:
    told = labels("review", "guarded", "--for", "promise")
    assert told == "There is nothing to review: all is judged, or others have it before them."
    assert "no label set nothing" in labels("review", "nothing", status=1)
    assert "a set and a label" in labels("promise", "guarded", "--precision", "0.9", status=2)


def test_in_a_terminal_one_key_is_enough_and_pictures_are_shown(
    client: Client, labels: Shell
) -> None:
    client.submit_image(jpeg(1, 64, 64), key="sword", collection="pictures").wait(30)
    client.define_label_set("seen", ["sword"], templates=["{}"], exclusive=False,
                            collections=["pictures"])  # fmt: skip
    control, terminal = pty.openpty()
    command = [sys.executable, "-m", "pgclip", "labels", "review", "seen", "--preview"]
    environ = {**os.environ, **labels.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    process = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal,
                               env=environ)  # fmt: skip
    os.close(terminal)
    told = b""
    try:
        while b"sword? " not in told:
            told += os.read(control, 65536)
        os.write(control, b"y")
        while b"judged" not in told:
            told += os.read(control, 65536)
        assert process.wait(30) == 0
    finally:
        process.kill()
        os.close(control)
    assert b"1 of 1 judged" in told
    assert b"38;2;" in told or b"48;2;" in told  # a picture in true colour
    (judged,) = client.judgements("seen")
    assert (judged.key, judged.value) == ("sword", True)
