"""Pages: what is among hits, files that are added, what failed and is tried again."""

import contextlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from urllib.parse import urlencode

import httpx
import pytest
from starlette.testclient import TestClient
from support.browsers import TOKEN, served
from support.databases import run_sql
from support.pictures import jpeg
from support.processes import Live, eventually

from pgclip import Client, ItemFailed, QueueFull
from pgclip_web import Access, create_app

HERE = {"origin": "http://testserver"}
HOSTILE = '"><script>alert(1)</script>'


@pytest.fixture(scope="module")
def shown(live: Live) -> Client:
    live.client.submit_many([
        *({"image": jpeg(7000 + n, 160, 120), "key": f"{n}", "collection": "various",
           "metadata": {"half": n % 2 == 0, "third": n % 3, "number": n, "$odd": 1, "a.b": 1,
                        "tags": ["all", HOSTILE if n % 2 else "even"]}}
          for n in range(12)),
        *({"text": f"text {n}", "key": f"listed {n}", "collection": "listed"} for n in range(70)),
    ]).wait(120)  # fmt: skip
    return live.client


@pytest.fixture
def pages(shown: Client) -> Iterator[TestClient]:
    with TestClient(create_app(shown, access=Access()), headers=HERE) as pages:
        yield pages


def links(page: str) -> dict[str, tuple[int, str]]:
    """Of each value: its count, and the address of the search of these."""
    found = re.findall(r'<a href="([^"]*)">([^<]*)</a> <span>(\d+)</span>', page)
    return {unescape(words): (int(count), unescape(address)) for address, words, count in found}


@pytest.mark.parametrize("asked", ["q=a+guitar&", ""], ids=["of hits", "of items"])
def test_what_is_among_them_narrows(pages: TestClient, asked: str) -> None:
    page = pages.get(f"/facets?{asked}collection=various").text
    assert "<script>alert" not in page
    found = links(page)
    assert found["true"][0] == found["false"][0] == found["even"][0] == 6
    assert found["0"][0] == 4  # of third; number differs everywhere
    assert "11" not in found
    narrow = pages.get(f"/{found['even'][1]}")
    assert narrow.text.count('class="hit"') == 6
    assert "tags: even" in narrow.text
    both = links(pages.get(f"/facets{found['even'][1][1:]}").text)
    assert pages.get(f"/{both['0'][1]}").text.count('class="hit"') == 2
    without = unescape(re.findall(r'tags: even <a href="([^"]*)"', narrow.text)[0])
    assert pages.get(f"/{without}").text.count('class="hit"') == 12


def test_a_condition_on_the_same_field_is_another(pages: TestClient) -> None:
    where = json.dumps({"third": {"in": [0, 1]}})
    found = links(
        pages.get(f"/facets?{urlencode({'collection': 'various', 'filter': where})}").text
    )
    assert pages.get(f"/{found['1'][1]}").text.count('class="hit"') == 4


def test_labels_and_decisions_are_counted(pages: TestClient, shown: Client) -> None:
    name = f"found {HOSTILE}"
    shown.define_label_set(name, ["thing"], background="common", exclusive=False, threshold=0.0,
                           collections=["various"], decide=True)  # fmt: skip
    for n in range(5):
        shown.submit_image(jpeg(7100 + n), key=f"new {n}", collection="various").wait(60)
        shown.judge(name, "thing", f"new {n}", n < 2, collection="various")
    try:
        address = f"/facets?{urlencode({'collection': 'various', 'q': 'a guitar'})}"
        found = links(pages.get(address).text)
        assert found["thing: yes"][0] == 2
        assert pages.get(f"/{found['thing: yes'][1]}").text.count('class="hit"') == 2
    finally:
        shown.drop_label_set(name)
        for n in range(5):
            shown.delete(f"new {n}", collection="various")


def test_what_is_listed_goes_on(pages: TestClient) -> None:
    address, keys = "/?collection=listed", []
    while address:
        page = pages.get(address).text
        keys += re.findall(r'class="seen" href="item\?([^"]*)"', page)
        further = re.search(r'rel="next" href="([^"]*)"', page)
        address = f"/{unescape(further[1])}" if further else ""
    assert len(keys) == len(set(keys)) == 70


