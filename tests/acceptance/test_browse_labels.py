"""Pages of labels: sets are made, reviewed by several people, taught and checked."""

import json
import re
import threading
from collections.abc import Iterator
from hashlib import sha256
from html import unescape
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from starlette.testclient import TestClient
from support.browsers import TOKEN, served
from support.pictures import jpeg
from support.processes import Live, eventually

from pgclip import Client
from pgclip_web import Access, create_app

HERE = {"origin": "http://testserver"}
HOSTILE = "\"><script>alert(1)</script>{{7*7}}'&"


@pytest.fixture(scope="module")
def shown(live: Live) -> Client:
    live.client.submit_many(
        {"image": jpeg(5000 + n, 160, 120), "key": f"judged/{n}.jpg", "collection": "judged here"}
        for n in range(60)
    ).wait(120)
    live.client.submit_text(HOSTILE, key=HOSTILE, collection="judged here").wait(60)
    return live.client


@pytest.fixture
def pages(shown: Client) -> Iterator[TestClient]:
    with TestClient(create_app(shown, access=Access()), headers=HERE) as pages:
        yield pages


@pytest.fixture
def made(pages: TestClient, request: pytest.FixtureRequest) -> str:
    """A set of two labels that stand alone, made on the page; its name."""
    name = f"set of {request.node.name} {HOSTILE}"
    form = {"set": name, "words": f"wheel = tyre, disc\n{HOSTILE}\n", "applies_to": "both"}
    assert pages.post("/labels", data=form).status_code == 200
    return name


def labelled(client: Client, name: str) -> None:
    """Waits until workers have labelled what is there, so that there is something to review."""
    eventually(lambda: client.review(name, 5, by="nobody in particular"))


def drawn(page: str) -> list[dict[str, str]]:
    """The fields of each form of a draw."""
    forms = re.findall(r'<li class="draw".*?</li>', page, re.DOTALL)
    field = re.compile(r'name="(\w+)" value="([^"]*)"')
    return [{name: unescape(value) for name, value in field.findall(form)[:8]} for form in forms]


def judgements(client: Client, name: str) -> list[tuple[str, str, bool, str]]:
    return [(one.key, one.label, one.value, one.judge) for one in client.judgements(name)]


def test_a_set_is_made_and_changed(pages: TestClient, shown: Client, made: str) -> None:
    (found,) = [each for each in shown.label_sets() if each.name == made]
    assert found.labels == ("wheel", HOSTILE)
    assert found.forms["wheel"] == ("tyre", "disc")
    assert not found.exclusive
    page = pages.get(f"/labels?{urlencode({'set': made})}").text
    assert "<script>alert" not in page
    assert "wheel = tyre, disc" in page
    again = pages.post("/labels", data={"set": made, "words": "other"})
    assert again.status_code == 400
    assert "already" in again.text
    version = re.findall(r'name="version" value="(\d+)"', page)[0]
    changed = {"set": made, "version": version, "words": "wheel = tyre\ndoor"}
    assert pages.post("/labels", data=changed).status_code == 200
    (found,) = [each for each in shown.label_sets() if each.name == made]
    assert found.labels == ("wheel", "door")
    assert found.templates != ()
    late = pages.post("/labels", data={**changed, "words": "else"})
    assert late.status_code == 400
    assert "somebody else" in late.text
    assert pages.get("/labels").text.count("wheel, door") == 1
    assert pages.get("/labels?set=nothing").status_code == 404


def test_who_only_looks_draws_nothing(pages: TestClient, shown: Client, made: str) -> None:
    labelled(shown, made)
    page = pages.get(f"/review?{urlencode({'set': made})}")
    assert page.status_code == 200
    assert drawn(page.text) == []
    assert "Begin" in page.text


def test_a_review_without_scripts(pages: TestClient, shown: Client, made: str) -> None:
    labelled(shown, made)
    page = pages.post("/review", data={"set": made, "by": "ana"}).text
    draws = drawn(page)
    assert 0 < len(draws) <= 20
    assert "<script>alert" not in page
    first = draws[0]
    page = pages.post("/review", data={**first, "answer": "yes"}).text
    assert (first["key"], first["of"], True, "ana") in judgements(shown, made)
    assert all((one["key"], one["of"]) != (first["key"], first["of"]) for one in drawn(page))
    second = drawn(page)[0]
    pages.post("/review", data={**second, "answer": "unsure"})
    refused = pages.post("/review", data={**second, "key": "gone", "answer": "yes"})
    assert refused.status_code == 404
    assert "there is no item" in refused.text
    assert drawn(refused.text)


