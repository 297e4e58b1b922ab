"""Pages: what a person finds on them, who is let in, and that nothing of an item is markup."""

import re
import signal
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient
from support.commands import interruptible, pgclip_process, urls
from support.pictures import encoded, jpeg, noise
from support.processes import Live, eventually

from pgclip import Client, ConfigurationError
from pgclip_web import Access, create_app

HERE = {"origin": "http://testserver"}
HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)>\u202e'`{{7*7}}"
COLLECTION = f"pages {HOSTILE}"


@pytest.fixture(scope="module")
def shown(live: Live) -> Client:
    client = live.client
    client.submit_many([
        *({"image": jpeg(1000 + n, 320, 240), "key": f"pages/{n}.jpg", "collection": "pages",
           "metadata": {"n": n}} for n in range(70)),
        {"image": jpeg(2000), "key": HOSTILE, "collection": COLLECTION,
         "metadata": {HOSTILE: HOSTILE}},
        {"text": HOSTILE, "key": f"text {HOSTILE}", "collection": COLLECTION},
        {"image": encoded(noise(7), "TIFF"), "key": "scan.tif", "collection": "pages"},
    ]).wait(120)  # fmt: skip
    return client


@pytest.fixture
def pages(shown: Client) -> Iterator[TestClient]:
    with TestClient(create_app(shown, access=Access())) as pages:
        yield pages


def item(key: str, collection: str = "pages") -> str:
    return f"/item?{urlencode({'key': key, 'collection': collection})}"


def test_a_search_is_in_its_address(pages: TestClient) -> None:
    page = pages.get("/?q=a+guitar&collection=pages&kind=image")
    assert page.status_code == 200
    assert page.text.count('class="hit"') == 30
    assert 'value="a guitar"' in page.text
    assert re.search(r'<option value="pages" selected>pages \(\d+\)', page.text)
    assert all(word in page.text for word in ("More<", "Less<", "thumbnail?"))


def test_further_hits_are_others(pages: TestClient) -> None:
    address, keys = "/?q=a+guitar&collection=pages", []
    while address:
        page = pages.get(address).text
        keys += re.findall(r'class="seen" href="item\?([^"]*)"', page)
        further = re.search(r'rel="next" href="([^"]*)"', page)
        address = f"/{unescape(further[1])}" if further else ""
    assert len(keys) == len(set(keys)) == 71


def test_more_and_less_like_an_item(pages: TestClient, shown: Client) -> None:
    page = pages.get("/?q=a+guitar&collection=pages").text
    more = unescape(re.findall(r'class="more-like" href="([^"]*)"', page)[0])
    with_like = pages.get(f"/{more}")
    assert "like <b>" in with_like.text
    assert 'value="0.5"' in with_like.text
    less = unescape(re.findall(r'class="less-like" href="([^"]*)"', with_like.text)[0])
    first = re.findall(r'class="seen" href="item\?([^"]*)"', with_like.text)[0]
    without = pages.get(f"/{less}").text
    assert 'value="-0.5"' in without
    assert re.findall(r'class="seen" href="item\?([^"]*)"', without)[0] != first


def test_a_picture_is_searched_with(pages: TestClient) -> None:
    taken = pages.post("/pictures", content=jpeg(1003, 320, 240), headers=HERE)
    name = taken.json()["picture"]
    page = pages.get(f"/?picture={name}&collection=pages")
    assert "pages%2F3.jpg" in re.findall(r'class="seen" href="item\?([^"]*)"', page.text)[0]
    gone = pages.get("/?picture=0123")
    assert gone.status_code == 400
    assert "drop it again" in gone.text
    assert pages.post("/pictures", content=b"", headers=HERE).status_code == 400


