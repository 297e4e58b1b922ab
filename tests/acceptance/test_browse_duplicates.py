"""The page of duplicates: which to keep is proposed, what goes is shown, nothing else goes."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from html import unescape
from typing import Any

import pytest
from starlette.testclient import TestClient
from support.pictures import jpeg
from support.processes import Live, eventually

from pgclip import Client, NotFound
from pgclip_web import Access, create_app

HERE = {"origin": "http://testserver"}
HOSTILE = '"><script>alert(1)</script>'
Form = list[tuple[str, str]]


@pytest.fixture
def shown(live: Live, request: pytest.FixtureRequest) -> Client:
    """Two groups, of three and of two, and something else, in a collection of the test's own."""
    collection = request.node.name
    live.client.submit_many(
        {"image": jpeg(number, 160, 120), "key": key, "collection": collection, "metadata": about}
        for number, key, about in (
            (6001, "a", {}), (6001, "b", {"title": "kept for its metadata"}), (6001, HOSTILE, {}),
            (6002, "oldest", {}), (6002, "younger", {}), (6003, "alone", {}),
        )
    ).wait(60)  # fmt: skip
    return live.client


@pytest.fixture
def pages(shown: Client) -> Iterator[TestClient]:
    with TestClient(create_app(shown, access=Access()), headers=HERE) as pages:
        yield pages


@pytest.fixture
def looked(pages: TestClient, request: pytest.FixtureRequest) -> Callable[[], str]:
    """Looks for duplicates, and gives the page when they are found."""
    wanted = {"collection": request.node.name, "min_score": "0.999"}

    def look() -> str:
        pages.post("/duplicates", data=wanted)
        found = lambda: pages.get("/duplicates", params=wanted).text  # noqa: E731
        eventually(lambda: "Looking" not in found())
        return found()

    return look


def fields(page: str, only: str = "") -> Form:
    """What the form of the groups would send; `only` what is ticked of what has that in it."""
    hidden = re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page)
    ticked = re.findall(r'name="keep" value="([^"]*)" checked', page)
    return [
        *((name, unescape(value)) for name, value in hidden),
        *(("keep", unescape(mark)) for mark in ticked if only in mark),
    ]


def sent(pages: TestClient, form: Form, *more: tuple[str, str]) -> str:
    data: dict[str, list[str]] = {}
    for name, value in (*form, *more):
        data.setdefault(name, []).append(value)
    answer = pages.post("/deletions", data=data)
    assert answer.status_code == 200
    return answer.text


def keys(client: Client, collection: str) -> set[str]:
    return {item.key for item in client.items(collection=collection)}


def test_which_to_keep_is_proposed_and_what_goes_is_seen_before(
    pages: TestClient, shown: Client, looked: Callable[[], str], request: pytest.FixtureRequest
) -> None:
    page = looked()
    assert "<script>alert" not in page
    assert page.count('class="group"') == 2
    form = fields(page)
    kept = {json.loads(mark)[1] for name, mark in form if name == "keep"}
    assert kept == {"b", "oldest"}
    before = sent(pages, form)
    assert "Delete these 3" in before
    assert len(keys(shown, request.node.name)) == 6
    after = sent(pages, form, ("sure", "1"))
    assert "3 items are deleted" in after
    assert "<script>alert" not in after
    assert keys(shown, request.node.name) == {"b", "oldest", "alone"}
    again = sent(pages, form, ("sure", "1"))
    assert "0 items are deleted" in again
    assert "gone or has changed" in again


def test_what_has_changed_since_it_was_seen_stays(
    pages: TestClient, shown: Client, looked: Callable[[], str], request: pytest.FixtureRequest
) -> None:
    form = fields(looked())
    shown.submit_image(jpeg(6009), key="a", collection=request.node.name).wait(60)
    shown.delete("oldest", collection=request.node.name)
    page = sent(pages, form, ("sure", "1"))
    assert "a: it is gone or has changed" in page
    assert "younger: what was to be kept is gone" in page
    assert keys(shown, request.node.name) == {"a", "b", "younger", "alone"}


def test_a_group_of_which_nothing_is_kept_stays(
    pages: TestClient, shown: Client, looked: Callable[[], str], request: pytest.FixtureRequest
) -> None:
    form = [(name, value) for name, value in fields(looked()) if name != "keep"]
    assert "Nothing." in sent(pages, form)
    sent(pages, form, ("sure", "1"))
    assert len(keys(shown, request.node.name)) == 6


def test_two_who_keep_different_ones_leave_one(
    pages: TestClient, shown: Client, looked: Callable[[], str], request: pytest.FixtureRequest
) -> None:
    form = fields(looked())
    marks = [mark for name, text in form if name == "group" for mark in json.loads(text)]
    others = [field for field in form if field[0] != "keep"]
    for key in ("a", "b"):
        sent(pages, others, ("keep", next(m for m in marks if json.loads(m)[1] == key)),
             ("sure", "1"))  # fmt: skip
    assert keys(shown, request.node.name) == {"a", "oldest", "younger", "alone"}


def test_a_look_that_ends_while_its_page_is_made(
    pages: TestClient, shown: Client, monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    wanted = {"collection": request.node.name, "min_score": "0.999"}
    may_end = threading.Event()
    groups, collections = shown.duplicate_groups, shown.collections

    def waits(**options: Any) -> Any:
        may_end.wait(30)
        return groups(**options)

    def ends(*_: object) -> Any:  # the page asks for these after it has looked at the groups
        may_end.set()
        look = pages.app.state.looks._look  # type: ignore[attr-defined]
        eventually(lambda: look is None or look.groups is not None)
        return collections()

    monkeypatch.setattr(shown, "duplicate_groups", waits)
    pages.post("/duplicates", data=wanted, follow_redirects=False)
    monkeypatch.setattr(shown, "collections", ends)
    assert "Looking" in pages.get("/duplicates", params=wanted).text
    assert 'class="group"' in pages.get("/duplicates", params=wanted).text


def test_what_makes_no_sense_is_said(pages: TestClient, shown: Client) -> None:
    assert pages.get("/duplicates?min_score=much").status_code == 400
    assert pages.get("/duplicates?first=99999999999").status_code == 200
    for group in ("x", "[1]", '["x"]', '["[1,2,3]"]', "{}"):
        answer = pages.post("/deletions", data={"group": group, "keep": "x", "sure": "1"})
        assert answer.status_code == 400 or "0 items are deleted" in answer.text
    wanted = {"collection": "nothing of the kind"}
    pages.post("/duplicates", data=wanted)
    eventually(lambda: "Looking" not in pages.get("/duplicates", params=wanted).text)
    assert "There are none" in pages.get("/duplicates", params=wanted).text or (
        "nothing of the kind" in pages.get("/duplicates", params=wanted).text
    )


def test_nothing_goes_where_nothing_can_be_changed(
    shown: Client, request: pytest.FixtureRequest
) -> None:
    with TestClient(create_app(shown, access=Access(read_only=True)), headers=HERE) as pages:
        wanted = {"collection": request.node.name, "min_score": "0.999"}
        pages.post("/duplicates", data=wanted)
        page = lambda: pages.get("/duplicates", params=wanted).text  # noqa: E731
        eventually(lambda: 'class="group"' in page())
        assert 'name="keep"' not in page()
        assert pages.post("/deletions", data={"sure": "1"}).status_code == 403
    with pytest.raises(NotFound):
        shown.get("no such", collection=request.node.name)
