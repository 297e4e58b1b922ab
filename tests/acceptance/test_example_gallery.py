"""The FastAPI example, run as its README says."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.databases import run_sql
from support.examples import PICTURES, Page, command, environment, is_thumbnail, serving
from support.pictures import jpeg
from support.processes import Live, eventually, free_port

from pgclip.local import LocalServices

HOSTILE = "<script>alert('x')</script>\"&/../?#%41"


# FastAPI


@contextmanager
def gallery(database_url: str, redis_url: str, folder: Path, **more: str) -> Iterator[httpx.Client]:
    port = free_port()
    run = command("uvicorn --app-dir", **{"8000": str(port)})
    environ = environment(database_url, redis_url, **more)
    with serving(run, environ, port, folder / "gallery.log") as http:
        yield http


@pytest.fixture(scope="module")
def fastapi(
    live: Live, services: LocalServices, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("fastapi")
    token = {"PGCLIP_BROWSE_TOKEN": "secret"}
    with gallery(live.database_url, services.redis_url, folder, **token) as http:
        yield http


def upload(http: httpx.Client, data: bytes, caption: str = "", **more: Any) -> httpx.Response:
    files = {"picture": ("a picture.jpg", data)}
    return http.post("/pictures", files=files, data={"caption": caption}, **more)


def upload_and_wait(http: httpx.Client, data: bytes, caption: str) -> dict[str, Any]:
    accepted = upload(http, data, caption)
    assert accepted.status_code == 202, accepted.text
    assert accepted.headers["Location"] == accepted.json()["status"]
    eventually(lambda: http.get(accepted.json()["status"]).json()["state"] in ("done", "failed"))
    item: dict[str, Any] = http.get(accepted.json()["status"]).json()
    return item


def test_the_gallery_finds_what_was_uploaded(fastapi: httpx.Client, live: Live) -> None:
    keys = {}
    for name in ("cat.jpg", "pizza.jpg", "guitar.jpg"):
        data = (PICTURES / name).read_bytes()
        item = upload_and_wait(fastapi, data, name.removesuffix(".jpg"))
        assert item["state"] == "done"
        labels = [label["name"] for label in item["labels"]]
        assert name != "guitar.jpg" or "musical instrument" in labels
        keys[name] = item["key"]
        served = fastapi.get(f"/pictures/{item['key']}")
        assert served.content == data
        assert served.headers["content-type"] == "image/jpeg"
        assert served.headers["x-content-type-options"] == "nosniff"
    found = Page(fastapi.get("/", params={"q": "a guitar"}).text)
    assert found.all("img", "alt")[0] == "guitar"
    eventually(
        lambda: (
            is_thumbnail(fastapi.get(found.all("img", "src")[0]).content) or not live.client.heal()
        )
    )
    assert fastapi.get(found.all("a", "href")[1]).content == (PICTURES / "guitar.jpg").read_bytes()
    alike = Page(fastapi.get("/", params={"like": keys["cat.jpg"]}).text)
    assert {"pizza", "guitar"} <= set(alike.all("img", "alt"))
    assert "cat" not in alike.all("img", "alt")
    assert fastapi.get(found.all("a", "href")[2]).status_code == 200


def test_the_gallery_refuses_what_it_can_not_use(fastapi: httpx.Client, live: Live) -> None:
    assert upload(fastapi, b"<script>alert(1)</script>").status_code == 422
    assert upload(fastapi, b"").status_code == 422
    assert fastapi.post("/pictures").status_code == 422
    too_large = upload(fastapi, b"\xff\xd8\xff" + bytes(11 * 2**20))
    assert too_large.status_code == 413
    # With a NUL, which Postgres can't store: pgclip itself says so.
    nul = upload(fastapi, jpeg(1), "a\0b")
    assert nul.status_code == 422
    assert "NUL" in nul.json()["detail"]
    for path in ("/items/unknown", "/pictures/unknown", "/items/a%2Fb", "/nothing"):
        assert fastapi.get(path).status_code == 404, path
    assert fastapi.get("/", params={"like": "unknown"}).status_code == 404
    assert fastapi.get("/", params={"q": "x" * 2000}).status_code == 422
    broken = upload_and_wait(fastapi, b"\xff\xd8\xff and no more", "broken")
    assert (broken["state"], broken["reason"]) == ("failed", "not_an_image")


def test_the_gallery_escapes_what_others_wrote(fastapi: httpx.Client, live: Live) -> None:
    data = (PICTURES / "penguin.jpg").read_bytes()
    live.client.submit_image(
        data, key=HOSTILE, collection="gallery", metadata={"caption": HOSTILE}
    ).wait(60)
    html = fastapi.get("/", params={"q": HOSTILE}).text
    assert "<script" not in html
    page = Page(html)
    position = page.all("img", "alt").index(HOSTILE)
    eventually(
        lambda: (
            is_thumbnail(fastapi.get(page.all("img", "src")[position]).content)
            or not live.client.heal()
        )
    )
    assert fastapi.get(page.all("a", "href")[1 + 2 * position]).content == data
    assert [value for value in page.all("input", "value") if value] == [HOSTILE]
    (more,) = (
        href
        for href, image in zip(page.all("a", "href")[2::2], page.all("img", "alt"), strict=True)
        if image == HOSTILE
    )
    assert fastapi.get(more).status_code == 200


def test_remarks_are_found_without_being_submitted(fastapi: httpx.Client, live: Live) -> None:
    numbers = [
        fastapi.post("/remarks", json={"body": body}).json()["id"]
        for body in ("a cat in the snow", "pizza with everything")
    ]

    def remarks() -> tuple[int, int, int]:
        (table,) = [each for each in live.client.tables() if each.collection == "remark"]
        return table.items, table.waiting, table.changes

    eventually(lambda: remarks() == (2, 0, 0))
    found = fastapi.get("/remarks", params={"q": "something to eat"}).json()
    assert [hit["id"] for hit in found] == numbers[::-1]
    assert fastapi.post("/remarks", json={"body": ""}).status_code == 422
    run_sql(live.database_url, "DROP TABLE remark")
    eventually(lambda: not [each for each in live.client.tables() if each.collection == "remark"])


def test_the_pages_are_at_hand(fastapi: httpx.Client) -> None:
    upload_and_wait(fastapi, (PICTURES / "guitar.jpg").read_bytes(), "guitar")
    assert fastapi.get("/browse/").status_code == 401
    address = "/browse/?token=secret&q=a+guitar&collection=gallery"
    page = fastapi.get(address, follow_redirects=True)
    assert "secret" not in str(page.url)
    assert 'src="thumbnail?' in page.text
    assert fastapi.get("/browse/static/browse.css").status_code == 200
    assert fastapi.get("/browse/review?set=general").status_code == 200


def test_the_form_leads_back_to_the_page(fastapi: httpx.Client) -> None:
    sent = upload(fastapi, jpeg(2), headers={"Accept": "text/html,*/*"})
    assert (sent.status_code, sent.headers["location"]) == (303, "/")
    assert "pictures to search" in fastapi.get("/").text


def test_the_gallery_says_when_it_can_not_serve(
    services: LocalServices, new_database: Any, tmp_path: Path
) -> None:
    url = new_database()
    limit = {"PGCLIP_MAX_QUEUED": "1"}
    with gallery(url, services.redis_url, tmp_path, **limit) as http:
        nobody = http.get("/", params={"q": "a cat"})
        assert nobody.status_code == 503
        assert "No worker answers" in Page(nobody.text).words
        run_sql(url, "SELECT pgclip.register_model('m', 4, 10, '{\"fatal\": {}}')")
        assert upload(http, jpeg(3)).status_code == 202
        full = upload(http, jpeg(4))
        assert full.status_code == 503
        assert int(full.headers["retry-after"]) > 0
    nowhere = f"postgresql://user:secret@127.0.0.1:{free_port()}/nowhere"
    with gallery(nowhere, services.redis_url, tmp_path) as http:
        refused = upload(http, jpeg(5))
        assert refused.status_code == 503
        assert "retry-after" in refused.headers
        assert "127.0.0.1" not in refused.text
        assert http.get("/").status_code == 503
