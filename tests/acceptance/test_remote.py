"""References to other machines: off by default, and nowhere that was not allowed."""

import hashlib
import http.server
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.databases import run_sql
from support.pictures import jpeg
from support.processes import WorkerFactory, eventually

from pgclip import Client
from pgclip.settings import Settings
from pgclip_workers.pictures.decode import Picture, Pixels
from pgclip_workers.pictures.guarded import is_public
from pgclip_workers.pictures.pools import Pools
from pgclip_workers.pictures.preprocessing import Preprocessing
from pgclip_workers.pictures.refused import Refused
from pgclip_workers.pictures.remote import read_url, require_allowed

PICTURE = jpeg(1)


class Site(http.server.BaseHTTPRequestHandler):
    """A web site of this machine, with everything that a site may do to one who fetches."""

    failures_left = 0
    asked, answering = threading.Semaphore(0), threading.Event()

    def do_GET(self) -> None:
        port = self.server.server_address[1]
        match self.path:
            case "/a/cat.jpg" | "/b/cat.jpg" | "/a/k%C3%A4tzchen.jpg":
                self.answer(200, PICTURE)
            case "/a/moved":
                self.answer(302, b"", Location="/a/cat.jpg")
            case "/a/away":
                self.answer(302, b"", Location=f"http://127.0.0.1:{port}/b/cat.jpg")
            case "/a/elsewhere":
                self.answer(302, b"", Location="http://169.254.169.254/latest/meta-data")
            case "/a/file":
                self.answer(302, b"", Location="file:///etc/passwd")
            case "/a/loop":
                self.answer(302, b"", Location="/a/loop")
            case "/a/gzip":
                self.answer(200, b"\x1f\x8b", **{"Content-Encoding": "gzip"})
            case "/a/lies":
                self.answer(200, PICTURE, **{"Content-Length": str(10**9)})
            case "/a/endless":
                self.send_response(200)
                self.end_headers()
                self.endless()
            case "/a/waits":
                self.asked.release()
                self.answering.wait(60)
                self.answer(200, PICTURE)
            case "/a/busy":
                type(self).failures_left -= 1
                self.answer(503 if self.failures_left >= 0 else 200, PICTURE)
            case _:
                self.answer(404, b"")

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def endless(self) -> None:
        try:
            for _ in range(10_000):
                self.wfile.write(bytes(2**16))
        except OSError:
            pass

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def reason(url: str, prefix: str, private: bool = True, max_bytes: int = 10**6) -> str:
    with pytest.raises(Refused) as refused:
        read_url(url, (prefix,), private, max_bytes)
    return refused.value.reason


def test_a_picture_is_fetched_also_after_a_redirect(site: str) -> None:
    for path in ("cat.jpg", "moved", "kätzchen.jpg", "k%C3%A4tzchen.jpg"):
        assert read_url(f"{site}/a/{path}", (f"{site}/a/",), True, 10**6) == PICTURE


@pytest.mark.parametrize("path", ["away", "elsewhere", "file"])
def test_a_redirect_leads_nowhere_else(site: str, path: str) -> None:
    assert reason(f"{site}/a/{path}", f"{site}/a/") == "forbidden_url"


def test_a_redirect_to_a_private_address_is_refused_where_any_host_is_allowed(site: str) -> None:
    assert reason(f"{site}/a/cat.jpg", "http://", private=False) == "forbidden_url"
    assert reason(f"{site}/a/file", "http://") == "forbidden_url"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("missing", "missing_file"),
        ("loop", "fetch_failed"),
        ("gzip", "fetch_failed"),
        ("lies", "too_large"),
        ("endless", "too_large"),
    ],
)
def test_what_a_site_may_do(site: str, path: str, expected: str) -> None:
    assert reason(f"{site}/a/{path}", f"{site}/a/") == expected