def test_what_makes_no_sense_is_said(pages: TestClient) -> None:
    for address, said in (
        ("/?q=a&filter=nonsense", "no JSON"),
        ("/?q=a&filter=[]", "a filter is a JSON object"),
        ("/?q=a&like=[1]", "like is not"),
        ("/?q=a&after=x", "after is not"),
        ("/?q=a&filter=" + '{"$nothing": 1}', "$nothing"),
        ("/?q=a&filter=" + "[" * 20_000, "no JSON"),
        ("/?q=a&like=" + "[" * 20_000, "like is not"),
        ("/?q=a&like=[1" + "0" * 400 + ',"c","k"]', "like is not"),
        ("/?q=a&after=1,99999999999999999999999", "after is not"),
        ("/?q=a&after=nan,1", "after is not"),
        ("/?" + "&".join(['like=[1,"c","k"]'] * 17), "16 items at most"),
    ):
        page = pages.get(address)
        assert page.status_code == 400, address
        assert said in unescape(page.text)
    assert pages.get(item("nobody")).status_code == 404


def test_an_item_and_what_is_near_it(pages: TestClient) -> None:
    page = pages.get(item("pages/3.jpg")).text
    assert 'src="original?' in page
    assert "Pictures like it" in page
    assert page.count('class="hit"') >= 12
    scan = pages.get(item("scan.tif")).text
    assert 'data-small="thumbnail?' in scan


def test_pictures_small_and_as_they_are(pages: TestClient) -> None:
    query = urlencode({"key": "pages/3.jpg", "collection": "pages"})
    small = pages.get(f"/thumbnail?{query}")
    assert small.headers["content-type"] == "image/jpeg"
    again = pages.get(f"/thumbnail?{query}", headers={"if-none-match": small.headers["etag"]})
    assert again.status_code == 304
    nothing = pages.get("/thumbnail?key=nobody")
    assert nothing.headers["content-type"] == "image/svg+xml"
    whole = pages.get(f"/original?{query}")
    assert whole.content == jpeg(1003, 320, 240)
    assert whole.headers["content-security-policy"] == "sandbox; default-src 'none'"
    scan = pages.get("/original?key=scan.tif&collection=pages")
    assert scan.headers["content-type"] == "application/octet-stream"
    assert scan.headers["content-disposition"] == "attachment; filename*=UTF-8''scan.tif"
    text = pages.get(f"/original?{urlencode({'key': f'text {HOSTILE}', 'collection': COLLECTION})}")
    assert text.headers["content-type"] == "application/octet-stream"


def test_metadata_are_changed_and_what_another_changed_stays(
    pages: TestClient, shown: Client
) -> None:
    given = {
        "shown": '{"n": 5}',
        "metadata": '{"n": 5, "year": 2024, "none": null, "flag": true}',
    }
    changed = pages.post(item("pages/5.jpg"), data=given, headers=HERE, follow_redirects=False)
    assert changed.status_code == 303
    assert shown.get("pages/5.jpg", collection="pages").metadata == {
        "n": 5, "year": 2024, "none": None, "flag": True,
    }  # fmt: skip
    page = unescape(pages.get(item("pages/5.jpg")).text)
    (before,) = re.findall(r'name="shown" value="(.*)">', page)
    theirs = {"year": 2025, "theirs": 1}
    shown.update_metadata("pages/5.jpg", set=theirs, collection="pages")
    given = {"shown": before, "metadata": '{"n": 6, "year": 2024, "flag": 1}'}
    pages.post(item("pages/5.jpg"), data=given, headers=HERE)
    found = shown.get("pages/5.jpg", collection="pages").metadata
    assert str(sorted(found.items())) == str(sorted({"n": 6, "flag": 1, **theirs}.items()))
    for wrong in ("nonsense", "[]", "", "[" * 100_000):
        given = {"shown": "{}", "metadata": wrong}
        refused = pages.post(item("pages/5.jpg"), data=given, headers=HERE)
        assert refused.status_code == 400
        assert "Nothing was changed" in refused.text
    gone = ["flag", "year", "theirs"]
    shown.update_metadata("pages/5.jpg", set={"n": 5}, remove=gone, collection="pages")


def test_the_state(pages: TestClient) -> None:
    page = pages.get("/state").text
    assert "<dt>done</dt>" in page
    assert "pages" in page
    part = pages.get("/state?part").text
    assert "<html" not in part
    assert "<h2>Models</h2>" in part


