"""Thumbnails of a batch's pictures: which should have one, and keeping those that were made."""

import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pgclip import binarycopy
from pgclip.database import Database
from pgclip.settings import Settings
from pgclip_workers import statements
from pgclip_workers.pictures.thumbnails import Thumbnail
from pgclip_workers.pipeline.batch import ContentId, Job

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

_INT16 = struct.Struct("!h").pack


class Thumbnails:
    """Those that the settings ask for: of a longest side, or none."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._side = settings.thumbnails
        self._unkept = settings.thumbnails_unkept

    def due(self, jobs: Sequence[Job]) -> dict[ContentId | str | None, int]:
        """Of these jobs of pictures, by their contents or sources, the longest side to make."""
        if not self._side or not jobs:
            return {}
        with self._database.transaction("thumbnails") as cursor:
            ids = [job.id for job in jobs]
            cursor.execute(statements.THUMBNAILS_DUE, (ids, self._unkept))
            (due,) = cursor.fetchone() or ([],)
        wanted = set(due)
        return {
            job.source or ContentId("image", job.content_hash or b""): self._side
            for job in jobs
            if job.id in wanted
        }

    def keep(self, cursor: "Cursor", made: Mapping[bytes, Thumbnail | None]) -> None:
        """Stores them, by their pictures' hashes, in the transaction; None: none can be made."""
        if not made:
            return
        cursor.execute(statements.OPEN_THUMBNAILS)
        rows = ((hash_, *_fields(small)) for hash_, small in made.items())
        binarycopy.copy_in(cursor, statements.STAGED_THUMBNAILS, rows)
        cursor.execute(statements.KEEP_THUMBNAILS, (self._unkept,))


def _fields(small: Thumbnail | None) -> tuple[bytes | None, ...]:
    if small is None:
        return None, None, None
    return _INT16(small.width), _INT16(small.height), small.data
