"""Labels items anew whose labels are older than the label sets, from the vectors they have."""

import logging
import threading
from collections.abc import Callable
from itertools import groupby
from operator import itemgetter

import numpy as np

from pgclip.database import Database
from pgclip.errors import LABELS_CHANGED, PgclipError, sqlstate
from pgclip_workers import statements
from pgclip_workers.labelling.labels import LabelBook, LabelShelf, stage
from pgclip_workers.models.encoder import DeviceLost

log = logging.getLogger(__name__)

_AT_ONCE = 500


class Relabeler:
    """Works where pgclip.heal asked for it; of all workers one at a time, in short transactions.

    `device_lost` is called when the device is lost to this process; it should not return.
    """

    def __init__(
        self,
        database: Database,
        shelf: LabelShelf,
        model: int,
        interval: float,
        device_lost: Callable[[], None],
    ) -> None:
        self._database = database
        self._device_lost = device_lost
        self._shelf = shelf
        self._model = model
        self._interval = interval
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
                done = 0
                while not self._stopping.is_set() and (some := self._some(self._shelf.book())):
                    done += some
                if done:
                    log.info("labelled %d items anew", done)
            except PgclipError as error:
                log.warning("items were not labelled anew: %s", error)
            except DeviceLost:  # by the prompts of a label set
                log.critical("the device is lost to this process", exc_info=True)
                self._device_lost()
            except Exception:
                log.exception("items were not labelled anew")

    def _some(self, book: LabelBook) -> int:
        """How many items were labelled in one transaction."""
        try:
            with self._database.transaction("label anew") as cursor:
                cursor.execute(statements.NEXT_RELABELING, (self._model, _AT_ONCE))
                rows = cursor.fetchall()
                if not rows:
                    return 0
                of_item = [list(found) for _, found in groupby(rows, key=itemgetter(0))]
                items = [found[0][0] for found in of_item]
                kinds = [found[0][1] for found in of_item]
                vectors = [np.array([row[2] for row in found], np.float32) for found in of_item]
                cursor.execute(statements.OPEN_RESULTS)
                stage(cursor, items, book.label(kinds, vectors))
                cursor.execute(statements.STORE_LABELS, (self._model, book.epoch, items))
        except PgclipError as error:
            if sqlstate(error) != LABELS_CHANGED:
                raise
            return self._some(self._shelf.book(stale=book))
        return len(items)
