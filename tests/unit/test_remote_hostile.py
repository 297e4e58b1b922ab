"""Sites and names that want a worker to reach what is not theirs, or to hold it up.

The server plays the internet: it listens on 127.0.0.2, which alone counts as public here besides
what is. Names are resolved by a resolver of the test's own.
"""

import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.pictures import jpeg

from pgclip_workers.pictures import guarded, remote
from pgclip_workers.pictures.refused import Refused

PUBLIC = "127.0.0.2"
PICTURE = jpeg(1)
real_getaddrinfo, really_public = socket.getaddrinfo, guarded.is_public

# Spellings of addresses that nobody outside may reach.
INTERNAL = [
    "127.0.0.1", "127.1", "2130706433", "0177.0.0.1", "0x7f.0.0.1", "0x7f000001", "0.0.0.0", "0",
    "localhost", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254",
    "0xa9fea9fe", "2852039166", "224.0.0.1", "255.255.255.255", "168.63.129.16", "192.0.0.192",
    "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:a9fe:a9fe]", "[::127.0.0.1]",
    "[64:ff9b::7f00:1]", "[64:ff9b::a9fe:a9fe]", "[64:ff9b:1::a9fe:a9fe]", "[2002:7f00:1::]",
    "[fe80::1]", "[fc00::1]", "[fd00:ec2::254]", "[fec0::1]", "[ff02::1]",
    "inside.test", "mixed.test",
]  # fmt: skip


class Site(http.server.BaseHTTPRequestHandler):
    """Redirects where the path says, or is slow in the way that it says."""

    def do_GET(self) -> None:
        match self.path.split("/", 2)[1:]:
            case ["to", place]:
                self.send_response(302)
                self.send_header("Location", f"http://{place}")
                self.send_header("Content-Length", "0")
                self.end_headers()
            case ["drip", "body"]:
                self.send_response(200)
                self.end_headers()
                self.drip(b"\xff")
            case ["drip", "headers"]:
                self.wfile.write(b"HTTP/1.1 200 OK\r\n")
                self.drip(b"X-More: yes\r\n")
            case ["page"]:
                self.answer(b"<!doctype html><p>no picture", "image/jpeg")
            case ["bomb"]:
                self.answer(b"\x1f\x8b\x08", "image/jpeg", **{"Content-Encoding": "gzip, br"})
            case _:
                self.answer(PICTURE, "text/html")

    def answer(self, body: bytes, kind: str, **headers: str) -> None:
        self.send_response(200)
        every = {"Content-Type": kind, "Content-Length": str(len(body)), **headers}
        for name, value in every.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def drip(self, part: bytes) -> None:
        """For ever, always before a read times out."""
        try:
            while True:
                self.wfile.write(part)
                time.sleep(0.1)
        except OSError:
            pass

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer((PUBLIC, 0), Site)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def internet(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Names and their addresses, in order; every look-up of a name takes the first that is left."""
    names = {
        "inside.test": ["169.254.169.254"],
        "mixed.test": [f"{PUBLIC} 10.0.0.1"],
        "good.test": [PUBLIC],
    }

    def resolve(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        if host not in names:
            return real_getaddrinfo(host, port, *rest, **more)
        answers = names[host]
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        return [
            found
            for address in addresses.split()
            for found in real_getaddrinfo(address, port, *rest, **more)
        ]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(guarded, "is_public", lambda a: a == PUBLIC or really_public(a))
    monkeypatch.setattr(remote, "_PAUSE_SECONDS", 0)
    return names


def refusal(url: str) -> Refused:
    with pytest.raises(Refused) as refused:
        remote.read_url(url, ("http://",), False, 10**6)
    return refused.value


def test_a_public_name_is_fetched(port: int) -> None:
    for path in ("picture", f"to/good.test:{port}/picture"):
        url = f"http://good.test:{port}/{path}"
        assert remote.read_url(url, ("http://",), False, 10**6) == PICTURE


@pytest.mark.parametrize("place", INTERNAL)
def test_nothing_internal_is_dialled(port: int, place: str, monkeypatch: Any) -> None:
    dialled: list[str] = []
    connect = guarded.httpcore.SyncBackend.connect_tcp

    def record(self: Any, host: str, *rest: Any, **more: Any) -> Any:
        dialled.append(host)
        return connect(self, host, *rest, **more)

    monkeypatch.setattr(guarded.httpcore.SyncBackend, "connect_tcp", record)
    for url, expected in (
        (f"http://{place}:{port}/picture", []),
        (f"http://good.test:{port}/to/{place}:{port}/picture", [PUBLIC]),
    ):
        dialled.clear()
        refused = refusal(url)
        # A spelling that is no address here is a name that can't be resolved.
        assert refused.reason in ("forbidden_url", "fetch_failed")
        assert refused.reason == "forbidden_url" or "can't be resolved" in refused.message
        assert dialled == expected


def test_a_name_that_changes_between_the_check_and_the_dial(
    port: int, internet: dict[str, list[str]]
) -> None:
    internet["changing.test"] = [PUBLIC, "127.0.0.1"]
    url = f"http://changing.test:{port}/picture"
    assert remote.read_url(url, ("http://",), False, 10**6) == PICTURE
    assert internet["changing.test"] == ["127.0.0.1"]  # it was looked up once
    assert refusal(url).reason == "forbidden_url"


@pytest.mark.parametrize("what", ["body", "headers"])
def test_a_site_that_drips_is_left(port: int, what: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(remote, "_SECONDS", 1.0)
    assert refusal(f"http://good.test:{port}/drip/{what}").reason == "fetch_failed"


def test_a_bomb_is_not_unpacked(port: int) -> None:
    assert refusal(f"http://good.test:{port}/bomb").reason == "fetch_failed"


def test_bytes_decide_and_not_what_a_site_says_of_them(
    port: int, decoded: Callable[[bytes], Any]
) -> None:
    page = remote.read_url(f"http://good.test:{port}/page", ("http://",), False, 10**6)
    assert decoded(page).reason == "not_an_image"
    url = f"http://good.test:{port}/a-picture-called-text"
    assert decoded(remote.read_url(url, ("http://",), False, 10**6)).array is not None


@pytest.fixture
def decoded() -> Callable[[bytes], Any]:
    from support.planted_worker import PlantedEncoder

    from pgclip.settings import Settings
    from pgclip_workers.pictures.decode import decode
    from pgclip_workers.pictures.sources import Limits

    rules = PlantedEncoder(Settings.load({})).preprocessing
    return lambda data: decode(data, None, rules, Limits(10**6, 10**6))


def test_the_environment_s_proxies_are_not_asked(port: int, monkeypatch: Any) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nobody listens
    url = f"http://good.test:{port}/picture"
    assert remote.read_url(url, ("http://",), False, 10**6) == PICTURE
