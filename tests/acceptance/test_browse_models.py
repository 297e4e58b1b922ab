"""The page of models: two side by side, blind, and what people prefer."""

import re
from collections.abc import Callable, Iterator
from html import unescape
from typing import Any

import pytest
from starlette.testclient import TestClient
from support.processes import WorkerFactory, eventually

from pgclip import Client
from pgclip_web import Access, create_app

HERE = {"origin": "http://testserver"}
HOSTILE = '"><script>alert(1)</script>'
Sql = Callable[..., list[Any]]


@pytest.fixture
def pages(
    client: Client, sql: Sql, database_url: str, start_worker: WorkerFactory
) -> Iterator[TestClient]:
    """Of a model, and another that has nothing to do with it."""
    start_worker(database_url)
    client.submit_many({"text": f"{HOSTILE} {n}", "key": f"{HOSTILE} {n}"} for n in range(40)).wait(
        60
    )
    sql("SELECT pgclip.add_model('other')")
    start_worker(database_url, PGCLIP_MODEL_NAME="other", PLANTED_TURN="unlike")
    filled = "SELECT items FROM pgclip.models WHERE name = 'other'"
    eventually(lambda: sql(filled) == [(40,)])
    with TestClient(create_app(client, access=Access()), headers=HERE) as pages:
        yield pages


def fields(page: str) -> dict[str, str]:
    form = re.findall(r'<form[^>]*id="prefer".*?</form>', page, re.DOTALL)[0]
    found = re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', form)
    return {name: unescape(value) for name, value in found}


def test_which_is_better(pages: TestClient, client: Client) -> None:
    page = pages.get("/models").text
    assert "<option>other</option>" in page
    begun = pages.post("/models", data={"model": "other", "kind": "text"})
    assert begun.status_code == 200
    assert "<script>alert" not in begun.text
    name = fields(begun.text)["trial"]
    trial = pages.app.state.trials.get(name)  # type: ignore[attr-defined]
    assert {question.left for question in trial.questions} == {"old", "new"}
    page = begun.text
    for _ in trial.questions:  # who always prefers the new one, wherever it stands
        assert "other" not in re.sub(r"<[^>]*>|somebody else|Others", "", page)
        form = fields(page)
        question = trial.questions[int(form["place"])]
        answer = "left" if question.left == "new" else "right"
        page = pages.post("/trial", data={**form, "answer": answer}).text
    count = len(trial.questions)
    assert f'<th scope="row">other</th><td>{count}</td>' in page
    assert f"{100 * 2 * 0.5**count:.1f}%" in page
    second = pages.get("/trial", params={"trial": name, "by": "ana"}).text
    form = fields(second)
    assert form["by"] == "ana"
    pages.post("/trial", data={**form, "answer": "neither"})
    told = pages.get("/trial", params={"trial": name, "by": "ana", "end": "1"}).text
    assert '<th scope="row">neither</th><td>1</td>' in told


def test_what_makes_no_sense_is_said(pages: TestClient) -> None:
    assert pages.post("/models", data={"model": "nothing"}).status_code in (400, 404)
    assert pages.get("/trial?trial=nothing").status_code == 404
    form = fields(pages.post("/models", data={"model": "other", "kind": "text"}).text)
    for wrong in ({"answer": "both"}, {"answer": "left", "place": "99999"}, {"trial": "x"}):
        assert pages.post("/trial", data={**form, **wrong}).status_code in (400, 404)
