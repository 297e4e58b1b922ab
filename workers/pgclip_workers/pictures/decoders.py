"""Decoding processes: one that crashes, hangs or eats memory costs one picture, not the worker."""

import ctypes
import math
import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future, TimeoutError
from concurrent.futures.process import BrokenProcessPool
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from pebble import ProcessExpired, ProcessPool

from pgclip.settings import Settings
from pgclip_workers.pictures.arena import Address, Arena
from pgclip_workers.pictures.decode import Decoded, Order, Picture, Pixels, decode_orders
from pgclip_workers.pictures.preprocessing import Preprocessing
from pgclip_workers.pictures.refused import Refused
from pgclip_workers.pictures.sources import Limits

# Once a process died over a picture, the picture gets one more try: the kernel may have picked
# the process for another's memory.
_TRIES = 2
# A stopped pool leaves its futures open for ever, so waiting for one looks up now and then.
_LOOK_SECONDS = 0.2
# Beyond the time that a picture may take. If nothing ends for longer, the pool has lost its tasks:
# it does so now and then when a process is killed while it has nothing to do.
_STALL_SECONDS = 3.0

# Pictures in one task. What a task costs the worker is shared by them; if their process dies or
# takes too long, each is tried by itself. Pictures from the network are each a task: their time
# is the network's.
_TOGETHER = 8

# What malloc keeps for the next picture (mallopt(3) of glibc; the first is the most that it takes).
# By default it may give a picture's memory back after each, 3 MB in pages that the kernel clears
# before it lends them again: up to 40 % of a decoding process's time, as allocations happen to lie.
_MMAP_THRESHOLD, _OWN_ALLOCATION = -3, 32 * 2**20
_TRIM_THRESHOLD, _KEPT = -1, 64 * 2**20

_Answers: TypeAlias = "Future[list[Decoded | Refused]]"


class _Arguments(NamedTuple):
    address: Address
    orders: Sequence[Order]
    preprocessing: Preprocessing
    limits: Limits


class _Task(NamedTuple):
    pool: ProcessPool
    answers: _Answers


class Interrupted(Exception):
    """The worker is stopping; the picture was not decoded."""


