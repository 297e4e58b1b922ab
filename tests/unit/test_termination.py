"""SIGTERM is not lost, wherever the interpreter is when it comes."""

import subprocess
import sys

# Kills itself within a destructor, from which no exception gets out.
SWALLOWED = """
import os, signal, sys
from pgclip_workers import termination

class Import:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000):
            pass

termination.leave_at_once()
Import()
"""


def run(script: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_a_swallowed_exit_is_found_by_the_next_check() -> None:
    ended = run(SWALLOWED + "print('on'); termination.check(); print('too far')")
    assert "Exception ignored" in ended.stderr
    assert (ended.returncode, ended.stdout) == (0, "on\n")


def test_it_is_found_before_another_handler_takes_over() -> None:
    ended = run(SWALLOWED + "termination.call(lambda: None); print('too far')")
    assert (ended.returncode, ended.stdout) == (0, "")


def test_at_once_or_by_a_call() -> None:
    kill = "os.kill(os.getpid(), signal.SIGTERM); print('after')"
    start = "import os, signal\nfrom pgclip_workers import termination\n"
    ended = run(start + "termination.leave_at_once()\n" + kill)
    assert (ended.returncode, ended.stdout) == (0, "")
    ended = run(start + "termination.call(lambda: print('called'))\n" + kill)
    assert (ended.returncode, ended.stdout) == (0, "called\nafter\n")
