"""A batch's vectors, labels and failures in one transaction, under its lease."""

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pgclip import binarycopy
from pgclip.database import Database
from pgclip.errors import LABELS_CHANGED, ConnectionFailed, PgclipError, sqlstate
from pgclip_workers import statements
from pgclip_workers.labelling.labels import LabelBook, stage
from pgclip_workers.labelling.shelf import LabelShelf
from pgclip_workers.pipeline.batch import Batch, Failure, Job

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

log = logging.getLogger(__name__)

# A lost connection is tried again after these seconds; then the jobs go back to the queue.
_PAUSES = (0.1, 0.5, 2.0)

# Stored one by one, so many refused before any is stored say that all will be.
_REFUSED_IN_A_ROW = 3

# Classes of SQLSTATE that say that a value is not acceptable: data exceptions, constraints, limits.
_OF_THE_DATA = ("22", "23", "54")


class Store:
    """Writes batches. Safe to repeat: what a first attempt has settled, a second passes over."""

    def __init__(
        self,
        database: Database,
        shelf: LabelShelf,
        dimension: int,
        retry_for: float,
    ) -> None:
        self._database = database
        self._retry_for = retry_for
        self._shelf = shelf
        self._vector_row = np.dtype(
            [
                *(("fields", ">i2"), ("job_length", ">i4"), ("job", ">i8")),
                # A halfvec: its dimension, two bytes unused, its values.
                *(("length", ">i4"), ("dimension", ">i2"), ("unused", ">i2")),
                ("values", ">f2", (dimension,)),
            ]
        )
        self._dimension = dimension

    def store(self, batch: Batch) -> int:
        """Settles the batch's jobs and returns how many. Raises PgclipError.

        Jobs whose lease is gone are passed over: others have them now. If Postgres refuses the
        batch for a reason that lies in one item, that item fails and the others are stored. If it
        refuses it for another reason, those are stored that can be, and the error is raised.
        """
        for pause in (*_PAUSES, None):
            try:
                return self._attempt(batch)
            except ConnectionFailed as error:
                if pause is None:
                    raise
                log.warning("storing is tried again in %g s: %s", pause, error)
                time.sleep(pause)
            except PgclipError as error:
                if len(batch.jobs) > 1:
                    return self._one_by_one(batch, error)
                (job,) = batch.jobs
                if sqlstate(error)[:2] not in _OF_THE_DATA or job.id in batch.failures:
                    raise
                batch.failures[job.id] = Failure("not_storable", str(error))
                return self._attempt(batch)
        raise AssertionError("unreachable")

    def _one_by_one(self, batch: Batch, error: PgclipError) -> int:
        """What only some items meet must not hold up the others; what all meet is seen soon."""
        log.warning("a batch of %d is stored one by one: %s", len(batch.jobs), error)
        settled, refused = 0, 0
        for job in batch.jobs:
            try:
                settled += self.store(replace(batch, jobs=[job]))
            except ConnectionFailed:
                raise
            except PgclipError as one:
                log.warning("an item of the batch is not stored: %s", one)
                error, refused = one, refused + 1
                if not settled and refused == _REFUSED_IN_A_ROW:
                    break
        if refused:
            raise error
        return settled

    def _attempt(self, batch: Batch) -> int:
        book = self._shelf.book()
        while True:
            try:
                return self._write(batch, book)
            except PgclipError as error:
                if sqlstate(error) != LABELS_CHANGED:
                    raise
                book = self._shelf.book(stale=book)

    def _write(self, batch: Batch, book: LabelBook) -> int:
        done = batch.done()
        ids = {job.id for job in batch.jobs}
        failed: list[dict[str, object]] = [
            {
                "job_id": job_id,
                "reason": failure.reason,
                "message": failure.message,
                "retry_after": failure.retry_after,
                "retry_for": self._retry_for,
            }
            for job_id, failure in batch.failures.items()
            if job_id in ids
        ]
        hashes = [batch.content_of[job.id].hash for job in done]
        with self._database.transaction("store") as cursor:
            if done:
                cursor.execute(statements.OPEN_RESULTS)
                self._stage_vectors(cursor, batch, done)
                embeddings = [batch.embeddings[batch.content_of[job.id]] for job in done]
                labels = book.label([job.kind for job in done], embeddings)
                if book.has_promises:
                    cursor.execute(statements.OPEN_SCORES)
                stage(cursor, [job.id for job in done], labels)
            cursor.execute(
                statements.STORE,
                (str(batch.lease), book.epoch, [j.id for j in done], hashes, _json(failed)),
            )
            (settled,) = cursor.fetchone() or ([],)
        batch.settled.update(settled)
        return len(settled)

    def _stage_vectors(self, cursor: "Cursor", batch: Batch, done: Sequence[Job]) -> None:
        arrays = [batch.embeddings[batch.content_of[job.id]] for job in done]
        rows = np.zeros(sum(map(len, arrays)), self._vector_row)
        rows["fields"], rows["job_length"] = 2, 8
        rows["job"] = np.repeat([job.id for job in done], list(map(len, arrays)))
        rows["length"], rows["dimension"] = 4 + 2 * self._dimension, self._dimension
        rows["values"] = np.concatenate(arrays)
        binarycopy.copy_in_encoded(cursor, statements.STAGED_VECTORS, rows.tobytes())


def _json(failed: list[dict[str, object]]) -> str:
    # A message may quote a file name or a decoder; a NUL in it would refuse the whole batch.
    return json.dumps(failed).replace("\\u0000", "\\ufffd")
