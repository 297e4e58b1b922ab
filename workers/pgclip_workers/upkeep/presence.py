"""The worker's life in the database: one heartbeat row, and the leases that depend on it."""

import logging
import os
import socket
import threading
from collections.abc import Callable
from uuid import UUID, uuid4

from pgclip.database import Database, check_schema
from pgclip.errors import ModelMismatch, PgclipError, SchemaError
from pgclip.settings import Settings
from pgclip_workers import statements
from pgclip_workers.models.encoder import Encoder
from pgclip_workers.upkeep.watchdog import Watchdog

log = logging.getLogger(__name__)


class Presence:
    """Keeps the heartbeat and knows which leases this process holds.

    A lease is noted here before it is asked for, and forgotten when its batch has ended, in
    whatever way. Every heartbeat asks the database which ones it has for this worker, and releases
    those that are not held here: so no lease outlives the knowledge of it. It also says what
    `trouble` says, for those who ask about this worker, and how many items it has `stored`, lets
    the watchdog look, and tells `superseded` when the schema has become one that this package can't
    work with, or the model is retired or gone.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        model: int,
        encoder: Encoder,
        watchdog: Watchdog,
        trouble: Callable[[], str | None],
        stored: Callable[[], int],
        superseded: Callable[[PgclipError], None],
    ):
        self._settings = settings
        self._database = database
        self._watchdog = watchdog
        self._trouble = trouble
        self._stored = stored
        self._superseded = superseded
        self._row = (
            model,
            socket.gethostname(),
            os.getpid(),
            encoder.device,
            encoder.precision,
            encoder.batch_size,
            settings.lease,
        )
        self._lock = threading.Lock()
        self._held: set[UUID] = set()
        self._stopping = threading.Event()
        self.worker_id = self._sign_on()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

    def new_lease(self) -> UUID:
        """A lease to claim with, held from now on."""
        lease = uuid4()
        with self._lock:
            self._held.add(lease)
        return lease

    def forget(self, lease: UUID) -> None:
        """The lease's batch has ended; jobs still under it go back with the next heartbeat."""
        with self._lock:
            self._held.discard(lease)

    def stop(self) -> None:
        """Ends the heartbeat and hands everything back."""
        self._stopping.set()
        self._thread.join()
        try:
            with self._database.transaction("sign off") as cursor:
                cursor.execute(statements.SIGN_OFF, (self.worker_id,))
        except PgclipError as error:
            log.warning("could not sign off; the leases run out by themselves: %s", error)

    def _sign_on(self) -> int:
        self._stored_before = self._stored()  # a new row counts from here
        with self._database.transaction("sign on") as cursor:
            cursor.execute(statements.SIGN_ON, self._row)
            (worker_id,) = cursor.fetchone() or (0,)
        return int(worker_id)

    def _beat(self) -> None:
        while not self._stopping.wait(self._settings.heartbeat):
            self._watchdog.look(len(self._held))
            try:
                self._tell()
            except (SchemaError, ModelMismatch) as error:
                self._superseded(error)
            except PgclipError as error:
                log.warning("no heartbeat: %s", error)
            except Exception:  # without this thread the worker would work for nothing
                log.exception("no heartbeat")

    def _tell(self) -> None:
        with self._database.transaction("heartbeat") as cursor:
            check_schema(cursor)
            stored = self._stored() - self._stored_before
            told = (self.worker_id, self._settings.lease, self._trouble(), stored)
            cursor.execute(statements.HEARTBEAT, told)
            (leases,) = cursor.fetchone() or (None,)
        if leases is None:
            self.worker_id = self._sign_on()
            log.warning(
                "was given up for dead; goes on as worker %d. What it was working on is done again",
                self.worker_id,
            )
            return
        # Asked before it is looked up here: a lease that is noted before it is claimed is known.
        with self._lock:
            unknown = [lease for lease in leases if UUID(lease) not in self._held]
        if unknown:
            with self._database.transaction("release") as cursor:
                cursor.execute(statements.RELEASE, (self.worker_id, unknown))
