"""`make bench-pages`: pages over 100,000 items, by HTTP and in a real browser.

The encoder is a stub. Of every page the middle and the worst of twenty; of a search also what its
query alone takes. Seven browsers that were never here tell requests, bytes, and when one sees hits:
those that open with the page, and those that were open before.
"""

import argparse
import contextlib
import itertools
import json
import shutil
import socket
import statistics
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import uvicorn
from figures import Figure, keep, show, timed
from here import DATA
from selenium import webdriver
from system import STUB_WORKER, fresh_system, run_sql, worker
from workload import make_workload, paths, short_text

from pgclip import Client
from pgclip_web import Access, create_app

ITEMS, PHOTOS, TIMES, VISITS = 100_000, 2000, 20, 7
_SETTLED = 3.0  # s after which a browser has begun what it begins
_PAINTED = """
    const [page] = performance.getEntriesByType("navigation");
    const parts = performance.getEntriesByType("resource");
    const [paint] = performance.getEntriesByName("first-contentful-paint");
    const top = (picture) => picture.getBoundingClientRect().top;
    const seen = [...document.images].filter((picture) => top(picture) < innerHeight);
    if (!paint || !seen.every((each) => each.naturalWidth)) return null; // a moment later
    const bytes = (entry) => entry.transferSize;
    return [parts.length + 1, parts.map(bytes).reduce((a, b) => a + b, bytes(page)),
            page.responseEnd - page.requestStart, paint.startTime,
            Math.max(page.responseEnd, ...parts.map((part) => part.responseEnd))];
"""


def main() -> int:
    """Prints the table, keeps the JSON."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--items", type=int, default=ITEMS)
    items = options.parse_args().items
    photos = paths(make_workload(DATA / "workload", PHOTOS, 0, 0), "photos")[:PHOTOS]
    with (
        fresh_system() as urls,
        worker(urls, STUB_WORKER),
        Client(**urls, pool_size=8) as client,
        served(client) as address,
    ):
        fill(client, urls["database_url"], photos, items)
        figures = show(
            [
                *by_http(client, address),
                *in_a_browser(address, "a browser that opens with it", 0.0),
                *in_a_browser(address, "a browser that was open", _SETTLED),
            ]
        )
    keep(figures, "make bench-pages", "pages", items=items, photos=PHOTOS)
    return 0


def fill(client: Client, url: str, photos: list[Path], items: int) -> None:
    """Photos, and texts for the rest; labelled, some judged, some failed."""
    client.define_label_set("mine", ["boat", "tree"], exclusive=False, background="common")
    batches = [
        client.submit_many(
            {"image": file.read_bytes(), "key": file.name, "collection": "photos",
             "metadata": {"year": 2000 + n % 25, "tags": [f"t{n % 7}", f"u{n % 90}"]}}
            for n, file in enumerate(photos)
        ),
        client.submit_many(
            {"text": short_text(n), "key": f"text/{n}", "metadata": {"n": n, "shelf": n % 40}}
            for n in range(items - len(photos))
        ),
    ]  # fmt: skip
    for batch in batches:
        batch.wait(3600)
    for n in range(100):
        client.judge("mine", "boat", photos[n].name, n % 3 == 0, collection="photos")
    run_sql(url, "VACUUM ANALYZE")


@contextlib.contextmanager
def served(client: Client) -> Iterator[str]:
    """The pages, on a thread of this process."""
    with contextlib.closing(socket.socket()) as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(
            uvicorn.Config(create_app(client, access=Access()), log_level="warning")
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join()


def by_http(client: Client, address: str) -> list[Figure]:
    """What pages take until their last byte."""
    known = itertools.repeat("a boat on a river")
    new = (f"something that nobody asked before {n}" for n in itertools.count())
    where = {"filter": json.dumps({"$label": {"name": "boat", "set": "mine"}})}
    asked = {"q": "a boat on a river"}
    client.search("a boat on a river")
    found: list[Figure] = []
    for name, page in (
        ("a search for what was asked before", lambda: f"/?{urlencode({'q': next(known)})}"),
        ("a search for something new, of pictures", lambda: f"/?kind=image&q={next(new)[:60]}"
         .replace(" ", "+")),
        ("what is among the best 200", lambda: f"/facets?{urlencode(asked)}"),
        ("items", lambda: "/"),
        ("items of a label", lambda: f"/?{urlencode(where)}"),
        ("items of a collection from the 990th on", lambda: "/?collection=photos&skip=990"),
        ("an item", lambda: "/item?collection=photos&key=00007.jpg"),
        ("a thumbnail", lambda: "/thumbnail?collection=photos&key=00007.jpg"),
        ("a label set", lambda: "/labels?set=mine"),
        ("the state, as an open page asks for it", lambda: "/state?part"),
        ("the models", lambda: "/models"),
    ):  # fmt: skip
        found += times(name, lambda page=page: read(address + page()))
    form = urlencode({"set": "mine", "by": "ana"}).encode()
    found += times("twenty draws to review", lambda: read(f"{address}/review", form))
    found += times("of a search, the query that was asked before",
                   lambda: client.search("a boat on a river", k=31))  # fmt: skip
    found += times("of a search, a new query of pictures",
                   lambda: client.search(next(new)[:60], k=31, kind="image"))  # fmt: skip
    return found


def times(name: str, call: object) -> list[Figure]:
    """The middle and the worst."""
    assert callable(call)
    call()
    taken = [1000 * timed(call) for _ in range(TIMES)]
    return [
        Figure(f"{name}, middle of {TIMES}", statistics.median(taken), "ms"),
        Figure(f"{name}, worst of {TIMES}", max(taken), "ms"),
    ]


def read(address: str, form: bytes | None = None) -> bytes:
    """The whole page."""
    request = urllib.request.Request(address, form)
    if form is not None:
        request.add_header("Origin", address.rpartition("/")[0])
    with urllib.request.urlopen(request, timeout=60) as answer:
        data: bytes = answer.read()
    return data


def in_a_browser(address: str, name: str, open_for: float) -> list[Figure]:
    """A search of pictures, of one who comes for the first time."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium"
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,900"):
        options.add_argument(argument)
    rows = []
    for _ in range(VISITS):  # each with a browser of its own, which keeps nothing
        browser = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
        try:
            time.sleep(open_for)
            browser.get(f"{address}/?kind=image&q=a+boat+on+a+river")
            while (told := browser.execute_script(_PAINTED)) is None:
                time.sleep(0.05)
            rows.append(told)
        finally:
            browser.quit()
    requests, sizes, page, paint, all_of_it = zip(*rows, strict=True)
    return [
        Figure(f"{name}: requests of a search", statistics.median(requests), ""),
        Figure(f"{name}: kB of it", statistics.median(sizes) / 1000, "kB"),
        Figure(f"{name}: its page, middle", statistics.median(page), "ms"),
        Figure(f"{name}: painted first, middle", statistics.median(paint), "ms"),
        Figure(f"{name}: painted first, worst", max(paint), "ms"),
        Figure(f"{name}: all pictures in sight, middle", statistics.median(all_of_it), "ms"),
    ]


if __name__ == "__main__":
    sys.exit(main())
