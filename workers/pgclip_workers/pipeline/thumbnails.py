"""Thumbnails of a batch's pictures: which should have one, and keeping those that were made."""

import logging
import struct
from collections.abc import Mapping, Sequence

from pgclip import binarycopy
from pgclip.database import Database
from pgclip.errors import PgclipError
from pgclip.settings import Settings
from pgclip_workers import statements
from pgclip_workers.pictures.thumbnails import Thumbnail
from pgclip_workers.pipeline.batch import Batch, ContentId, Job

log = logging.getLogger(__name__)

_PATIENCE = "300ms"
_INT16 = struct.Struct("!h").pack


class Thumbnails:
    """Those that the settings ask for: of a longest side, or none."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._side = settings.thumbnails
        self._unkept = settings.thumbnails_unkept

    def due(self, jobs: Sequence[Job]) -> dict[ContentId | str | None, int]:
        """Of these jobs, by their contents or sources, the longest side of a thumbnail to make."""
        pictures = [job for job in jobs if job.kind == "image"]
        if not self._side or not pictures:
            return {}
        with self._database.transaction("thumbnails") as cursor:
            ids = [job.id for job in pictures]
            cursor.execute(statements.THUMBNAILS_DUE, (ids, self._unkept))
            (due,) = cursor.fetchone() or ([],)
        wanted = set(due)
        return {
            job.source or ContentId("image", job.content_hash or b""): self._side
            for job in pictures
            if job.id in wanted
        }

    def keep_of(self, batch: Batch) -> None:
        """Those of the batch's settled jobs. What can't be kept is lacking, and nothing else."""
        hashes = {batch.content_of[job].hash for job in batch.settled & batch.content_of.keys()}
        made = {hash_: batch.thumbnails.pop(hash_) for hash_ in hashes & batch.thumbnails.keys()}
        try:
            self.keep(made)
        except PgclipError as error:
            log.info("%d thumbnails are not kept, pgclip.heal brings them: %s", len(made), error)

    def keep(self, made: Mapping[bytes, Thumbnail | None]) -> None:
        """Stores them, by their pictures' hashes; None: none can be made. Raises PgclipError."""
        if not made:
            return
        rows = ((hash_, *_fields(small)) for hash_, small in made.items())
        # Apart from the vectors, and soon given up: somebody may hold an item for long.
        with self._database.transaction("thumbnails", lock_timeout=_PATIENCE) as cursor:
            cursor.execute(statements.OPEN_THUMBNAILS)
            binarycopy.copy_in(cursor, statements.STAGED_THUMBNAILS, rows)
            cursor.execute(statements.KEEP_THUMBNAILS, (self._unkept,))


def _fields(small: Thumbnail | None) -> tuple[bytes | None, ...]:
    if small is None:
        return None, None, None
    return _INT16(small.width), _INT16(small.height), small.data