class Decoders:
    """A pool of processes that turn pictures into pixels.

    The processes come from a server process that has neither torch nor a device. Each has at most
    `decoder_memory` bytes of address space. A pool that broke or stalled is made anew.
    """

    def __init__(self, settings: Settings, processes: int) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(
            ["pgclip_workers.pictures.decode", "PIL.Image", "numpy"]
        )
        self._processes = processes
        self._memory = settings.decoder_memory
        self._timeout = settings.decode_timeout
        self._alone_until = math.ceil(settings.decode_timeout + _STALL_SECONDS)
        self._limits = Limits(
            settings.max_image_bytes,
            settings.max_image_pixels,
            tuple(settings.roots),
            tuple(settings.urls),
            settings.private_urls,
            settings.formats,
        )
        self._stopped = threading.Event()
        self._renewing = threading.Lock()
        self._pool = self._new_pool()
        self.moved = time.monotonic()  # when a task was last begun or ended

    def warm_up(self) -> None:
        """Returns when a process answers."""
        self._pool.schedule(os.getpid).result()

    def decode(
        self, pictures: Sequence[Picture], preprocessing: Preprocessing
    ) -> list[Pixels | Refused]:
        """Decodes pictures and waits for them; the results are in their order.

        Raises Interrupted if the worker is stopped meanwhile, and RuntimeError if processes can't
        be started.
        """
        if not pictures:
            return []
        room = 3 * preprocessing.most_pixels
        arena = Arena(sum(room + len(picture.data or b"") for picture in pictures))
        try:
            given = [None if each.data is None else arena.put(each.data) for each in pictures]
            orders = [
                Order(data, each.source, arena.reserve(room), each.thumbnail)
                for data, each in zip(given, pictures, strict=True)
            ]
            answers = self._decode(arena.address, orders, preprocessing)
        finally:
            arena.seal()
        return [
            Pixels(answer.hash, arena.array(order.pixels, answer.shape), answer.thumbnail)
            if isinstance(answer, Decoded)
            else answer
            for order, answer in zip(orders, answers, strict=True)
        ]

    def stop(self) -> None:
        """Ends the processes, whatever they are doing."""
        self._stopped.set()
        with self._renewing:
            self._pool.stop()
            self._pool.join()

    def _new_pool(self) -> ProcessPool:
        return ProcessPool(
            max_workers=self._processes,
            initializer=_start_child,
            initargs=(self._memory,),
            context=self._context,
        )

    def _decode(
        self, address: Address, orders: Sequence[Order], preprocessing: Preprocessing
    ) -> list[Decoded | Refused]:
        def begin(group: Sequence[Order]) -> tuple[_Arguments, _Task]:
            arguments = _Arguments(address, group, preprocessing, self._limits)
            return arguments, self._schedule(arguments)

        begun = [begin(group) for group in _groups(orders)]
        return [answer for each in begun for answer in self._answers(*each)]

    def _schedule(self, arguments: _Arguments) -> _Task:
        for _ in range(_TRIES):
            pool = self._pool
            if self._stopped.is_set():
                raise Interrupted
            try:
                answers: _Answers = pool.schedule(
                    _decode_within, args=(self._alone_until, *arguments), timeout=self._timeout
                )
            except RuntimeError:  # it broke: a process died while it had nothing to do
                self._renew(pool)
            else:
                self._note_move(answers)
                answers.add_done_callback(self._note_move)
                return _Task(pool, answers)
        raise RuntimeError("the decoding processes can't be started")

    def _note_move(self, _: _Answers) -> None:
        self.moved = time.monotonic()

    def _renew(self, broken: ProcessPool) -> None:
        with self._renewing:
            if self._pool is broken and not self._stopped.is_set():
                broken.stop()
                broken.join()
                self._pool = self._new_pool()

    def _answers(self, arguments: _Arguments, task: _Task) -> list[Decoded | Refused]:
        orders = arguments.orders
        tries_left = _TRIES if len(orders) == 1 else 1
        while True:
            try:
                return task.answers.result(timeout=_LOOK_SECONDS)
            except CancelledError as error:
                raise Interrupted from error
            except TimeoutError:
                if not task.answers.done():
                    task = self._still_there(task, arguments)
                    continue
                if len(orders) == 1:
                    return [self._timed_out()]
                break
            except BrokenProcessPool:  # not these pictures' doing
                self._renew(task.pool)
                task = self._schedule(arguments)
            except ProcessExpired as error:
                tries_left -= 1
                if not tries_left:
                    if len(orders) == 1:
                        cause = _cause(error.exitcode)
                        message = f"the decoding process died over it ({cause})"
                        return [Refused("decoder_died", message)]
                    break
                task = self._schedule(arguments)
            except Exception as error:  # a defect of ours, but of one picture alone
                if len(orders) == 1:
                    return [Refused("decoder_error", f"{type(error).__name__}: {error}")]
                break
        alone = [arguments._replace(orders=[order]) for order in orders]
        tasks = [self._schedule(each) for each in alone]
        return [
            answer
            for each, single in zip(alone, tasks, strict=True)
            for answer in self._answers(each, single)
        ]

    def _still_there(self, task: _Task, arguments: _Arguments) -> _Task:
        """The task if its pool is at work, else another for the same picture."""
        if self._stopped.is_set():
            raise Interrupted
        if time.monotonic() - self.moved > self._timeout + _STALL_SECONDS:
            self._renew(task.pool)
        return task if task.pool is self._pool else self._schedule(arguments)

    def _timed_out(self) -> Refused:
        limit = f"{self._timeout:g} s (PGCLIP_DECODE_TIMEOUT)"
        return Refused("decoder_timeout", f"it was not decoded within {limit}")


def _groups(orders: Sequence[Order]) -> Iterator[Sequence[Order]]:
    """The orders in order, cut where a picture from the network comes, and before _TOGETHER + 1."""
    for remote, run in groupby(orders, key=lambda order: is_remote(order.source)):
        some = list(run)
        size = 1 if remote else _TOGETHER
        yield from (some[at : at + size] for at in range(0, len(some), size))


def is_remote(source: str | None) -> bool:
    """Whether a source is read by the network."""
    return source is not None and not source.lower().startswith("file:")


def _decode_within(seconds: int, *arguments: Any) -> list[Decoded | Refused]:
    """Decodes, and ends the process after so many seconds, even if nobody is left to end it.

    By SIGALRM's default action, which no code that hangs can hold up.
    """
    signal.alarm(seconds)
    try:
        return decode_orders(*arguments)
    finally:
        signal.alarm(0)


def _start_child(memory: int) -> None:
    """Limits a decoding process, and what it gives back of its memory.

    Ctrl-C is the worker's business, not its children's.
    """
    warnings.simplefilter("ignore")  # Pillow's remarks on odd files
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if Path("/proc/self").exists():  # on Linux; elsewhere the limit does not work as meant
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # in glibc; others have their own ways
        mallopt(_MMAP_THRESHOLD, _OWN_ALLOCATION)
        mallopt(_TRIM_THRESHOLD, _KEPT)


def _cause(exitcode: int) -> str:
    if exitcode < 0:
        return f"signal {signal.Signals(-exitcode).name}"
    return f"exit status {exitcode}"
