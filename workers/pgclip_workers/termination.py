"""SIGTERM, from the first moment of a worker until Celery has a handler of its own."""

import signal
import sys
import threading
from collections.abc import Callable

_asked = threading.Event()


def leave_at_once() -> None:
    """From here on SIGTERM ends the process by SystemExit: while a model loads nothing is lost."""
    signal.signal(signal.SIGTERM, _leave)


def check() -> None:
    """Raises SystemExit if SIGTERM came.

    Python calls a handler wherever it is, also in a destructor or a weak reference's callback,
    which every import runs: an exception raised there is printed and forgotten.
    """
    if _asked.is_set():
        sys.exit(0)


def call(stop: Callable[[], None]) -> None:
    """From here on SIGTERM calls `stop`, which must not raise."""
    signal.signal(signal.SIGTERM, lambda *_: stop())
    check()


def _leave(*_: object) -> None:
    # Once: of a parent with several threads that is killed, each sends a signal of its own, and the
    # second must not interrupt the cleaning up.
    if not _asked.is_set():
        _asked.set()
        sys.exit(0)
