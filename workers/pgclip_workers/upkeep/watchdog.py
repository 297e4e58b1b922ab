"""Ends a process that can't do its work any more: others have it once the lease has run out."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from pgclip.settings import Settings

log = logging.getLogger(__name__)

STUCK_EXIT = 70  # EX_SOFTWARE
# Beyond the longest time that a picture or a forward pass may take.
_SLACK_SECONDS = 60.0


class Watchdog:
    """Looks at every heartbeat whether each thread lives and whether the work goes on.

    Neither a call of the device that never returns nor a thread that is gone can be mended from
    within the process, so it is ended. `moved` says when a picture was last begun or decoded, by
    the monotonic clock.
    """

    def __init__(self, settings: Settings, moved: Callable[[], float]) -> None:
        self._moved = moved
        self._encode_timeout = settings.encode_timeout
        self._stall = max(settings.encode_timeout, settings.decode_timeout) + _SLACK_SECONDS
        self._encoding_since: dict[object, float] = {}
        self._threads: tuple[threading.Thread, ...] = ()
        self._stopping = threading.Event()
        self._progress = time.monotonic()

    @contextmanager
    def encoding(self) -> Iterator[None]:
        """Surrounds what asks the device, in any thread."""
        call = object()
        self._encoding_since[call] = time.monotonic()
        try:
            yield
        finally:
            del self._encoding_since[call]
            self.progressed()

    def guard(self, stopping: threading.Event, *threads: threading.Thread) -> None:
        """From now on these threads must live, until the worker is `stopping`."""
        self._stopping, self._threads = stopping, threads

    def progressed(self) -> None:
        """Something of the work at hand has been done."""
        self._progress = time.monotonic()

    def look(self, held: int) -> None:
        """Ends the process if it is stuck; `held` are the batches that it has leased."""
        now = time.monotonic()
        since = min(self._encoding_since.copy().values(), default=now)
        if now - since > self._encode_timeout:
            _end(
                f"a forward pass has not returned for {self._encode_timeout:g} s "
                "(PGCLIP_ENCODE_TIMEOUT)"
            )
        for thread in self._threads:
            if not thread.is_alive() and not self._stopping.is_set():
                _end(f"the thread {thread.name!r} is gone")
        if not held:
            self.progressed()
        elif now - max(self._progress, self._moved()) > self._stall:
            _end(f"of {held} batches nothing was done for {self._stall:g} s")


def _end(why: str) -> NoReturn:
    log.critical("%s; exiting so that the work is done elsewhere", why)
    os._exit(STUCK_EXIT)
