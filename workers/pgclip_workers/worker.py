"""The worker's parts, started in order and stopped in reverse."""

import json
import logging
import os
import signal
import threading

from pgclip.database import Database
from pgclip.errors import PgclipError
from pgclip.settings import Settings
from pgclip.submitting.tickets import TicketOffice
from pgclip_workers import statements
from pgclip_workers.consumer import Link, consume
from pgclip_workers.labelling.decider import Decider
from pgclip_workers.labelling.relabeler import Relabeler
from pgclip_workers.labelling.shelf import LabelShelf
from pgclip_workers.labelling.tasks import LabelTasks
from pgclip_workers.labelling.upkeep import LabelUpkeep
from pgclip_workers.mapping.upkeep import ModelUpkeep
from pgclip_workers.models.encoder import Encoder
from pgclip_workers.pictures.pools import Pools
from pgclip_workers.pipeline.batch import Batch
from pgclip_workers.pipeline.encode import encode
from pgclip_workers.pipeline.fetch import fetch
from pgclip_workers.pipeline.lacking import ThumbnailMaker
from pgclip_workers.pipeline.leases import Leases
from pgclip_workers.pipeline.pipeline import Pipeline
from pgclip_workers.pipeline.store import Store
from pgclip_workers.pipeline.tell import Teller
from pgclip_workers.pipeline.thumbnails import Thumbnails
from pgclip_workers.queries import QueryDesk
from pgclip_workers.telemetry import logs
from pgclip_workers.telemetry.observer import Observer
from pgclip_workers.upkeep.presence import Presence
from pgclip_workers.upkeep.sealer import Sealer
from pgclip_workers.upkeep.steward import Steward
from pgclip_workers.upkeep.tables import TableFollower
from pgclip_workers.upkeep.watchdog import STUCK_EXIT, Watchdog

log = logging.getLogger(__name__)

_SUPERSEDED_EXIT = 75  # EX_TEMPFAIL: whoever starts it again should have another version by then
# A transaction that a frozen process holds open must let go of its locks. All that a worker asks
# for it asks by key: tables that grew since their last ANALYZE must not be read whole; and what is
# read whole nevertheless must not look so costly that it is compiled first.
_LOCAL = {
    "enable_seqscan": "off",
    "jit": "off",
    "random_page_cost": "1.1",
    "lock_timeout": "5s",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "15s",
}


