"""Makes the thumbnails that are lacking, once somebody has asked for it (pgclip.heal)."""

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

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
_TOGETHER = 16  # pictures in memory at once,
_BYTES = 32 * 2**20  # with so many bytes, unless one alone has more
# While items are encoded, which the same processes decode, this share of the time.
_SHARE = 0.2


class Lacking(NamedTuple):
    """A content without a thumbnail: with its source, or with its size if its bytes are here."""

    hash: bytes
    source: str | None
    size: int | None


class ThumbnailMaker:
    """A thread that goes through the items, of all workers any number at once, page by page.

    A picture that can't be read any more is noted, and tried again when it is asked for anew; of a
    site that is away it may come some minutes later.
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
        """How many were made of each group of pictures, until there is none for us."""
        while self._settings.thumbnails and not self._stopping.is_set():
            with self._database.transaction("thumbnails") as cursor:
                cursor.execute(
                    statements.NEXT_THUMBNAILS, (_ITEMS, self._settings.thumbnails_unkept)
                )
                hashes, sources, sizes = cursor.fetchone() or (None, None, None)
            if hashes is None:
                return
            lacking = map(Lacking, map(bytes, hashes), sources, sizes)
            for group in _groups(lacking):
                if self._stopping.is_set():
                    return
                yield self._make(group)

    def _make(self, lacking: Sequence[Lacking]) -> int:
        began = time.perf_counter()
        contents = self._contents([each.hash for each in lacking if each.source is None])
        there = [each for each in lacking if each.source is not None or each.hash in contents]
        decoded = self._pools.decode(
            [
                Picture(contents.get(each.hash), each.source, self._settings.thumbnails)
                for each in there
            ],
            self._preprocessing,
        )
        made: dict[bytes, Thumbnail | None] = {}
        for each, answer in zip(there, decoded, strict=True):
            if isinstance(answer, Pixels):
                # Behind a source there may be another picture by now: its next submission finds it.
                made[each.hash] = answer.thumbnail if answer.hash == each.hash else None
            elif answer.retry_after is None:  # else it may come in another round
                made[each.hash] = None
        self._kept.keep(made)
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


def _groups(lacking: Iterable[Lacking]) -> Iterator[list[Lacking]]:
    """In order, no more at once than memory is meant for."""
    group: list[Lacking] = []
    for each in lacking:
        size = sum(other.size or 0 for other in [*group, each])
        if group and (len(group) == _TOGETHER or size > _BYTES):
            yield group
            group = []
        group.append(each)
    if group:
        yield group
