"""The faults that there are, by name: each brings something about and takes it away again."""

import os
import signal
import time
from collections.abc import Callable
from random import Random

from stage import Stage

Fault = Callable[[Stage, Random], None]
FAULTS: dict[str, Fault] = {}
# How often each is chosen beside the others, once each had its turn.
WEIGHTS: dict[str, int] = {}


class Missed(Exception):
    """The instant that a fault waits for did not come: nothing was injected."""


def fault(name: str, weight: int = 4) -> Callable[[Fault], Fault]:
    """Registers a fault under the name that the report has."""

    def register(function: Fault) -> Fault:
        FAULTS[name], WEIGHTS[name] = function, weight
        return function

    return register


def pause(random: Random, most: float, least: float = 0) -> None:
    """A random instant."""
    time.sleep(least + random.random() * (most - least))


def send(pid: int | None, number: signal.Signals) -> None:
    """Raises Missed if there is no such process."""
    if pid is None:
        raise Missed
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        raise Missed from None
