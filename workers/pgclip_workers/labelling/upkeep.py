"""What is done about labels beside the items that come: labelling anew, deciding, teaching,
evaluating."""

import logging
import threading
import time
from collections.abc import Callable

from pgclip.errors import PgclipError
from pgclip_workers.labelling.decider import Decider
from pgclip_workers.labelling.relabeler import Relabeler
from pgclip_workers.labelling.tasks import LabelTasks
from pgclip_workers.models.encoder import DeviceLost

log = logging.getLogger(__name__)

# While items are encoded, labelling anew takes this share of the time.
_SHARE = 0.2


class LabelUpkeep:
    """A thread that looks for tasks, for items to be labelled anew, and for such as a promise
    decides, every `interval` seconds.

    `device_lost` is called when the device is lost to this process; it should not return.
    """

    def __init__(
        self,
        tasks: LabelTasks,
        relabeler: Relabeler,
        decider: Decider,
        interval: float,
        device_lost: Callable[[], None],
    ) -> None:
        self._tasks = tasks
        self._relabeler = relabeler
        self._decider = decider
        self._interval = interval
        self._device_lost = device_lost
        self._stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, name="labels", daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """Ends after the items at hand; another worker, or the next start, goes on."""
        self._stopping.set()
        self.thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._interval):
            try:
                self._work()
            except PgclipError as error:
                log.warning("labels are not seen to: %s", error)
            except DeviceLost:  # by the prompts of a label set
                log.critical("the device is lost to this process", exc_info=True)
                self._device_lost()
            except Exception:
                log.exception("labels are not seen to")

    def _work(self) -> None:
        labelled = 0
        while not self._stopping.is_set():
            self._tasks.step()
            began = time.perf_counter()
            done = self._relabeler.step()
            decided = self._decider.step()
            if not done and not decided:
                break
            labelled += done
            if self._relabeler.is_busy():
                self._stopping.wait((time.perf_counter() - began) * (1 / _SHARE - 1))
        if labelled:
            log.info("labelled %d items anew", labelled)