def test_a_busy_site_is_asked_again(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgclip_workers.pictures.remote._PAUSE_SECONDS", 0)
    Site.failures_left = 1
    assert read_url(f"{site}/a/busy", (site,), True, 10**6) == PICTURE
    Site.failures_left = 2
    assert reason(f"{site}/a/busy", site) == "fetch_failed"


def test_a_host_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgclip_workers.pictures.remote._PAUSE_SECONDS", 0)
    assert reason("http://nobody.invalid/a.jpg", "http://") == "fetch_failed"


@pytest.mark.parametrize(
    ("url", "prefix"),
    [
        ("https://good.org.evil.org/a", "https://good.org/"),
        ("https://good.org@evil.org/a", "https://good.org/"),
        ("https://good.org@evil.org/a", "https://"),
        ("https://good.org:444/a", "https://good.org/"),
        ("http://good.org/a", "https://good.org/"),
        ("https://good.org/pictures-of-others/a", "https://good.org/pictures"),
        ("https://good.org/pictures/../a", "https://good.org/pictures/"),
        ("https://good.org/pictures/%2e%2e/a", "https://good.org/pictures/"),
        ("https://good.org:port/a", "https://good.org/"),
        ("https://good.org/pictures/..;/a", "https://good.org/pictures/"),
        ("https://good.org/pictures/..\\a", "https://good.org/pictures/"),
        ("sftp://good.org/pictures/x#/../../private/y", "sftp://good.org/pictures/"),
        ("https://evil.org/a", "https:good.org/"),
        ("https://evil.org/a", "https:/good.org/"),
        ("s3://bucket-of-others/a", "s3://bucket"),
        ("zip://a.jpg::file:///etc/passwd", "zip://"),
        ("data:image/png;base64,AAAA", "https://"),
    ],
)
def test_prefixes_allow_nothing_beside_them(url: str, prefix: str) -> None:
    with pytest.raises(Refused) as refused:
        require_allowed(url, [prefix])
    assert refused.value.reason == "forbidden_url"


def test_a_password_in_a_source_is_refused_and_not_repeated() -> None:
    with pytest.raises(Refused) as refused:
        require_allowed("https://me:secret@good.org/a.jpg", ["https://good.org/"])
    assert "https://me:***@good.org/a.jpg" in refused.value.message


@pytest.mark.parametrize(
    ("url", "prefix"),
    [
        ("https://good.org/pictures/a.jpg?size=9", "https://good.org/pictures"),
        ("HTTPS://GOOD.org:443/pictures/a", "https://good.org/pictures/"),
        ("https://any.org/a", "https://"),
        ("https://good.org/my%20pictures/a", "https://good.org/my%20pictures/"),
        ("s3://bucket/a/b.jpg", "s3://bucket/a"),
    ],
)
def test_prefixes_allow_what_is_below_them(url: str, prefix: str) -> None:
    require_allowed(url, [prefix])


def test_which_addresses_are_public() -> None:
    assert all(map(is_public, ("93.184.216.34", "2606:2800:220:1::1", "::ffff:93.184.216.34")))
    for address in (
        *("127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1"),
        *("100.64.0.1", "::1", "fe80::1%eth0", "fc00::1", "::ffff:127.0.0.1", "ff02::1"),
        *("64:ff9b::7f00:1", "2002:7f00:1::", "192.0.0.192", "168.63.129.16", "fec0::1"),
    ):
        assert not is_public(address), address


def test_other_storage_is_read_by_fsspec() -> None:
    import fsspec

    fsspec.filesystem("memory").pipe("/bucket/cat.jpg", PICTURE)
    assert read_url("memory://bucket/cat.jpg", ("memory://bucket/",), False, 10**6) == PICTURE
    assert reason("memory://bucket/dog.jpg", "memory://bucket/") == "missing_file"
    assert reason("memory://bucket/cat.jpg", "memory://bucket/", max_bytes=10) == "too_large"
    assert reason("nothing://bucket/a", "nothing://bucket/") == "unknown_scheme"


class FakeS3(http.server.BaseHTTPRequestHandler):
    """Just enough of S3's protocol for one object: the service itself can't be had here."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        found = self.path.split("?")[0] == "/bucket/cat.jpg"
        body = PICTURE if found else b""
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"cat"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def s3() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), FakeS3)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_worker_reads_urls_and_buckets(
    site: str, s3: str, client: Client, database_url: str, start_worker: WorkerFactory
) -> None:
    start_worker(
        database_url,
        PGCLIP_URLS=f"{site}/a/, s3://bucket/",
        PGCLIP_PRIVATE_URLS="on",
        PGCLIP_DECODER_MEMORY=str(4 * 2**30),
        AWS_ENDPOINT_URL=s3,
        AWS_ACCESS_KEY_ID="key",
        AWS_SECRET_ACCESS_KEY="secret",
        AWS_DEFAULT_REGION="us-east-1",
    )
    batch = client.submit_many(
        {"image": url, "key": url}
        for url in (f"{site}/a/cat.jpg", f"{site}/b/cat.jpg", "s3://bucket/cat.jpg", "s3://b/c")
    )
    eventually(lambda: batch.counts()["queued"] + batch.counts()["leased"] == 0)
    ended = dict(run_sql(database_url, "SELECT key, coalesce(reason, state) FROM pgclip.items"))
    assert ended == {
        f"{site}/a/cat.jpg": "done",
        f"{site}/b/cat.jpg": "forbidden_url",
        "s3://bucket/cat.jpg": "done",
        "s3://b/c": "forbidden_url",
    }


def test_without_the_setting_nothing_is_fetched(
    site: str, client: Client, database_url: str, start_worker: WorkerFactory
) -> None:
    start_worker(database_url)
    job = client.submit_image(f"{site}/a/cat.jpg")
    eventually(lambda: job.status().state == "failed")
    assert job.status().reason == "forbidden_url"


def test_a_site_that_does_not_answer_holds_up_no_other_picture(site: str) -> None:
    rules = Preprocessing(
        resize=(32, 32), crop=(32, 32), resample=3, scale=1 / 255, mean=(0.0,) * 3, std=(1.0,) * 3,
        fast_decode=False,
    )  # fmt: skip
    settings = Settings.load(
        {}, urls=(f"{site}/a/",), private_urls=True, decoders=1, fetchers=2, roots=()
    )
    near = [Picture(jpeg(n), None) for n in range(20)]
    far = [Picture(None, f"{site}/a/{name}") for name in ("waits", "cat.jpg", "waits")]
    pools = Pools.start(settings)
    try:
        with ThreadPoolExecutor(1) as another:
            mixed = another.submit(pools.decode, [*far[:2], *near, far[2]], rules)
            assert Site.asked.acquire(timeout=60)
            # Both fetching processes wait for the site; this decoding one is not held up.
            alone = pools.pictures.decode(near, rules)
            assert not mixed.done()
            Site.answering.set()
            found = mixed.result(timeout=60)
    finally:
        Site.answering.set()
        pools.stop()
    hashes = [each.hash for each in found if isinstance(each, Pixels)]
    assert hashes == [
        hashlib.sha256(data).digest()
        for data in (PICTURE, PICTURE, *(picture.data for picture in near), PICTURE)
        if data is not None
    ]
    assert all(isinstance(each, Pixels) for each in alone)
