"""How many inputs fit into one forward pass: halved when memory runs out, and grown again."""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from pgclip_workers.device import out_of_memory, raise_if_lost
from pgclip_workers.encoder import TooLarge

log = logging.getLogger(__name__)

Input = TypeVar("Input")
Output = TypeVar("Output")

# Full parts that have to fit in a row before twice as many are tried: what else was in the
# device's memory may be gone by then, and a try that fails costs one part.
_FITS_TO_GROW = 32


class Capacity:
    """Remembers, for one kind of input, how many went through the device at once."""

    def __init__(self, most: int) -> None:
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
                outputs.append(forward(part))
            except Exception as error:
                if not out_of_memory(error):
                    raise_if_lost(error)
                    raise
                if len(part) == 1:
                    message = "the device has too little memory for this one alone"
                    raise TooLarge(message) from error
                self._halve(len(part))
            else:
                start += len(part)
                self._fits(len(part))
        return outputs

    def _halve(self, failed: int) -> None:
        with self._lock:
            self._now = max(1, min(self._now, failed // 2))
            self._fitted = 0
            log.warning("out of memory: %d at once goes on as %d", failed, self._now)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _fits(self, size: int) -> None:
        with self._lock:
            if self._now == self._most or size < self._now:
                return
            self._fitted += 1
            if self._fitted >= _FITS_TO_GROW:
                self._now = min(2 * self._now, self._most)
                self._fitted = 0
                log.info("tries %d at once again", self._now)
