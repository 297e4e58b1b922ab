"""What a model's workers do for a change of models, beside encoding."""

import logging
import threading

from pgclip.database import Database
from pgclip.errors import PgclipError
from pgclip_workers import statements
from pgclip_workers.mapping.mapper import Mapper

log = logging.getLogger(__name__)


class ModelUpkeep:
    """A thread that looks every `interval` seconds: what the first minute as the live model would
    lack is prepared, and maps are learnt."""

    def __init__(self, database: Database, model: int, interval: float) -> None:
        self._database = database
        self._model = model
        self._interval = interval
        self._stopping = threading.Event()
        self._mapper = Mapper(database, model, self._stopping.is_set)
        self.thread = threading.Thread(target=self._run, name="model", daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """Ends after what is at hand; another worker, or the next start, goes on."""
        self._stopping.set()
        self.thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._interval):
            try:
                with self._database.transaction("model") as cursor:
                    cursor.execute(statements.PREPARE_MODEL, (self._model,))
                self._mapper.step()
            except PgclipError as error:
                log.warning("a change of models is not prepared: %s", error)
            except Exception:
                log.exception("a change of models is not prepared")