@pytest.mark.parametrize(
    "address",
    [
        f"/?{urlencode({'q': HOSTILE, 'collection': COLLECTION})}",
        f"/?{urlencode({'collection': COLLECTION})}",
        f"/?{urlencode({'like': f'[0.5, {COLLECTION!r}, 1]'})}",
        item(HOSTILE, COLLECTION),
        item(f"text {HOSTILE}", COLLECTION),
        f"/?{urlencode({'q': 'a', 'filter': HOSTILE})}",
        item(HOSTILE, HOSTILE),
        "/state",
    ],
)
def test_nothing_of_an_item_is_markup(pages: TestClient, address: str) -> None:
    page = pages.get(address).text
    markup = Markup()
    markup.feed(page)
    assert [attributes for tag, attributes in markup.tags if tag == "script"] == [
        {"type": "module", "src": "static/browse.js"}
    ]
    names = {name for _, attributes in markup.tags for name in attributes}
    assert not {name for name in names if name.startswith("on") or name == "style"}
    pictures = [attributes["src"] or "" for tag, attributes in markup.tags if tag == "img"]
    assert all(source.startswith(("thumbnail?", "original?")) for source in pictures)
    links = [attributes["href"] or "" for tag, attributes in markup.tags if tag == "a"]
    assert not [link for link in links if link.lower().startswith(("javascript:", "data:", "//"))]


class Markup(HTMLParser):
    """The tags of a page, with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_a_browser_may_do_nothing_that_is_not_ours(pages: TestClient) -> None:
    for address in ("/", "/state", "/static/browse.js", "/nowhere", item("nobody")):
        headers = pages.get(address).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
    page = pages.get("/").text
    assert not re.findall(r"""(?:src|href)=["'](?:https?:)?//""", page)
    assert " style=" not in page


