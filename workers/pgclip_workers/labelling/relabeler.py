"""Labels items anew whose labels are older than the label sets, from the vectors they have."""

import logging

import numpy as np

from pgclip import binarycopy
from pgclip.database import Database
from pgclip.errors import LABELS_CHANGED, PgclipError, sqlstate
from pgclip.items import Kind
from pgclip_workers import statements
from pgclip_workers.labelling.labels import LabelBook, joined, stage, unit
from pgclip_workers.labelling.shelf import LabelShelf

log = logging.getLogger(__name__)

_AT_ONCE = 2000
_LOCK_NOT_AVAILABLE = "55P03"


class Relabeler:
    """Goes through the items of a model page by page, of all workers one at a time.

    A page is a transaction, in which only items' labels are locked; new items never wait for it.
    """

    def __init__(self, database: Database, shelf: LabelShelf, model: int, dimension: int) -> None:
        self._database = database
        self._shelf = shelf
        self._model = model
        # A row of LABELS_DUE in binary COPY: pgvector sends a halfvec's dimension, 0, and halves.
        self._row = np.dtype(
            [
                *(("fields", ">i2"), ("item_length", ">i4"), ("item", ">i8")),
                *(("image_length", ">i4"), ("is_image", "?")),
                *(("epoch_length", ">i4"), ("epoch", ">i8")),
                *(("length", ">i4"), ("head", ">i4"), ("embedding", ">f2", (dimension,))),
            ]
        )

    def step(self) -> int:
        """How many items were labelled in one transaction; 0 if there is nothing to do."""
        book = self._shelf.book()
        while True:
            try:
                return self._page(book)
            except PgclipError as error:
                if sqlstate(error) == _LOCK_NOT_AVAILABLE:
                    log.info("a label set is being dropped; labelling anew goes on after it")
                    return 0
                if sqlstate(error) != LABELS_CHANGED:
                    raise
                book = self._shelf.book(stale=book)

    def is_busy(self) -> bool:
        """Whether items wait for this model, or are being encoded."""
        with self._database.transaction("label anew") as cursor:
            cursor.execute(statements.IS_BUSY, (self._model,))
            return cursor.fetchone() == (True,)

    def _page(self, book: LabelBook) -> int:
        with self._database.transaction("label anew") as cursor:
            cursor.execute(statements.OPEN_SCORES)  # who can't give scores has nothing to do
            due = statements.LABELS_DUE.format(model=self._model, most=_AT_ONCE)
            rows = np.frombuffer(binarycopy.copy_out_encoded(cursor, due), self._row)
            if not len(rows):
                return 0
            kinds: list[Kind] = ["image" if is_image else "text" for is_image in rows["is_image"]]
            embeddings = unit(rows["embedding"])
            sets = [each for each in book.sets if each.epoch > rows["epoch"].min()]
            items = rows["item"].tolist()
            cursor.execute(statements.OPEN_RESULTS)
            stage(cursor, items, joined([each.label(kinds, embeddings) for each in sets]))
            arguments = (self._model, book.epoch, items, [each.id for each in sets])
            cursor.execute(statements.STORE_LABELS, arguments)
        return len(items)
