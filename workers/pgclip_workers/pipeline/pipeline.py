"""Fetch of batch n+1, encoding of n and storing of n-1 overlap, through queues of one.

Two batches are in the encoding stage at once: while one waits for the device or for its vectors,
the other's work is there to be done. So are two in the fetching stage beside a GPU, which waits for
the decoding processes: at the end of a batch most of these have nothing left to do. What follows a
batch's store, its thumbnails above all, takes as long as that, and overlaps with the next one's.
"""

import logging
import threading
from collections.abc import Callable
from queue import Queue

from pgclip.errors import PgclipError
from pgclip_workers.models.encoder import DeviceLost
from pgclip_workers.pictures.decoders import Interrupted
from pgclip_workers.pipeline.batch import Batch
from pgclip_workers.pipeline.leases import Leases

log = logging.getLogger(__name__)

Stage = Callable[[Batch], object]

_ENCODERS = 2


class Pipeline:
    """Works the queue down. A batch that a stage can't finish goes back to the queue, whole.

    `trouble` says why work goes back, until a batch is done or nothing is left to do.
    `device_lost` is called when the device is lost to this process; it should not return.
    `progressed` is called whenever a stage has ended. `stopping` is set once stop was called.
    `fetchers`: how many batches are fetched at once.
    """

    def __init__(
        self,
        leases: Leases,
        fetch: Stage,
        encode: Stage,
        store: Stage,
        tell: Stage,
        device_lost: Callable[[], None],
        progressed: Callable[[], object],
        fetchers: int = 1,
    ) -> None:
        self._leases = leases
        # One batch in each thread and one ready for the next.
        self._most = fetchers + _ENCODERS + 3
        self._device_lost = device_lost
        self._progressed = progressed
        self._draining = threading.Lock()
        self._in_flight = 0
        self._changed = threading.Condition()
        self._failures = 0  # in a row
        self.trouble: str | None = None
        self.stopping = threading.Event()
        self._inbox: Queue[Batch | None] = Queue(1)
        encoding: Queue[Batch | None] = Queue(1)
        storing: Queue[Batch | None] = Queue(1)
        telling: Queue[Batch | None] = Queue(1)
        self._stages = [
            self._start("fetch", fetchers, fetch, self._inbox, encoding, may_hand_back=True),
            self._start("encode", _ENCODERS, encode, encoding, storing, may_hand_back=True),
            self._start("store", 1, store, storing, telling, may_hand_back=False),
            self._start("tell", 1, tell, telling, None, may_hand_back=False),
        ]

    @property
    def idle(self) -> bool:
        """Whether nobody is draining the queue at this moment."""
        return not self._draining.locked()

    @property
    def threads(self) -> list[threading.Thread]:
        """Those that the stages run in."""
        return [thread for _, threads in self._stages for thread in threads]

    def drain(self) -> int:
        """Claims and works until the queue is empty; returns how many batches.

        A second caller waits for the first, so that work which came at its very end is seen.
        """
        batches = 0
        with self._draining:
            while not self.stopping.is_set():
                seen = self._wait_below(self._most)
                batch = self._claim()
                if batch is not None:
                    batches += 1
                    self._count(+1)
                    self._inbox.put(batch)
                    self._back_off()
                elif seen == 0:
                    self.trouble = None  # nothing is left that could be refused
                    break
                else:
                    self._wait_below(seen)
        return batches

    def _claim(self) -> Batch | None:
        try:
            return self._leases.claim()
        except PgclipError as error:
            self.trouble = f"work can't be claimed: {error}"
            raise

    def stop(self) -> None:
        """Claims no more. What is not being encoded yet goes back; the rest is finished."""
        self.stopping.set()

    def join(self) -> None:
        """Returns when every batch has ended. Call stop first."""
        with self._draining:
            pass  # nobody puts a batch into the inbox any more
        for inbox, threads in self._stages:
            for _ in threads:
                inbox.put(None)
            for thread in threads:
                thread.join()

    def _start(
        self,
        name: str,
        threads: int,
        work: Stage,
        inbox: "Queue[Batch | None]",
        outbox: "Queue[Batch | None] | None",
        may_hand_back: bool,
    ) -> "tuple[Queue[Batch | None], list[threading.Thread]]":
        arguments = (work, inbox, outbox, may_hand_back)
        started = [
            threading.Thread(target=self._run, args=arguments, name=name, daemon=True)
            for _ in range(threads)
        ]
        for thread in started:
            thread.start()
        return inbox, started

    def _run(
        self,
        work: Stage,
        inbox: "Queue[Batch | None]",
        outbox: "Queue[Batch | None] | None",
        may_hand_back: bool,
    ) -> None:
        while (batch := inbox.get()) is not None:
            if may_hand_back and self.stopping.is_set():
                self._give_up(batch)
                continue
            try:
                work(batch)
            except Interrupted:  # the worker is stopping
                self._give_up(batch)
            except DeviceLost:
                log.critical("the device is lost to this process", exc_info=True)
                self._device_lost()
                self._give_up(batch)
            except Exception as error:
                stage = threading.current_thread().name
                self.trouble = f"{stage} fails, its work goes back: {error}"
                log.exception(
                    "%s failed; %d jobs go back",
                    stage,
                    len(batch.jobs),
                    extra={"batch": str(batch.lease)},
                )
                self._failures += 1
                self._give_up(batch)
            else:
                self._progressed()
                if outbox is not None:
                    outbox.put(batch)
                else:
                    self._failures, self.trouble = 0, None
                    self._leases.ended(batch.lease)
                    self._count(-1)

    def _give_up(self, batch: Batch) -> None:
        self._progressed()
        try:
            self._leases.hand_back(batch.lease)
        except Exception:  # the next heartbeat hands it back; this thread has to go on
            log.exception("could not hand a batch back")
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        with self._changed:
            self._in_flight += change
            self._changed.notify_all()

    def _wait_below(self, limit: int) -> int:
        """Waits until fewer than `limit` batches are in flight, and returns how many are."""
        with self._changed:
            self._changed.wait_for(lambda: self._in_flight < limit)
            return self._in_flight

    def _back_off(self) -> None:
        """After failures in a row, which are not an item's fault, claims ever more slowly."""
        if self._failures:
            self.stopping.wait(min(0.1 * 2.0 ** min(self._failures, 7), 10.0))
