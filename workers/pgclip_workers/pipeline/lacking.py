"""Makes the thumbnails that are lacking, once somebody has asked for it (pgclip.heal)."""

import logging
import threading
import time
from collections.abc import Iterator, Sequence

from pgclip import binarycopy
from pgclip.database import Database
from pgclip.errors import PgclipError
from pgclip.settings import Settings
from pgclip_workers import statements
from pgclip_workers.pictures.decode import Picture, Pixels
from pgclip_workers.pictures.decoders import Interrupted
from pgclip_workers.pictures.pools import Pools
from pgclip_workers.pictures.preprocessing import Preprocessing
from pgclip_workers.pictures.thumbnails import Thumbnail
from pgclip_workers.pipeline.thumbnails import Thumbnails

log = logging.getLogger(__name__)

_ITEMS = 500  # that are looked at at once
_TOGETHER = 16  # pictures in memory at once
# While items are encoded, which the same processes decode, this share of the time.
_SHARE = 0.2


class ThumbnailMaker:
    """A thread that goes through the items, of all workers any number at once, page by page.

    A picture that can't be read any more is noted, and tried again when it is asked for anew.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        pools: Pools,
        preprocessing: Preprocessing,
        model: int,
    ) -> None:
        self._settings = settings
        self._database = database
        self._pools = pools
        self._preprocessing = preprocessing
        self._model = model
        self._kept = Thumbnails(database, settings)
        self._stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, name="thumbnails", daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """Ends after the pictures at hand."""
        self._stopping.set()
        self.thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(self._settings.steward_interval):
            try:
                made = sum(self._pages())
                if made:
                    log.info("made %d thumbnails that were lacking", made)
            except Interrupted:  # the worker is stopping
                return
            except PgclipError as error:
                log.warning("thumbnails that are lacking are not made: %s", error)
            except Exception:
                log.exception("thumbnails that are lacking are not made")

    def _pages(self) -> Iterator[int]:
        """How many were made of each page, until there is none for us."""
        while self._settings.thumbnails and not self._stopping.is_set():
            with self._database.transaction("thumbnails") as cursor:
                cursor.execute(
                    statements.NEXT_THUMBNAILS, (_ITEMS, self._settings.thumbnails_unkept)
                )
                hashes, sources = cursor.fetchone() or (None, None)
            if hashes is None:
                return
            lacking = list(zip(map(bytes, hashes), sources, strict=True))
            for at in range(0, len(lacking), _TOGETHER):
                if self._stopping.is_set():
                    return
                yield self._make(lacking[at : at + _TOGETHER])

    def _make(self, lacking: Sequence[tuple[bytes, str | None]]) -> int:
        began = time.perf_counter()
        contents = self._contents([hash_ for hash_, source in lacking if source is None])
        pictures = [
            Picture(contents.get(hash_), source, self._settings.thumbnails)
            for hash_, source in lacking
            if source is not None or hash_ in contents  # else it was deleted meanwhile
        ]
        decoded = self._pools.decode(pictures, self._preprocessing)
        # What is behind a source may be another picture by now, which its next submission finds.
        made: dict[bytes, Thumbnail | None] = {
            hash_: None for hash_, source in lacking if source is not None or hash_ in contents
        }
        for hash_, answer in zip(tuple(made), decoded, strict=True):
            if isinstance(answer, Pixels) and answer.hash == hash_:
                made[hash_] = answer.thumbnail
        with self._database.transaction("thumbnails") as cursor:
            self._kept.keep(cursor, made)
        if self._is_busy():
            self._stopping.wait((time.perf_counter() - began) * (1 / _SHARE - 1))
        return sum(small is not None for small in made.values())

    def _contents(self, hashes: Sequence[bytes]) -> dict[bytes, bytes]:
        """Those that are there."""
        if not hashes:
            return {}
        with self._database.transaction("thumbnails") as cursor:
            given = {
                "kinds": cursor.mogrify("%s", (["image"] * len(hashes),)).decode(),
                "hashes": cursor.mogrify("%s", (list(hashes),)).decode(),
            }
            rows = binarycopy.copy_out(cursor, statements.FETCH.format(**given))
            return {hash_: data for _, hash_, data in rows if hash_ and data}

    def _is_busy(self) -> bool:
        with self._database.transaction("thumbnails") as cursor:
            cursor.execute(statements.IS_BUSY, (self._model,))
            return cursor.fetchone() == (True,)