def test_answers_one_by_one_and_back(pages: TestClient, shown: Client, made: str) -> None:
    labelled(shown, made)
    one = drawn(pages.post("/review", data={"set": made, "by": "ben", "label": "wheel"}).text)[0]
    assert one["of"] == "wheel"
    assert pages.post("/judge", data={**one, "answer": "no"}).json() == {}
    assert judgements(shown, made) == [(one["key"], "wheel", False, "ben")]
    assert pages.post("/judge", data={**one, "answer": "unsure"}).status_code == 200
    assert judgements(shown, made) == []
    assert pages.post("/judge", data={**one, "answer": "back"}).status_code == 200
    assert judgements(shown, made) == []
    refused = pages.post("/judge", data={**one, "answer": "maybe"})
    assert refused.status_code == 400
    assert "yes, no, unsure or back" in refused.json()["error"]
    assert pages.post("/judge", data={**one, "of": "nothing", "answer": "no"}).status_code == 404


def test_an_answer_is_for_what_was_seen(pages: TestClient, shown: Client, made: str) -> None:
    labelled(shown, made)
    page = pages.post("/review", data={"set": made, "by": "eva", "label": "wheel"}).text
    before = jpeg(5007, 160, 120)
    mine = {"collection": "judged here", "key": "judged/7.jpg"}  # others use what else is drawn
    one = {**drawn(page)[0], **mine, "content": sha256(before).hexdigest()}
    shown.submit_image(jpeg(5999), **mine).wait(60)
    try:
        for answer in ("yes", "unsure"):
            refused = pages.post("/judge", data={**one, "answer": answer})
            assert refused.status_code == 503
            assert "other content" in refused.json()["error"]
        assert judgements(shown, made) == []
        assert (
            pages.post("/judge", data={**one, "content": "x", "answer": "yes"}).status_code == 400
        )
    finally:
        shown.submit_image(before, **mine).wait(60)
    assert pages.post("/judge", data={**one, "answer": "yes"}).status_code == 200
    assert judgements(shown, made) == [("judged/7.jpg", "wheel", True, "eva")]


def test_two_people_get_different_draws(pages: TestClient, shown: Client, made: str) -> None:
    labelled(shown, made)
    seen = [
        {(one["key"], one["of"]) for one in drawn(pages.post("/review", data=form).text)}
        for form in ({"set": made, "by": "ana"}, {"set": made, "by": "ben"})
    ]
    assert seen[0]
    assert seen[1]
    assert not seen[0] & seen[1]
    again = pages.post("/review", data={"set": made, "by": "ana"}).text
    assert not {(one["key"], one["of"]) for one in drawn(again)} & seen[1]


def test_the_proxy_says_who_judges(shown: Client, pages: TestClient, made: str) -> None:
    labelled(shown, made)
    app = create_app(shown, access=Access(user_header="X-User"))
    with TestClient(app, headers={**HERE, "X-User": "carla"}) as behind:
        page = behind.post("/review", data={"set": made, "by": "somebody else"}).text
        assert "You judge as carla" in page
        behind.post("/judge", data={**drawn(page)[0], "by": "somebody else", "answer": "yes"})
    assert {judge for *_, judge in judgements(shown, made)} == {"carla"}


def test_a_label_is_taught_and_checked(pages: TestClient, shown: Client, made: str) -> None:
    for n in range(24):
        shown.judge(
            made, "wheel", f"judged/{n}.jpg", n % 2 == 0, by="dora", collection="judged here"
        )
    page = pages.get(f"/labels?{urlencode({'set': made})}").text
    assert "Teach" in page
    taught = pages.post("/teach", data={"set": made})
    assert taught.status_code == 200
    assert "24 examples" in taught.text
    assert re.search(r"<th scope=\"row\">wheel</th><td>12</td><td>12</td>", taught.text)
    found = pages.post("/evaluate", data={"set": made})
    assert found.status_code == 200
    assert found.text.count("<svg") > 4
    assert "<script>alert" not in found.text
    report = shown.evaluate(made)
    assert f"{100 * report['accuracy']['share']:.1f}%" in found.text


