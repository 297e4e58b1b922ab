"""Sites that are away, busy or slow: the queue tries again, and others do not wait for them."""

import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from support.pictures import jpeg
from support.processes import WorkerFactory, eventually

from pgclip import Client

ITEMS = 40
NewSite = Callable[..., Any]


class Site(http.server.ThreadingHTTPServer):
    """Answers as `status` says, and remembers when it was asked for what."""

    daemon_threads = True
    status, headers = 200, {"Content-Type": "image/jpeg"}

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.asked: list[tuple[str, float]] = []
        self.hanging = threading.Event()
        self.hanging.set()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def close(self) -> None:
        self.hanging.set()
        self.shutdown()
        self.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        site: Any = self.server
        site.asked.append((self.path, time.monotonic()))
        site.hanging.wait(60)
        body = jpeg(len(self.path)) if site.status == 200 else b""
        self.send_response(site.status)
        for name, value in (site.headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def running(port: int = 0) -> Iterator[Site]:
    site = Site(port)
    try:
        yield site
    finally:
        site.close()


@pytest.fixture
def fetcher(start_worker: WorkerFactory, database_url: str, client: Client) -> Client:
    """A client of a worker that fetches from this machine, and whose steward is quick."""
    start_worker(database_url, PGCLIP_URLS="http://", PGCLIP_PRIVATE_URLS="on",
                 PGCLIP_STEWARD_INTERVAL="0.3", PGCLIP_FETCHERS="4")  # fmt: skip
    return client


def submit(client: Client, url: str, count: int = ITEMS) -> None:
    assert client.submit_many({"image": f"{url}/{n}.jpg"} for n in range(count)).accepted == count


def test_a_site_that_is_away_for_a_while_loses_nothing(fetcher: Client) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    submit(fetcher, f"http://127.0.0.1:{port}")
    eventually(lambda: all(item.retry_at for item in fetcher.items()))
    (first, *_) = fetcher.items()
    assert (first.state, first.reason) == ("queued", "fetch_failed")
    with running(port) as site:
        eventually(lambda: fetcher.count()["done"] == ITEMS, timeout=90)
        assert len(site.asked) == ITEMS


def test_a_site_that_asks_for_time_is_given_it(fetcher: Client) -> None:
    with running() as site:
        site.status, site.headers = 429, {"Retry-After": "8"}
        submit(fetcher, site.url)
        eventually(lambda: all(item.retry_at for item in fetcher.items()))
        before = list(site.asked)
        site.status, site.headers = 200, {}
        eventually(lambda: fetcher.count()["done"] == ITEMS, timeout=90)
        after = site.asked[len(before) :]
        assert len(before) < ITEMS  # a few were tried, and the others not
        assert min(at for _, at in after) - max(at for _, at in before) > 7.5


def test_what_is_for_good_is_not_tried_again(fetcher: Client) -> None:
    for status, reason in ((403, "fetch_failed"), (404, "missing_file"), (410, "missing_file")):
        with running() as site:
            site.status = status
            job = fetcher.submit_image(f"{site.url}/a.jpg")
            eventually(lambda job=job: job.status().state == "failed")
            assert fetcher.get(job.key).reason == reason
            assert len(site.asked) == 1


def test_a_slow_host_holds_up_no_other(fetcher: Client) -> None:
    with running() as slow, running() as quick:
        slow.hanging.clear()
        mixed = [{"image": f"{site.url}/{n}.jpg", "metadata": {"slow": site is slow}}
                 for n in range(ITEMS) for site in (slow, quick)]  # fmt: skip
        fetcher.submit_many(mixed)
        eventually(lambda: fetcher.count(metadata={"slow": False})["done"] == ITEMS, timeout=90)
        assert fetcher.count(metadata={"slow": True})["done"] == 0
        assert len(slow.asked) < ITEMS
        slow.hanging.set()
        eventually(lambda: fetcher.count()["done"] == 2 * ITEMS, timeout=120)


def test_it_fails_once_it_took_too_long(
    start_worker: WorkerFactory, database_url: str, client: Client
) -> None:
    start_worker(database_url, PGCLIP_URLS="http://", PGCLIP_PRIVATE_URLS="on",
                 PGCLIP_FETCH_RETRY_FOR="0")  # fmt: skip
    with running() as site:
        site.status = 503
        job = client.submit_image(f"{site.url}/a.jpg")
        eventually(lambda: job.status().state == "failed")
    assert client.get(job.key).error == f"{site.url}/a.jpg: HTTP status 503"
