"""The Prometheus endpoint of a worker. Imported where PGCLIP_METRICS_PORT asks for it.

A scrape reads what the stages have counted and asks Postgres for the queue. If Postgres does not
answer at once, the scrape goes without: what it holds up is never more than itself.
"""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from importlib.metadata import version
from typing import Any, TypeAlias

from celery.signals import task_prerun
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from pgclip.database import Database
from pgclip.errors import ConfigurationError
from pgclip.settings import Settings
from pgclip.statements import RECALL
from pgclip_workers import statements
from pgclip_workers.models.encoder import Encoder
from pgclip_workers.pipeline.batch import Batch
from pgclip_workers.telemetry.observer import Observer

# Rows of the queue, of the segments, and of what searches find.
_Rows: TypeAlias = list[tuple[Any, ...]]
_Answer: TypeAlias = tuple[_Rows, _Rows, _Rows]

_STAGE_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_QUERY_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_BATCH_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

# How long a scrape waits for Postgres, and for how long an answer serves further scrapes.
_PATIENCE_SECONDS = 2.0
_FRESH_SECONDS = 1.0
# Jobs beyond these are not counted: every worker asks, at every scrape.
_QUEUED_COUNTED = 1_000_000


class Metrics(Observer):
    """Counts what it is told and serves it over HTTP until stopped.

    `database` is its own, so that a slow answer takes no connection from a stage. Raises
    ConfigurationError if the port can't be had.
    """

    def __init__(self, settings: Settings, encoder: Encoder, database: Database) -> None:
        # Else every counter has a second series, of use to nobody here.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._define_counters()
        task_prerun.connect(self._count_ticket)
        Info("pgclip_worker", "What this worker is.", registry=self._registry).info(
            {
                "model": encoder.name,
                "device": encoder.device,
                "precision": encoder.precision,
                "version": version("pgclip"),
            }
        )
        ProcessCollector(registry=self._registry)
        if encoder.device.startswith("cuda"):
            self._registry.register(_DeviceMemory(encoder.device))
        self._queue = _Queue(database)
        self._registry.register(self._queue)
        self._server, self._thread = _listen(settings, self._registry)

    def _define_counters(self) -> None:
        registry = self._registry
        self._items = Counter(
            "pgclip_items", "Items that this worker settled.", ["outcome"], registry=registry
        )
        self._failures = Counter(
            "pgclip_failures", "Items that failed.", ["reason"], registry=registry
        )
        self._encoded = Counter(
            "pgclip_encoded", "Contents encoded for items.", ["kind"], registry=registry
        )
        self._tickets = Counter("pgclip_tickets", "Tickets taken from Redis.", registry=registry)
        self._refused = Counter(
            "pgclip_refused_messages",
            "Messages from Redis that are no tickets.",
            registry=registry,
        )
        self._batch_items = Histogram(
            "pgclip_batch_items", "Jobs in a batch.", buckets=_BATCH_ITEMS, registry=registry
        )
        self._stages = Histogram(
            "pgclip_stage_duration_seconds",
            "One batch in one stage.",
            ["stage"],
            buckets=_STAGE_SECONDS,
            registry=registry,
        )
        self._queries = Histogram(
            "pgclip_query_duration_seconds",
            "A query, from taken by this worker to answered.",
            buckets=_QUERY_SECONDS,
            registry=registry,
        )
        # Series that are there from the start: a rate over one that appears late misses its rise.
        for counter, values in (
            (self._items, ("done", "failed")),
            (self._encoded, ("image", "text")),
            (self._stages, ("fetch", "encode", "store", "tell")),
        ):
            for value in values:
                counter.labels(value)

    def stage(self, name: str) -> AbstractContextManager[object]:
        """Measures the time within, whether it ends well or not."""
        return self._stages.labels(name).time()

    def encoded(self, images: int, texts: int) -> None:
        """Counts what went through the model."""
        self._encoded.labels("image").inc(images)
        self._encoded.labels("text").inc(texts)

    def settled(self, batch: Batch) -> None:
        """Counts the jobs by what became of them."""
        failures = [batch.failures[job] for job in batch.settled if job in batch.failures]
        self._batch_items.observe(len(batch.jobs))
        self._items.labels("done").inc(len(batch.settled) - len(failures))
        self._items.labels("failed").inc(len(failures))
        for failure in failures:
            self._failures.labels(failure.reason).inc()

    def answered(self, seconds: float) -> None:
        """Counts a query."""
        self._queries.observe(seconds)

    def refused_message(self) -> None:
        """Counts a message."""
        self._refused.inc()

    def stop(self) -> None:
        """Closes the port."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._queue.stop()

    def _count_ticket(self, **_: Any) -> None:
        self._tickets.inc()


class _Queue(Collector):
    """The queue as Postgres has it at the moment of the scrape."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # Waited for with a limit that holds where those of Postgres do not: it may be frozen.
        self._asking = ThreadPoolExecutor(1, "metrics")
        self._lock = threading.Lock()
        self._answer: Future[_Answer] | None = None
        self._asked_at = 0.0

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Gauges of every model's queue, and whether Postgres answered."""
        up = GaugeMetricFamily("pgclip_database_up", "Whether Postgres answered in time.")
        jobs = GaugeMetricFamily(
            "pgclip_queue_jobs",
            "Jobs by state, of all workers together.",
            labels=["model", "state"],
        )
        age = GaugeMetricFamily(
            "pgclip_queue_oldest_age_seconds",
            "Age of the oldest of these jobs.",
            labels=["model", "state"],
        )
        unindexed = GaugeMetricFamily(
            "pgclip_unindexed_vectors",
            "Vectors that every search compares one by one.",
            labels=["model"],
        )
        sealed = GaugeMetricFamily(
            "pgclip_sealed_segments", "Segments with an index.", labels=["model"]
        )
        direction = ["model", "query_kind", "kind"]
        recall = GaugeMetricFamily(
            "pgclip_recall", "Share of the ten nearest that searches find.", labels=direction
        )
        effort = GaugeMetricFamily(
            "pgclip_recall_effort", "How much of an index a search looks at.", labels=direction
        )
        try:
            queue, segments, directions = self._current().result(timeout=_PATIENCE_SECONDS)
        except Exception:  # the gauge says it, and the stages log why
            up.add_metric([], 0)
        else:
            up.add_metric([], 1)
            for model, state, count, seconds in queue:
                jobs.add_metric([model, state], count)
                age.add_metric([model, state], seconds)
            for model, vectors, count in segments:
                unindexed.add_metric([model], vectors)
                sealed.add_metric([model], count)
            for model, query_kind, kind, share, _, _, found, _, tried, *_ in directions:
                if share == 1:
                    recall.add_metric([model, query_kind, kind], found)
                    effort.add_metric([model, query_kind, kind], tried)
        yield from (up, jobs, age, unindexed, sealed, recall, effort)

    def stop(self) -> None:
        """Asks no more, and closes the connection."""
        self._asking.shutdown(wait=False, cancel_futures=True)
        self._database.close()

    def _current(self) -> "Future[_Answer]":
        """The question under way, or its answer while that is fresh, or a new question."""
        with self._lock:
            now = time.monotonic()
            if self._answer is None or (
                self._answer.done() and now - self._asked_at > _FRESH_SECONDS
            ):
                self._answer, self._asked_at = self._asking.submit(self._ask), now
            return self._answer

    def _ask(self) -> "_Answer":
        with self._database.transaction("metrics") as cursor:
            cursor.execute(statements.QUEUE, {"most": _QUEUED_COUNTED})
            queue = cursor.fetchall()
            cursor.execute(statements.SEGMENTS)
            segments = cursor.fetchall()
            cursor.execute(RECALL)
            return queue, segments, cursor.fetchall()


class _DeviceMemory(Collector):
    """Memory of a CUDA device, as torch counts it for this process."""

    def __init__(self, device: str) -> None:
        self._device = device

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """One gauge, by what the memory is for; nothing once the device is lost."""
        from pgclip_workers.models import device

        memory = GaugeMetricFamily(
            "pgclip_device_memory_bytes", "Memory of the device.", labels=["type"]
        )
        try:
            for name, size in device.memory(self._device).items():
                memory.add_metric([name], size)
        except RuntimeError:
            return
        yield memory


def _listen(settings: Settings, registry: CollectorRegistry) -> tuple[Any, threading.Thread]:
    host, port = settings.metrics_host, settings.metrics_port
    try:
        return start_http_server(port, host, registry)
    except (OSError, OverflowError) as error:
        raise ConfigurationError(
            f"metrics can't be served on port {port} of {host}: {error}. Each worker of a machine "
            "needs a port of its own (PGCLIP_METRICS_PORT), at an address of that machine "
            "(PGCLIP_METRICS_HOST)"
        ) from error
