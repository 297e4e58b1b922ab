"""How many inputs fit into one forward pass: halved when memory runs out, and grown again."""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch

from pgclip_workers.models.device import out_of_memory, raise_if_lost
from pgclip_workers.models.encoder import TooLarge

log = logging.getLogger(__name__)

Input = TypeVar("Input")
Output = TypeVar("Output")

# Full parts that have to fit in a row before twice as many are tried: what else was in the
# device's memory may be gone by then, and a try that fails costs one part.
_FITS_TO_GROW = 32


class Turns:
    """Who is on the device: several forward passes together, or one alone.

    `together`: whether the device takes several at all.
    """

    def __init__(self, together: bool = True) -> None:
        self._together = together
        self._changed = threading.Condition()
        self._running = 0
        self._alone = False

    @contextmanager
    def turn(self, alone: bool = False) -> Iterator[None]:
        """Surrounds a forward pass."""
        alone = alone or not self._together
        with self._changed:
            self._changed.wait_for(lambda: not self._alone and not (alone and self._running))
            self._running += 1
            self._alone = alone
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._alone = False
                self._changed.notify_all()


class Capacity:
    """Remembers, for one kind of input, how many went through the device at once."""

    def __init__(self, most: int, turns: Turns) -> None:
        self._turns = turns
        self._most = most
        self._now = most
        self._fitted = 0
        self._lock = threading.Lock()

    @property
    def now(self) -> int:
        """The most inputs that are tried at once."""
        return self._now

    def run(
        self, forward: Callable[[Sequence[Input]], Output], inputs: Sequence[Input]
    ) -> list[Output]:
        """Calls `forward` on consecutive parts of the inputs and returns its results in order.

        Raises TooLarge if one input alone does not fit, DeviceLost if the device is of no use to
        this process any more.
        """
        outputs = []
        start = 0
        while start < len(inputs):
            part = inputs[start : start + self._now]
            try:
                with self._turns.turn():
                    outputs.append(forward(part))
            except Exception as error:
                if not out_of_memory(error):
                    raise_if_lost(error)
                    raise
                if len(part) > 1:
                    self._halve(len(part))
                    continue
                # It may have been another's forward pass that took the memory.
                outputs.append(self._by_itself(forward, part))
                start += 1
            else:
                start += len(part)
                self._fits(len(part))
        return outputs

    def _by_itself(
        self, forward: Callable[[Sequence[Input]], Output], part: Sequence[Input]
    ) -> Output:
        with self._turns.turn(alone=True):
            _empty_cache()
            try:
                return forward(part)
            except Exception as error:
                if not out_of_memory(error):
                    raise_if_lost(error)
                    raise
                message = "the device has too little memory for this one alone"
                raise TooLarge(message) from error

    def _halve(self, failed: int) -> None:
        with self._lock:
            self._now = max(1, min(self._now, failed // 2))
            self._fitted = 0
            log.warning("out of memory: %d at once goes on as %d", failed, self._now)
        _empty_cache()

    def _fits(self, size: int) -> None:
        with self._lock:
            if self._now == self._most or size < self._now:
                return
            self._fitted += 1
            if self._fitted >= _FITS_TO_GROW:
                self._now = min(2 * self._now, self._most)
                self._fitted = 0
                log.info("tries %d at once again", self._now)


def _empty_cache() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
