"""The worker's log as people and machines read it: stdout and stderr of real processes."""

import json
import re
import signal
import socket
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from support.places import DEMO_MODEL
from support.processes import REAL, WorkerFactory, WorkerProcess, eventually

from pgclip import Client, ItemFailed
from pgclip.local import LocalServices

JSON = {"PGCLIP_LOG_FORMAT": "json"}


def lines(worker: WorkerProcess) -> list[dict[str, Any]]:
    """Every line of a process, parsed. Fails on one that is not an object."""
    parsed = [json.loads(line) for line in worker.log.read_text().splitlines()]
    assert all(isinstance(line, dict) for line in parsed)
    return parsed


def test_every_line_is_json_from_start_to_stop(
    client: Client, database_url: str, services: LocalServices, start_worker: WorkerFactory
) -> None:
    worker = start_worker(database_url, REAL, PGCLIP_MODEL=str(DEMO_MODEL), **JSON)
    client.submit_text("a black cat").wait(60)
    redis.Redis.from_url(services.redis_url).execute_command("CLIENT", "KILL", "TYPE", "normal")
    eventually(lambda: "onnection to broker lost" in worker.log.read_text())
    client.submit_text("a white cat").wait(60)
    worker.kill(signal.SIGTERM)
    assert worker.wait() == 0
    log = lines(worker)
    for line in log:
        assert {"timestamp", "level", "logger", "thread", "message"} <= set(line)
        assert datetime.fromisoformat(line["timestamp"]).utcoffset() == timedelta(0)
    assert {"celery", "pgclip_workers"} <= {line["logger"].split(".")[0] for line in log}


def test_a_failed_item_and_its_batch_have_fields(
    client: Client, database_url: str, start_worker: WorkerFactory
) -> None:
    worker = start_worker(database_url, **JSON)
    batch = client.submit_many(
        [
            {"text": "fine", "key": "fine"},
            {"text": "not finite", "key": "büß", "collection": "shop"},
        ]
    )
    with pytest.raises(ItemFailed):
        batch.wait(60)
    eventually(lambda: " settled, " in worker.log.read_text())
    (failed,) = (line for line in lines(worker) if line.get("item") == "büß")
    assert failed["level"] == "WARNING"
    assert (failed["item"], failed["collection"]) == ("büß", "shop")
    assert failed["reason"] == "not_finite"
    assert isinstance(failed["job"], int)
    (whole,) = (line for line in lines(worker) if "size" in line)
    assert whole["level"] == "INFO"
    assert whole["batch"] == failed["batch"]
    assert whole["size"] == 2
    assert 0 < whole["seconds"] < 60


def test_a_traceback_is_a_field(
    client: Client, database_url: str, start_worker: WorkerFactory
) -> None:
    worker = start_worker(database_url, **JSON)
    job = client.submit_text("fail", key="bad")
    with pytest.raises(ItemFailed):
        job.wait(60)
    eventually(lambda: "encoding_failed" in worker.log.read_text())
    (line,) = (line for line in lines(worker) if "exc_info" in line)
    assert line["exc_info"].startswith("Traceback")
    assert line["exc_info"].endswith("RuntimeError: the model failed")


def test_an_error_at_the_start_is_json_too(database_url: str, start_worker: WorkerFactory) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        worker = start_worker(
            *(database_url, REAL, False),
            PGCLIP_MODEL=str(DEMO_MODEL),
            PGCLIP_METRICS_PORT=port,
            **JSON,
        )
        assert worker.wait() == 1
    assert "PGCLIP_METRICS_PORT" in lines(worker)[-1]["message"]


def test_text_says_the_same_to_people(
    client: Client, database_url: str, start_worker: WorkerFactory
) -> None:
    worker = start_worker(database_url)
    job = client.submit_text("not finite", key="bad", collection="shop")
    with pytest.raises(ItemFailed):
        job.wait(60)
    eventually(lambda: " settled, " in worker.log.read_text())
    log = worker.log.read_text()
    assert "item 'bad' in collection 'shop' failed (not_finite): " in log
    assert "1 of 1 settled, 1 as failed" in log


def test_a_file_has_all_and_the_terminal_has_warnings(
    database_url: str, client: Client, start_worker: WorkerFactory, tmp_path: Path
) -> None:
    file = tmp_path / "worker.log"
    worker = start_worker(database_url, ready=False, PGCLIP_LOG_FILE=str(file))
    with pytest.raises(ItemFailed):
        client.submit_text("not finite", key="bad").wait(60)
    worker.kill(signal.SIGTERM)
    assert worker.wait() == 0
    told = worker.log.read_text()
    assert re.search(r"^\d\d:\d\d:\d\d WARNING .*'bad'.* failed", told, re.MULTILINE)
    assert " INFO " not in told
    whole = file.read_text()
    assert all(part in whole for part in ("ready: model", "'bad'", "settled", "stopping"))


def test_a_file_that_cannot_be_written_is_said(
    database_url: str, start_worker: WorkerFactory
) -> None:
    worker = start_worker(database_url, ready=False, PGCLIP_LOG_FILE="/nonexistent/log")
    assert worker.wait() == 1
    assert "PGCLIP_LOG_FILE: '/nonexistent/log': No such file" in worker.log.read_text()


def test_the_level_leaves_out_what_is_below(
    client: Client, database_url: str, start_worker: WorkerFactory
) -> None:
    worker = start_worker(database_url, ready=False, PGCLIP_LOG_LEVEL="WARNING", **JSON)
    job = client.submit_text("not finite", key="bad")
    with pytest.raises(ItemFailed):
        job.wait(60)
    eventually(lambda: "not_finite" in worker.log.read_text())
    worker.kill(signal.SIGTERM)
    assert worker.wait() == 0
    assert {line["level"] for line in lines(worker)} == {"WARNING"}