def test_a_label_is_judged_where_an_item_is_seen(
    pages: TestClient, shown: Client, made: str
) -> None:
    key = "judged/3.jpg"
    where = urlencode({"collection": "judged here", "key": key})
    shown.promise(made, "wheel", precision=0.9)
    page = pages.get(f"/item?{where}").text
    assert "nothing yet" in page
    form = re.findall(r'<form method="post" action="judge".*?</form>', page, re.DOTALL)
    field = re.compile(r'name="(\w+)" value="([^"]*)"')
    rows = [{name: unescape(value) for name, value in field.findall(each)} for each in form]
    one = next(each for each in rows if (each["set"], each.get("of")) == (made, "wheel"))
    again = pages.post("/judge", data={**one, "by": "fay", "answer": "no"})
    assert "what people said" in again.text
    assert "<script>alert" not in again.text
    assert judgements(shown, made) == [(key, "wheel", False, "fay")]
    assert "fay: no, wheel" in again.text
    said = shown.judgements_of(key, collection="judged here")
    assert [(each.judge, each.value) for each in said if each.set == made] == [("fay", False)]
    (decided,) = [each for each in shown.decisions_of(key, collection="judged here")
                  if (each.set, each.label) == (made, "wheel")]  # fmt: skip
    assert (decided.decision, decided.rests_on) == ("no", "judgement")
    assert shown.decisions_of("no such item") == []
    refused = pages.post("/judge", data={**one, "answer": "yes", "key": "gone"})
    assert refused.status_code == 404
    assert "did not work" in refused.text


def test_a_promise_is_asked_for_and_taken_back(pages: TestClient, shown: Client, made: str) -> None:
    form = {"set": made, "label": "wheel", "what": "precision", "share": "0.9", "opinions": "1"}
    page = pages.post("/promise", data=form)
    assert "precision 0.9" in page.text
    assert [each.share for each in shown.promises(made)] == [pytest.approx(0.9)]
    assert pages.post("/promise", data={**form, "share": "much"}).status_code == 400
    assert pages.post("/promise", data={**form, "opinions": "9" * 5000}).status_code == 400
    pages.post("/promise", data={**form, "what": "recall"})
    pages.post("/promise", data={**form, "what": "recall", "withdraw": "1"})
    assert [each.what for each in shown.promises(made)] == ["precision"]
    pages.post("/promise", data={**form, "withdraw": "1"})
    assert shown.promises(made) == []


def test_who_waits_for_a_worker_keeps_nobody_from_looking(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgclip_web.labels._SECONDS", 2.0)
    client.define_label_set("nobody's", ["wheel"], exclusive=False)
    ended: list[int] = []
    with served(client) as address:

        def teach() -> None:
            form = {"set": "nobody's"}
            with httpx.Client(headers={"origin": address}, timeout=120) as browser:
                browser.get(f"{address}/?token={TOKEN}")
                ended.append(browser.post(f"{address}/teach", data=form).status_code)

        waiting = [threading.Thread(target=teach) for _ in range(45)]
        with httpx.Client(timeout=120) as browser:
            browser.get(f"{address}/?token={TOKEN}")
            for thread in waiting:
                thread.start()
            eventually(lambda: ended)
            assert browser.get(f"{address}/state").status_code == 200
            assert len(ended) < 45
        for thread in waiting:
            thread.join()
    assert set(ended) == {503}


def test_nothing_is_judged_where_nothing_can_be_changed(shown: Client, made: str) -> None:
    labelled(shown, made)
    app = create_app(shown, access=Access(read_only=True))
    with TestClient(app, headers=HERE) as pages:
        assert "can be judged" in pages.get(f"/review?{urlencode({'set': made})}").text
        where: dict[str, Any] = {"set": made, "of": "wheel", "key": "judged/1.jpg"}
        where |= {"collection": "judged here", "answer": "yes"}
        for path in ("/judge", "/review", "/teach", "/labels", "/promise"):
            assert pages.post(path, data=where).status_code == 403
        page = pages.get(f"/labels?{urlencode({'set': made})}").text
        assert "<form" not in page
    assert shown.judgements(made) == []


def test_a_label_leads_to_its_items(pages: TestClient, shown: Client, made: str) -> None:
    where = {"filter": json.dumps({"$label": {"name": "wheel", "set": made}})}
    page = pages.get(f"/?{urlencode(where)}")
    assert page.status_code == 200
    assert unescape(page.text).count(f"wheel, of {made}") > 0