def test_time_and_relevance_narrow(pages: TestClient, live: Live) -> None:
    assert pages.get("/?collection=various&within=1+day").text.count('class="hit"') == 12
    came = "UPDATE pgclip.item SET created_at = now() - interval '{}' WHERE key = '7'"
    run_sql(live.database_url, came.format("3 days"))
    for asked in ("", "&q=a+guitar"):
        page = pages.get(f"/?collection=various&within=1+day{asked}").text
        assert page.count('class="hit"') == 11
        page = pages.get(f"/?collection=various&within=7+days{asked}").text
        assert page.count('class="hit"') == 12
    run_sql(live.database_url, came.format("0 days"))
    page = pages.get("/?collection=various&within=1+day&q=a+guitar").text
    assert page.count('class="hit"') == 12
    assert '<option value="1 day" selected>' in page
    assert pages.get("/?collection=various&within=ever").text.count('class="hit"') == 12
    answer = pages.get("/?collection=various&q=a+guitar&relevance=100")
    assert answer.text.count('class="hit"') == 0  # nothing is, or it has to be measured first


def test_files_are_added_by_their_names(pages: TestClient, shown: Client) -> None:
    def add(name: str, data: bytes, **more: str) -> str:
        where = {"name": name, "collection": "added", **more}
        answer = pages.post(f"/add?{urlencode(where)}", content=data)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["key"])

    assert add("a/one.jpg", jpeg(1)) == "a/one.jpg"
    shown.submit_image(jpeg(1), key="a/one.jpg", collection="added", metadata={"title": "t"})
    assert add("a/one.jpg", jpeg(1)) == "a/one.jpg"
    assert shown.get("a/one.jpg", collection="added").metadata == {"title": "t"}
    other = add("a/one.jpg", jpeg(2))
    assert re.fullmatch(r"a/one-[0-9a-f]{12}\.jpg", other)
    assert add("a/one.jpg", jpeg(2)) == other
    assert shown.content("a/one.jpg", collection="added") == jpeg(1)
    assert add(f"{HOSTILE}.txt", b"a text") == f"{HOSTILE}.txt".lstrip("/")
    assert shown.get(f"{HOSTILE}.txt", collection="added").kind == "text"
    for name, data, said in (("no.txt", b"\xff\xfe", "UTF-8"), ("none.jpg", b"", "empty")):
        answer = pages.post(f"/add?{urlencode({'name': name})}", content=data)
        assert answer.status_code == 400
        assert said in answer.json()["error"]
    assert "<script>alert" not in pages.get(f"/add?{urlencode({'collection': HOSTILE})}").text


@pytest.mark.parametrize("name", ["/", ".", "..", "a/../../b.jpg", ""])
def test_what_is_no_name_is_refused(pages: TestClient, name: str) -> None:
    answer = pages.post(f"/add?{urlencode({'name': name})}", content=jpeg(1))
    assert answer.status_code == 400
    assert "no name of a file" in answer.json()["error"]


def test_two_of_one_name_at_once_are_two(pages: TestClient, shown: Client) -> None:
    def add(number: int) -> None:
        where = urlencode({"name": "same.jpg", "collection": "at once"})
        assert pages.post(f"/add?{where}", content=jpeg(number)).status_code == 200

    adding = [threading.Thread(target=add, args=(number,)) for number in range(6)]
    for thread in adding:
        thread.start()
    for thread in adding:
        thread.join()
    assert shown.count(collection="at once")["failed"] == 0
    assert len(list(shown.items(collection="at once"))) == 6


