"""Answers searches: a thread of its own, so that a query never waits behind a bulk batch."""

import logging
import select
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import numpy as np

from pgclip.database import Database
from pgclip.errors import PgclipError
from pgclip.items import Kind
from pgclip_workers import statements
from pgclip_workers.models.encoder import DeviceLost, Encoder, Floats
from pgclip_workers.pictures.decode import Picture
from pgclip_workers.pictures.decoders import Decoders, Interrupted
from pgclip_workers.pictures.refused import Refused

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

log = logging.getLogger(__name__)

# A notification may be lost with a connection; a look now and then costs nothing. Behind a pooler
# nobody can listen, so each look is what a query waits for.
_LOOK_SECONDS = 0.5
_POOLED_LOOK_SECONDS = 0.13
_AT_ONCE = 16
_RECONNECT_SECONDS = 1.0


class QueryDesk:
    """Waits for notifications and turns requested queries into vectors. Takes two connections.

    `decoders` are its own: those of the pipeline have a batch queued before them. `watched`
    surrounds what asks the device. `device_lost` is called when the device is lost to this process;
    it should not return. `answered` is told how long each query took here. `keep`: whether what was
    asked is kept besides its vector.
    """

    def __init__(
        self,
        database: Database,
        encoder: Encoder,
        decoders: Decoders,
        model: int,
        watched: Callable[[], AbstractContextManager[None]],
        device_lost: Callable[[], None],
        answered: Callable[[float], object],
        keep: bool,
    ) -> None:
        self._database = database
        self._encoder = encoder
        self._decoders = decoders
        self._model = model
        self._watched = watched
        self._device_lost = device_lost
        self._answered = answered
        self._keep = keep
        self._stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, name="queries", daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """Ends after the queries at hand."""
        self._stopping.set()
        self.thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._serve()
            except PgclipError as error:
                log.warning("queries are not answered for the moment: %s", error)
            except DeviceLost:
                log.critical("the device is lost to this process", exc_info=True)
                self._device_lost()
            except Interrupted:
                return
            except Exception:
                log.exception("answering queries failed")
            self._stopping.wait(_RECONNECT_SECONDS)

    def _serve(self) -> None:
        is_pooled = self._database.shares_sessions()
        with self._database.statements("queries") as cursor:
            if not is_pooled:
                cursor.execute(statements.LISTEN_QUERIES)
            while not self._stopping.is_set():
                while self._waits(cursor):
                    self._answer()
                if is_pooled:
                    self._stopping.wait(_POOLED_LOOK_SECONDS)
                    continue
                select.select([cursor.connection], [], [], _LOOK_SECONDS)
                cursor.connection.poll()
                cursor.connection.notifies.clear()

    def _waits(self, cursor: "Cursor") -> bool:
        cursor.execute(statements.QUERY_WAITS, (self._model,))
        return cursor.fetchone() == (True,)

    def _answer(self) -> None:
        with self._database.transaction("queries") as cursor:
            cursor.execute(statements.TAKE_QUERIES, (self._model, _AT_ONCE))
            taken = cursor.fetchall()
        taken_at = time.perf_counter()
        for kind, hash_, data in taken:
            vector = self._encode(kind, bytes(data))
            with self._database.transaction("queries") as cursor:
                if isinstance(vector, str):
                    cursor.execute(statements.REFUSE_QUERY, (self._model, kind, hash_, vector))
                else:
                    arguments = (self._model, kind, hash_, vector.tolist(), self._keep)
                    cursor.execute(statements.ANSWER_QUERY, arguments)
            self._answered(time.perf_counter() - taken_at)

    def _encode(self, kind: Kind, data: bytes) -> Floats | str:
        """The query's vector, or why there is none. Of a long text the windows' mean asks."""
        try:
            if kind == "image":
                rules = self._encoder.preprocessing
                (decoded,) = self._decoders.decode([Picture(data, None)], rules)
                if isinstance(decoded, Refused):
                    return decoded.message
                with self._watched():
                    vectors = self._encoder.encode_images([decoded.array])
            else:
                with self._watched():
                    (vectors,) = self._encoder.encode_texts([data.decode()])
        except (Interrupted, DeviceLost):
            raise
        except Exception as error:
            log.exception("a query could not be encoded")
            return f"{type(error).__name__}: {error}"
        mean: Floats = vectors.mean(axis=0)
        norm = np.linalg.norm(mean)
        if not np.isfinite(norm) or norm == 0:
            return "the model gave no finite vector"
        unit: Floats = mean / norm
        return unit