class Worker:
    """One model on one device, from registration to the last hand-back."""

    def __init__(self, settings: Settings, encoder: Encoder, pools: Pools) -> None:
        self._settings = settings
        self._encoder = encoder
        self._pools = pools
        self._database = self._connections(11)
        # A heartbeat must not wait for a connection that a stage has.
        self._pulse = self._connections(1)
        self._answers = self._connections(2, settings.unpooled_url)
        self._tickets = TicketOffice(settings)
        self._watchdog = Watchdog(settings, lambda: pools.moved)
        self._model, self._queue = self._register()
        self._observer = self._make_observer()
        self._status = 0
        self._stored = 0  # items, for the heartbeat

    def run(self) -> int:
        """Works until SIGTERM or SIGINT; returns the exit status."""
        encoder, database = self._encoder, self._database
        watchdog = self._watchdog
        shelf = LabelShelf(database, encoder, self._model, watchdog.encoding)
        shelf.book()
        steward = Steward(self._settings, database, self._tickets, encoder.batch_size)
        sealer = Sealer(self._settings, database, self._model)
        tables = TableFollower(self._settings, database, self._tickets)
        link = Link()
        parts: list[Steward | Sealer | Link | Pipeline] = [steward, sealer, link]
        presence = Presence(
            self._settings, self._pulse, self._model, encoder, watchdog,
            lambda: "; ".join(part.trouble for part in parts if part.trouble) or None,
            lambda: self._stored, self._give_way,
        )  # fmt: skip
        pipeline = self._pipeline(presence, shelf, sealer)
        parts.append(pipeline)
        labels = LabelUpkeep(
            LabelTasks(database, shelf, self._model, lambda: presence.worker_id),
            Relabeler(database, shelf, self._model, encoder.dimension),
            Decider(database),
            self._settings.idle_poll,
            _exit_at_once,
        )
        models = ModelUpkeep(database, self._model, self._settings.steward_interval)
        maker = ThumbnailMaker(
            self._settings, database, self._pools, encoder.preprocessing, self._model
        )
        desk = QueryDesk(
            self._answers, encoder, self._pools.queries, self._model, watchdog.encoding,
            _exit_at_once, self._observer.answered, self._settings.keep_queries > 0,
        )  # fmt: skip
        idle = threading.Thread(target=self._look_for_work, args=(pipeline,), name="idle")
        threading.Thread(target=self._interrupt, args=(pipeline,), daemon=True).start()
        log.info(
            "worker %d ready: model %s on %s in %s, batches of %d",
            presence.worker_id,
            encoder.name,
            encoder.device,
            encoder.precision,
            encoder.batch_size,
        )
        try:
            idle.start()
            watchdog.guard(
                pipeline.stopping,
                *(*pipeline.threads, idle, desk.thread, labels.thread),
                *(steward.thread, sealer.thread, tables.thread, models.thread, maker.thread),
            )  # fmt: skip
            name = f"pgclip-{os.getpid()}"
            refused = self._observer.refused_message
            status = consume(
                self._settings, self._queue, name, self._tickets, pipeline, refused, link
            )
            return self._status or status
        finally:
            log.info("stopping: what is encoded is stored, the rest goes back")
            pipeline.stop()
            idle.join()
            sealer.stop()  # before the last batch, which may be waiting for it
            pipeline.join()
            labels.stop()
            models.stop()
            maker.stop()
            desk.stop()
            steward.stop()
            tables.stop()
            presence.stop()
            self._observer.stop()
            self._tickets.close()
            for connections in (self._database, self._pulse, self._answers):
                connections.close()

    def _pipeline(self, presence: Presence, shelf: LabelShelf, sealer: Sealer) -> Pipeline:
        encoder = self._encoder
        leases = Leases(self._database, presence, self._model, encoder.batch_size)
        thumbnails = Thumbnails(self._database, self._settings)
        teller = Teller(self._database, thumbnails)
        store = Store(self._database, shelf, encoder.dimension, self._settings.fetch_retry_for)
        observer, watchdog = self._observer, self._watchdog

        def fetch_stage(batch: Batch) -> None:
            with observer.stage("fetch"):
                fetch(batch, leases, self._pools, encoder.preprocessing, thumbnails)

        def encode_stage(batch: Batch) -> None:
            images, texts = len(batch.images), len(batch.texts)
            with watchdog.encoding(), observer.stage("encode"):
                encode(batch, encoder)
            observer.encoded(images, texts)

        def store_stage(batch: Batch) -> None:
            sealer.wait_for_room(watchdog.progressed)
            try:
                with observer.stage("store"):
                    store.store(batch)
            except PgclipError:  # of a batch stored one by one, what came before it has ended
                teller.tell(batch)
                raise
            finally:
                if batch.settled:
                    self._stored += len(batch.settled)
                    logs.settled(batch)
                    observer.settled(batch)

        def tell_stage(batch: Batch) -> None:
            with observer.stage("tell"):
                teller.tell(batch)

        return Pipeline(
            leases, fetch_stage, encode_stage, store_stage, tell_stage,
            _exit_at_once, watchdog.progressed,
            fetchers=2 if self._encoder.device.startswith("cuda") else 1,
        )  # fmt: skip

    def _make_observer(self) -> Observer:
        if not self._settings.metrics_port:
            return Observer()
        from pgclip_workers.telemetry.metrics import Metrics

        return Metrics(self._settings, self._encoder, self._connections(1, statement_timeout="2s"))

    def _connections(self, size: int, url: str = "", **local: str) -> Database:
        return Database(
            url or self._settings.required("database_url"),
            pool_size=size,
            connect_timeout=self._settings.connect_timeout,
            local={**_LOCAL, **local},
            application_name="pgclip worker",
        )

    def _register(self) -> tuple[int, str]:
        """The model's id and its ticket queue. Raises ModelMismatch if vectors would not mix."""
        encoder = self._encoder
        row = (
            encoder.name,
            encoder.dimension,
            encoder.logit_scale,
            json.dumps(encoder.fingerprint),
        )
        with self._database.transaction(f"model {encoder.name}") as cursor:
            cursor.execute(statements.REGISTER_MODEL, row)
            (model,) = cursor.fetchone() or (0,)
            cursor.execute(statements.TICKET_QUEUE, (model,))
            (queue,) = cursor.fetchone() or ("",)
        return model, queue

    def _look_for_work(self, pipeline: Pipeline) -> None:
        """Finds what was submitted without a ticket."""
        while not pipeline.stopping.wait(self._settings.idle_poll):
            if pipeline.idle:
                try:
                    pipeline.drain()
                except PgclipError as error:
                    log.warning("can't look for work: %s", error)
                except Exception:
                    log.exception("can't look for work")

    def _give_way(self, why: PgclipError) -> None:
        """The schema or the model is another one now: what is held goes back, the process ends."""
        if not self._status:
            log.critical("%s. Work goes back, and this worker ends", why)
            self._status = _SUPERSEDED_EXIT
            os.kill(os.getpid(), signal.SIGTERM)

    def _interrupt(self, pipeline: Pipeline) -> None:
        """Ends the decoding under way as soon as the worker stops."""
        pipeline.stopping.wait()
        self._pools.stop()


def _exit_at_once() -> None:
    """Ends the process as it is: its leases run out, and others do the work."""
    os._exit(STUCK_EXIT)