class TestAccess:
    def test_by_a_token(self, shown: Client) -> None:
        with TestClient(create_app(shown, access=Access(token="secret"))) as pages:
            assert pages.get("/").status_code == 401
            assert pages.get("/?token=wrong").status_code == 401
            assert pages.get("/static/browse.js").status_code == 401
            assert pages.post("/?token=secret", headers=HERE).status_code == 401
            admitted = pages.get("/?token=secret&q=a", follow_redirects=False)
            assert (admitted.status_code, admitted.headers["location"]) == (303, "./?q=a")
            cookie = admitted.headers["set-cookie"]
            assert "HttpOnly" in cookie
            assert "SameSite=lax" in cookie
            assert "secret" not in cookie
            assert pages.get("/?q=a").status_code == 200
            again = pages.get("/?token=other&q=a", follow_redirects=False)
            assert (again.status_code, again.headers["location"]) == (303, "./?q=a")
            (name, passed) = next(iter(pages.cookies.items()))
            pages.cookies.clear()
            for wrong in ("", "é", "a b; c", passed[:-1], passed + "0"):
                refused = pages.get("/", headers={"cookie": f"{name}={wrong}".encode()})
                assert refused.status_code == 401
            for others in ('prefs={"a":1}', "a[b]=c d", "flag", "n=é"):
                cookie = f"{others}; {name}={passed}".encode()
                assert pages.get("/", headers={"cookie": cookie}).status_code == 200

    def test_two_beside_each_other(self, shown: Client) -> None:
        with TestClient(create_app(shown, access=Access(token="one"))) as one:
            one.get("/?token=one")
            with TestClient(create_app(shown, access=Access(token="two"))) as two:
                two.cookies = one.cookies
                assert two.get("/").status_code == 401
                assert two.get("/?token=two").status_code == 200
            assert one.get("/").status_code == 200

    def test_by_a_proxy(self, shown: Client) -> None:
        with TestClient(create_app(shown, access=Access(user_header="X-User"))) as pages:
            assert pages.get("/").status_code == 403
            assert pages.get("/", headers={"x-user": ""}).status_code == 403
            assert pages.get("/", headers={"x-user": "ann"}).status_code == 200

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"origin": "http://elsewhere.example"},
            {"origin": "null"},
            {"origin": "http://testserver.elsewhere.example"},
            {**HERE, "sec-fetch-site": "cross-site"},
            {**HERE, "sec-fetch-site": "same-site"},
            {"origin": "http://["},
            {"origin": ""},
        ],
    )
    def test_other_sites_change_nothing(self, pages: TestClient, headers: dict[str, str]) -> None:
        for address in ("/pictures", item("pages/3.jpg")):
            refused = pages.post(address, data={"metadata": "{}"}, headers=headers)
            assert refused.status_code == 403

    def test_ours_do_behind_a_proxy_that_names_another_host(self, pages: TestClient) -> None:
        ours = {"origin": "https://pictures.example", "sec-fetch-site": "same-origin"}
        assert pages.post("/pictures", content=jpeg(1), headers=ours).status_code == 200

    def test_read_only(self, shown: Client) -> None:
        with TestClient(create_app(shown, access=Access(read_only=True))) as pages:
            given = {"metadata": '{"n": 100}'}
            assert pages.post(item("pages/6.jpg"), data=given, headers=HERE).status_code == 403
            assert "<textarea" not in pages.get(item("pages/6.jpg")).text
            assert pages.post("/pictures", content=jpeg(1), headers=HERE).status_code == 200
        assert shown.get("pages/6.jpg", collection="pages").metadata == {"n": 6}

    def test_as_the_environment_says(self, shown: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PGCLIP_BROWSE_TOKEN", "secret")
        monkeypatch.setenv("PGCLIP_BROWSE_USER_HEADER", "X-User")
        monkeypatch.setenv("PGCLIP_BROWSE_READ_ONLY", "on")
        app = create_app(shown)
        monkeypatch.setenv("PGCLIP_BROWSE_READ_ONLY", "enabled")
        with pytest.raises(ConfigurationError, match="on or off"):
            create_app(shown)
        assert app.state.access == Access(token="secret", user_header="X-User", read_only=True)


def test_it_is_mounted_into_another_application(shown: Client) -> None:
    inner = create_app(shown, access=Access(token="secret"))
    with TestClient(Starlette(routes=[Mount("/browse", inner)])) as pages:
        assert pages.get("/browse/").status_code == 401
        admitted = pages.get("/browse/?token=secret", follow_redirects=False)
        assert "Path=/browse/" in admitted.headers["set-cookie"]
        assert pages.get("/browse/?q=a&collection=pages").status_code == 200
        assert pages.get("/browse/static/browse.css").status_code == 200


def test_a_database_that_is_away_is_said(shown: Client) -> None:
    nowhere: Any = Client(database_url="postgresql://nobody@127.0.0.1:9/x", redis_url="redis://x")
    with TestClient(create_app(nowhere, access=Access())) as pages:
        page = pages.get("/?q=a")
        assert page.status_code == 503
        assert "It did not work" in page.text


class TestCommand:
    def test_it_serves_whoever_has_the_address(self, shown: Client) -> None:
        asked = ("browse", "--no-open", "--port", "0")
        process = interruptible(*asked, **urls(shown), PYTHONUNBUFFERED="1")
        try:
            assert process.stdout
            address = process.stdout.readline().decode().strip()
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{32}", address)
            with httpx.Client(follow_redirects=True, timeout=30) as browser:
                eventually(lambda: answers(browser, address))
                page = browser.get(address)
                assert page.status_code == 200
                assert 'type="search"' in page.text
                assert httpx.get(address.split("?")[0]).status_code == 401
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(30) in (0, 130)

    def test_it_says_what_it_needs(self, shown: Client, tmp_path: Path) -> None:
        (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['uvicorn'] = None\n")
        told = pgclip_process("browse", "--no-open", **urls(shown), PYTHONPATH=str(tmp_path))
        assert told.returncode == 1
        assert "pip install 'pgclip[web]'" in told.stderr


def answers(browser: httpx.Client, address: str) -> bool:
    try:
        return browser.get(address).is_success
    except httpx.TransportError:
        return False
