"""The worker's Prometheus endpoint, scraped from real workers."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.pictures import jpeg
from support.places import DEMO_MODEL
from support.processes import REAL, WorkerFactory, eventually

from pgclip import Client, ItemFailed
from pgclip.local import LocalServices
from pgclip.migrate import migrate

Sql = Callable[..., list[Any]]
# Nothing finds work by itself: what is queued in SQL stays queued.
ASLEEP = {"PGCLIP_IDLE_POLL": "3600", "PGCLIP_STEWARD_INTERVAL": "3600"}


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


class Scrape:
    """What the endpoint answers now."""

    def __init__(self, port: int) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        self.families = list(text_string_to_metric_families(text))

    def __call__(self, name: str, **labels: str) -> float:
        """The one sample with this name and, among others, these labels."""
        (value,) = (
            sample.value
            for family in self.families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )
        return value


def test_a_scrape_tells_what_the_worker_has_done(
    client: Client, database_url: str, start_worker: WorkerFactory, port: int
) -> None:
    start_worker(database_url, PGCLIP_METRICS_PORT=str(port), PGCLIP_BATCH_SIZE="8")
    before = Scrape(port)
    assert before("pgclip_items_total", outcome="done") == 0
    assert before("pgclip_worker_info", model="planted", device="cpu", precision="float32") == 1
    assert before("process_resident_memory_bytes") > 10 * 2**20
    batch = client.submit_many(
        [
            *({"text": f"text {n}"} for n in range(70)),
            *({"image": jpeg(n)} for n in range(3)),
            {"image": b"no picture"},
            {"text": "not finite"},
            {"text": "out of memory"},
        ]
    )
    with pytest.raises(ItemFailed):
        batch.wait(60)
    eventually(lambda: Scrape(port)("pgclip_items_total", outcome="done") == 73)
    after = Scrape(port)
    assert after("pgclip_items_total", outcome="failed") == 3
    for reason in ("not_an_image", "not_finite", "out_of_memory"):
        assert after("pgclip_failures_total", reason=reason) == 1
    assert after("pgclip_encoded_total", kind="image") == 3
    assert after("pgclip_encoded_total", kind="text") == 72
    assert after("pgclip_batch_items_sum") == 76
    batches = after("pgclip_batch_items_count")
    assert batches >= 2
    for stage in ("fetch", "encode", "store", "tell"):
        assert after("pgclip_stage_duration_seconds_count", stage=stage) == batches
        assert 0 < after("pgclip_stage_duration_seconds_sum", stage=stage) < 60
    assert after("pgclip_tickets_total") >= 1


def test_queries_are_timed(
    client: Client, database_url: str, start_worker: WorkerFactory, port: int
) -> None:
    start_worker(database_url, PGCLIP_METRICS_PORT=str(port))
    client.search("sleep 0.2")
    client.search("sleep 0.2")  # known now: no worker has to answer
    eventually(lambda: Scrape(port)("pgclip_query_duration_seconds_count") == 1)
    assert Scrape(port)("pgclip_query_duration_seconds_sum") >= 0.2


def test_an_item_that_cannot_be_stored_counts_once(
    client: Client, database_url: str, sql: Sql, start_worker: WorkerFactory, port: int
) -> None:
    worker = start_worker(database_url, PGCLIP_METRICS_PORT=str(port))
    (model,) = sql("SELECT id FROM pgclip.model")[0]
    sql(f"ALTER TABLE pgclip.embedding_{model}_1 ADD CHECK (item_id % 3 <> 0)")
    batch = client.submit_many({"text": f"text {n}"} for n in range(3))
    with pytest.raises(ItemFailed):
        batch.wait(60)
    eventually(lambda: Scrape(port)("pgclip_items_total", outcome="done") == 2)
    assert "is stored one by one" in worker.log.read_text()
    assert Scrape(port)("pgclip_items_total", outcome="failed") == 1
    assert Scrape(port)("pgclip_batch_items_sum") == 3
    assert Scrape(port)("pgclip_failures_total", reason="not_storable") == 1


def test_the_queue_is_told_by_state_and_age(
    client: Client, database_url: str, sql: Sql, start_worker: WorkerFactory, port: int
) -> None:
    start_worker(database_url, PGCLIP_METRICS_PORT=str(port), PGCLIP_BATCH_SIZE="1", **ASLEEP)

    def queue(name: str, state: str) -> float:
        return Scrape(port)(f"pgclip_queue_{name}", model="planted", state=state)

    assert queue("jobs", "queued") == queue("oldest_age_seconds", "queued") == 0
    sql("SELECT pgclip.submit_text('later', key => 'later', priority => 9)")
    eventually(lambda: queue("jobs", "queued") == 1)
    assert queue("oldest_age_seconds", "queued") == 0  # its turn comes in minutes
    sql("SELECT pgclip.submit_text('now', key => 'now')")
    sql("UPDATE pgclip.job SET rank = now() - interval '1 hour' WHERE rank < now()")
    eventually(lambda: queue("jobs", "queued") == 2)
    assert 3600 <= queue("oldest_age_seconds", "queued") < 3700
    assert queue("jobs", "leased") == 0
    sql("DELETE FROM pgclip.item")
    client.submit_text("sleep 3")
    eventually(lambda: queue("jobs", "leased") == 1)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[LocalServices]:
    """A Postgres that a test may stop."""
    with LocalServices(tmp_path / "own") as own:
        migrate(own.database_url)
        yield own


def test_without_postgres_the_rest_is_told(
    own: LocalServices, start_worker: WorkerFactory, port: int
) -> None:
    start_worker(own.database_url, PGCLIP_METRICS_PORT=str(port))
    assert Scrape(port)("pgclip_database_up") == 1
    assert own.postgres_pid is not None
    server = psutil.Process(own.postgres_pid)
    everyone = [server, *server.children(recursive=True)]

    for process in everyone:  # connections stay open, and nothing ever comes back
        process.suspend()
    eventually(lambda: Scrape(port)("pgclip_database_up") == 0)
    began = time.monotonic()
    assert Scrape(port)("pgclip_items_total", outcome="done") == 0
    assert time.monotonic() - began < 5
    for process in everyone:
        process.resume()
    eventually(lambda: Scrape(port)("pgclip_database_up") == 1)

    server.send_signal(signal.SIGQUIT)
    server.wait(30)
    eventually(lambda: Scrape(port)("pgclip_database_up") == 0)
    assert not any(family.samples for family in Scrape(port).families if "queue" in family.name)
    own.start()
    eventually(lambda: Scrape(port)("pgclip_database_up") == 1)
    assert Scrape(port)("pgclip_queue_jobs", state="queued") == 0


def test_a_port_in_use_is_named_before_any_work_is_taken(
    database_url: str, sql: Sql, start_worker: WorkerFactory, port: int
) -> None:
    with socket.create_server(("127.0.0.1", port)):
        worker = start_worker(database_url, ready=False, PGCLIP_METRICS_PORT=str(port))
        assert worker.wait() == 1
    log = worker.log.read_text()
    assert f"port {port}" in log
    assert "PGCLIP_METRICS_PORT" in log
    assert "Traceback" not in log
    assert sql("SELECT count(*) FROM pgclip.worker") == [(0,)]


def test_the_endpoint_ends_with_the_worker(
    database_url: str, start_worker: WorkerFactory, port: int
) -> None:
    worker = start_worker(
        database_url, REAL, PGCLIP_MODEL=str(DEMO_MODEL), PGCLIP_METRICS_PORT=str(port)
    )
    assert Scrape(port)("pgclip_worker_info", model=DEMO_MODEL.name) == 1
    # A scraper that sends no request holds nothing up.
    with socket.create_connection(("127.0.0.1", port)):
        worker.kill(signal.SIGTERM)
        assert worker.wait() == 0
    assert "Traceback" not in worker.log.read_text()


def test_without_a_port_nothing_of_prometheus_is_loaded() -> None:
    code = "import sys, pgclip_workers.worker; print('prometheus_client' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], env=os.environ, capture_output=True, check=True
    )
    assert run.stdout.split() == [b"False"]
