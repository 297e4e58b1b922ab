"""The faults that there are, by name: each brings something about and takes it away again."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from random import Random

from stage import Stage

Fault = Callable[[Stage, Random], None]
FAULTS: dict[str, Fault] = {}
# How often each is chosen beside the others.
WEIGHTS: dict[str, int] = {}


def fault(name: str, weight: int = 4) -> Callable[[Fault], Fault]:
    """Registers a fault under the name that the report has."""

    def register(function: Fault) -> Fault:
        FAULTS[name], WEIGHTS[name] = function, weight
        return function

    return register


def pause(random: Random, most: float) -> None:
    """A random instant."""
    time.sleep(random.random() * most)


def send(pid: int | None, number: signal.Signals) -> None:
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
