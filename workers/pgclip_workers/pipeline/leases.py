"""Claiming jobs under a lease, fetching their contents, handing them back."""

import logging
from collections.abc import Iterable
from uuid import UUID

import numpy as np

from pgclip import binarycopy
from pgclip.database import Database
from pgclip.errors import PgclipError
from pgclip.items import Kind
from pgclip_workers import statements
from pgclip_workers.models.encoder import Floats
from pgclip_workers.pipeline.batch import Batch, ContentId, Job
from pgclip_workers.upkeep.presence import Presence

log = logging.getLogger(__name__)

# Inline content that a batch may bring into memory, unless one item alone has more.
_MAX_BYTES = 128 * 2**20
# Texts that may come in place of a picture.
_TEXTS = 4


class Leases:
    """The queue, as this worker sees it."""

    def __init__(self, database: Database, presence: Presence, model: int, batch_size: int) -> None:
        self._database = database
        self._presence = presence
        self._model = model
        self._batch_size = batch_size

    def claim(self) -> Batch | None:
        """The oldest queued jobs, up to a batch; None if there are none for us now."""
        lease = self._presence.new_lease()
        try:
            with self._database.transaction("claim") as cursor:
                cursor.execute(
                    statements.CLAIM,
                    (self._presence.worker_id, str(lease), self._batch_size, _MAX_BYTES, _TEXTS),
                )
                rows = cursor.fetchall()
        except BaseException:
            self._presence.forget(lease)
            raise
        if not rows:
            self._presence.forget(lease)
            return None
        jobs = [
            Job(job_id, item_id, collection, key, kind, hash_ and bytes(hash_), source)
            for job_id, item_id, collection, key, kind, hash_, source in rows
        ]
        return Batch(lease, jobs)

    def hand_back(self, lease: UUID) -> None:
        """Returns the lease's jobs to the queue. If that fails, the next heartbeat does it."""
        self._presence.forget(lease)
        try:
            with self._database.transaction("hand back") as cursor:
                cursor.execute(statements.RELEASE, (self._presence.worker_id, [str(lease)]))
        except PgclipError as error:
            log.warning("could not hand jobs back at once: %s", error)

    def ended(self, lease: UUID) -> None:
        """The lease's jobs are settled."""
        self._presence.forget(lease)

    def fetch(self, contents: Iterable[ContentId]) -> dict[ContentId, bytes | None]:
        """The bytes of inline contents, None where they were dropped.

        A content that is missing has been replaced or deleted.
        """
        wanted = list(contents)
        if not wanted:
            return {}
        with self._database.transaction("fetch") as cursor:
            kinds = cursor.mogrify("%s", ([content.kind for content in wanted],)).decode()
            hashes = cursor.mogrify("%s", ([content.hash for content in wanted],)).decode()
            rows = binarycopy.copy_out(cursor, statements.FETCH.format(kinds=kinds, hashes=hashes))
            return {
                ContentId("image" if kind == b"image" else "text", hash_): data
                for kind, hash_, data in rows
                if hash_ is not None
            }

    def known(self, contents: Iterable[ContentId]) -> dict[ContentId, Floats]:
        """The embeddings, (n, dimension), of those contents that are stored already."""
        by_kind: dict[Kind, list[bytes]] = {}
        for content in contents:
            by_kind.setdefault(content.kind, []).append(content.hash)
        found: dict[ContentId, list[list[float]]] = {}
        if by_kind:
            with self._database.transaction("known embeddings") as cursor:
                for kind, hashes in by_kind.items():
                    cursor.execute(statements.KNOWN, (self._model, kind, hashes))
                    for hash_, embedding in cursor.fetchall():
                        found.setdefault(ContentId(kind, bytes(hash_)), []).append(embedding)
        return {content: np.array(rows, np.float32) for content, rows in found.items()}
