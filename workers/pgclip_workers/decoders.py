"""Decoding processes: one that crashes, hangs or eats memory costs one picture, not the worker."""

import multiprocessing
import os
import signal
import warnings
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, TimeoutError
from pathlib import Path

from pebble import ProcessExpired, ProcessPool

from pgclip.settings import Settings
from pgclip_workers.decode import Limits, Pixels, decode
from pgclip_workers.preprocessing import Preprocessing
from pgclip_workers.sources import Refused

# Once a process died over a picture, the picture gets one more try: the kernel may have picked
# the process for another's memory.
_TRIES = 2


class Interrupted(Exception):
    """The worker is stopping; the picture was not decoded."""


class Decoders:
    """A pool of processes that turn pictures into pixels.

    Made before torch is imported: the processes come from a server process that has neither
    torch nor a device. Each has at most `decoder_memory` bytes of address space.
    """

    def __init__(self, settings: Settings, processes: int) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["pgclip_workers.decode", "PIL.Image", "numpy"])
        self._pool = ProcessPool(
            max_workers=processes,
            initializer=_start_child,
            initargs=(settings.decoder_memory,),
            context=context,
        )
        self._timeout = settings.decode_timeout
        self._limits = Limits(
            settings.max_image_bytes, settings.max_image_pixels, tuple(settings.roots)
        )

    def warm_up(self) -> None:
        """Returns when a process answers."""
        self._pool.schedule(os.getpid).result()

    def begin(
        self, data: bytes | None, source: str | None, preprocessing: Preprocessing
    ) -> Callable[[], Pixels | Refused]:
        """Starts to decode a picture: its bytes, or a source. Call the result to wait for it.

        That raises Interrupted if the worker is stopped meanwhile.
        """
        arguments = (data, source, preprocessing, self._limits)
        first = self._schedule(arguments)
        return lambda: self._result(first, arguments)

    def stop(self) -> None:
        """Ends the processes, whatever they are doing."""
        self._pool.stop()
        self._pool.join()

    def _schedule(
        self, arguments: tuple[bytes | None, str | None, Preprocessing, Limits]
    ) -> "Future[Pixels | Refused]":
        try:
            future: Future[Pixels | Refused] = self._pool.schedule(
                decode, args=arguments, timeout=self._timeout
            )
        except RuntimeError as error:  # the pool was stopped
            raise Interrupted from error
        return future

    def _result(
        self,
        future: "Future[Pixels | Refused]",
        arguments: tuple[bytes | None, str | None, Preprocessing, Limits],
    ) -> Pixels | Refused:
        for tries_left in reversed(range(_TRIES)):
            try:
                return future.result()
            except CancelledError as error:
                raise Interrupted from error
            except TimeoutError:
                return Refused(
                    "decoder_timeout",
                    f"it was not decoded within {self._timeout:g} s (PGCLIP_DECODE_TIMEOUT)",
                )
            except ProcessExpired as error:
                status = error.exitcode
                if tries_left:
                    future = self._schedule(arguments)
            except Exception as error:  # a defect of ours, but this picture's alone
                return Refused("decoder_error", f"{type(error).__name__}: {error}")
        return Refused("decoder_died", f"the decoding process died over it ({_cause(status)})")


def _start_child(memory: int) -> None:
    """Limits a decoding process. Ctrl-C is the worker's business, not its children's."""
    warnings.simplefilter("ignore")  # Pillow's remarks on odd files
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if Path("/proc/self").exists():  # on Linux; elsewhere the limit does not work as meant
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def _cause(exitcode: int) -> str:
    if exitcode < 0:
        return f"signal {signal.Signals(-exitcode).name}"
    return f"exit status {exitcode}"