def test_what_is_sent_too_slowly_makes_room(shown: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgclip_web.uploads._SILENCE_SECONDS", 0.5)
    with served(shown) as address, contextlib.ExitStack() as stack:
        host, _, port = address.removeprefix("http://").partition(":")
        with httpx.Client(headers={"origin": address}) as browser:
            browser.get(f"{address}/?token={TOKEN}")
            cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
            silent = [
                stack.enter_context(socket.create_connection((host, int(port)))) for _ in range(4)
            ]
            for each in silent:
                each.sendall(
                    f"POST /pictures HTTP/1.1\r\nHost: {host}:{port}\r\nOrigin: {address}"
                    f"\r\nCookie: {cookie}\r\nContent-Length: 9\r\n\r\nx".encode()
                )
            assert browser.post(f"{address}/pictures", content=jpeg(1)).status_code == 200
            assert b" 408 " in silent[0].recv(100)


def test_what_belongs_to_rows_is_theirs(pages: TestClient, shown: Client, live: Live) -> None:
    run_sql(live.database_url, "CREATE TABLE browsed (id int PRIMARY KEY, body text)")
    run_sql(live.database_url, "SELECT pgclip.index_table('browsed', text => 'body')")
    try:
        run_sql(
            live.database_url, "INSERT INTO browsed SELECT n, 'alike' FROM generate_series(1, 3) n"
        )
        eventually(lambda: shown.count(collection="browsed")["done"] == 3)
        answer = pages.post(
            f"/add?{urlencode({'name': '1', 'collection': 'browsed'})}", content=jpeg(1)
        )
        assert answer.status_code == 400
        assert "add a row" in answer.json()["error"]
        marks = [
            json.dumps([item.collection, item.key, item.updated_at.isoformat()])
            for item in shown.items(collection="browsed")
        ]
        form = {"group": json.dumps(marks), "keep": marks[0], "sure": "1"}
        assert "deleted in its table" in pages.post("/deletions", data=form).text
        assert shown.count(collection="browsed")["done"] == 3
    finally:
        run_sql(live.database_url, "DROP TABLE browsed")


@pytest.mark.parametrize("address", [
    "/?relevance=" + "9" * 5000, "/facets?relevance=" + "9" * 5000,
    "/?" + urlencode({"filter": '{"a": "\\ud800", "b": 1}'}),
    "/?" + urlencode({"like": '[0.5, "default", "\\ud800"]'}),
    "/hits?" + urlencode({"q": "a", "filter": '{"\\ud800": 1}'}),
    "/?skip=" + "9" * 5000, "/thumbnail?id=" + "9" * 5000, "/duplicates?first=" + "9" * 5000,
    "/state?reason=%00", "/labels?set=%00", "/review?set=%00",
])  # fmt: skip
def test_no_address_is_too_much(pages: TestClient, address: str) -> None:
    assert pages.get(address).status_code in (200, 400, 404)


def test_no_token_leads_elsewhere(pages: TestClient) -> None:
    for path in ("/https:evil.com", "/javascript:alert(1)", "//evil.com", "/a/https:evil.com"):
        answer = pages.get(f"http://testserver{path}?token=x", follow_redirects=False)
        assert answer.headers["location"].startswith("./")


def test_an_item_is_deleted(pages: TestClient, shown: Client) -> None:
    shown.submit_text("a text", key=HOSTILE, collection="deleted").wait(60)
    where = urlencode({"collection": "deleted", "key": HOSTILE})
    page = pages.get(f"/item?{where}").text
    assert "Delete it" in page
    assert "<script>alert" not in page
    assert pages.post(f"/delete?{where}").status_code == 200
    assert list(shown.items(collection="deleted")) == []
    assert pages.post(f"/delete?{where}").status_code == 404
    with TestClient(create_app(shown, access=Access(read_only=True)), headers=HERE) as reading:
        assert reading.post(f"/delete?{where}").status_code == 403


def test_what_was_added_is_followed(pages: TestClient, shown: Client) -> None:
    counts = pages.get("/counts?collection=various").json()
    assert counts == shown.count(collection="various")


def test_a_form_of_files_without_scripts(pages: TestClient, shown: Client) -> None:
    files = [("file", ("x.jpg", jpeg(3))), ("file", ("no.md", b"")), ("file", ("y.md", b"# w"))]
    answer = pages.post("/add", data={"collection": "form"}, files=files)
    assert answer.status_code == 400
    assert "no.md" in answer.text
    assert {item.key for item in shown.items(collection="form")} == {"x.jpg", "y.md"}


def test_too_much_at_once_is_refused(pages: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgclip_web.add._MOST_BYTES", 10_000)
    files = [("file", (f"{n}.jpg", bytes(9000))) for n in range(2)]
    assert pages.post("/add", data={"collection": "form"}, files=files).status_code == 413


def test_a_full_queue_is_told_so_that_one_waits(
    shown: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise QueueFull("1 job or more are waiting")

    with TestClient(create_app(shown, access=Access()), headers=HERE) as pages:
        monkeypatch.setattr(shown, "submit_image", full)
        answer = pages.post("/add?name=x.jpg", content=jpeg(4))
    assert answer.status_code == 503
    assert "waiting" in answer.json()["error"]


def test_what_failed_is_seen_and_tried_again(
    pages: TestClient, shown: Client, tmp_path: Path
) -> None:
    job = shown.submit_image(b"no picture", key=HOSTILE, collection="broken")
    with pytest.raises(ItemFailed) as failure:
        job.wait(60)
    reason = failure.value.reason
    page = pages.get("/state").text
    assert f">{reason}</a>" in page
    assert "Segments" in page
    listed = pages.get(f"/state?{urlencode({'reason': reason})}").text
    assert "<script>alert" not in listed
    assert "&lt;script&gt;alert" in listed
    (count,) = [each.items for each in shown.failures() if each.reason == reason]
    again = pages.post("/retry", data={"reason": reason})
    assert f"{count} items are queued again" in again.text
    with pytest.raises(ItemFailed):
        shown.submit_image(b"no picture", key=HOSTILE, collection="broken").wait(60)
    shown.delete_items(collection="broken")
    with TestClient(create_app(shown, access=Access(read_only=True)), headers=HERE) as reading:
        assert reading.post("/retry", data={"reason": reason}).status_code == 403
        assert reading.post("/add?name=x.jpg", content=jpeg(4)).status_code == 403
