"""After the store: thumbnails are kept, and who waits is told."""

import logging

from pgclip.database import Database
from pgclip.errors import PgclipError
from pgclip_workers import statements
from pgclip_workers.pipeline.batch import Batch
from pgclip_workers.pipeline.thumbnails import Thumbnails

log = logging.getLogger(__name__)


class Teller:
    """The last stage. Of what it can't do nothing is lost: it is found, or can be made, later."""

    def __init__(self, database: Database, thumbnails: Thumbnails) -> None:
        self._database = database
        self._thumbnails = thumbnails

    def tell(self, batch: Batch) -> None:
        """Wakes those who wait for the batch's settled jobs."""
        if not batch.settled:
            return
        self._thumbnails.keep_of(batch)  # whoever waits may look at them next
        items = [job.item_id for job in batch.jobs if job.id in batch.settled]
        try:
            with self._database.transaction("notify") as cursor:
                cursor.execute(statements.NOTIFY_SETTLED, (items,))
        except PgclipError as error:
            log.warning("could not tell who waits: %s", error)
