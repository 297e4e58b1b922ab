"""The examples, run with the commands of their README, as processes, over HTTP."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import ROOT, Live, eventually, free_port, run_sql
from packaging.requirements import Requirement
from pictures import jpeg

from pgclip.local import LocalServices

EXAMPLES = ROOT / "examples"
README = (EXAMPLES / "README.md").read_text()
PICTURES = ROOT / "demo" / "pictures"
HOSTILE = "<script>alert('x')</script>\"&/../?#%41"
Environment = dict[str, str]


def commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def command(part: str, **replaced: str) -> list[str]:
    """The README's command that contains a part, with these Python and paths."""
    (line,) = (line for line in commands() if part in line)
    words = shlex.split(line)
    for old, new in replaced.items():
        words = [word.replace(old, new) for word in words]
    if words[0].startswith(".venv/bin/"):
        words[0] = str(Path(sys.executable).parent / Path(words[0]).name)
    return words


def required(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"{program} is not installed")
        pytest.skip(f"{program} is not installed")
    return found


def environment(database_url: str, redis_url: str, **more: str) -> Environment:
    urls = {"PGCLIP_DATABASE_URL": database_url, "PGCLIP_REDIS_URL": redis_url}
    return {**os.environ, **urls, "PYTHONUNBUFFERED": "1", **more}


@contextmanager
def serving(
    command: list[str], environ: Environment, port: int, log: Path, folder: Path = ROOT
) -> Iterator[httpx.Client]:
    """An application's process, from when it answers until it is told to end."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environ, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            eventually(lambda: process.poll() is not None or answers(port))
            assert process.poll() is None, log.read_text()
            yield http
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


class Page(HTMLParser):
    """What a browser makes of a page: its elements with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data

    def all(self, tag: str, attribute: str) -> list[str]:
        return [about.get(attribute) or "" for name, about in self.elements if name == tag]


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
    with gallery(live.database_url, services.redis_url, folder) as http:
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


def test_the_gallery_finds_what_was_uploaded(fastapi: httpx.Client) -> None:
    keys = {}
    for name in ("cat.jpg", "pizza.jpg", "guitar.jpg"):
        data = (PICTURES / name).read_bytes()
        item = upload_and_wait(fastapi, data, name.removesuffix(".jpg"))
        assert item["state"] == "done"
        assert item["labels"]
        keys[name] = item["key"]
        served = fastapi.get(f"/pictures/{item['key']}")
        assert served.content == data
        assert served.headers["content-type"] == "image/jpeg"
        assert served.headers["x-content-type-options"] == "nosniff"
    found = Page(fastapi.get("/", params={"q": "a guitar"}).text)
    assert found.all("img", "alt")[0] == "guitar"
    assert fastapi.get(found.all("img", "src")[0]).content == (PICTURES / "guitar.jpg").read_bytes()
    alike = Page(fastapi.get("/", params={"like": keys["cat.jpg"]}).text)
    assert {"pizza", "guitar"} <= set(alike.all("img", "alt"))
    assert "cat" not in alike.all("img", "alt")
    assert fastapi.get(found.all("a", "href")[1]).status_code == 200


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
    assert fastapi.get(page.all("img", "src")[position]).content == data
    assert [value for value in page.all("input", "value") if value] == [HOSTILE]
    (more,) = (
        href
        for href, image in zip(page.all("a", "href")[1:], page.all("img", "alt"), strict=True)
        if image == HOSTILE
    )
    assert fastapi.get(more).status_code == 200


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
        run_sql(url, "SELECT pgclip.add_model('a model without a worker')")
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


# Django


@pytest.fixture(scope="module")
def shop(live: Live, services: LocalServices, tmp_path_factory: Any) -> Environment:
    """What the shop's processes run with, its tables made."""
    environ = environment(
        live.database_url,
        services.redis_url,
        DJANGO_DEBUG="1",
        DJANGO_MEDIA_ROOT=str(tmp_path_factory.mktemp("media")),
    )
    assert "export DJANGO_DEBUG=1" in commands()
    subprocess.run(command("manage.py migrate"), cwd=ROOT, env=environ, check=True)
    return environ


@pytest.fixture(scope="module")
def django(shop: Environment, tmp_path_factory: Any) -> Iterator[httpx.Client]:
    port = free_port()
    run = [*command("manage.py runserver", **{"8000": str(port)}), "--noreload"]
    with serving(run, shop, port, tmp_path_factory.mktemp("django") / "log") as http:
        yield http


def manage(shop: Environment, *arguments: str) -> str:
    run = [*command("manage.py migrate")[:-1], *arguments]
    done = subprocess.run(run, cwd=ROOT, env=shop, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def add_product(http: httpx.Client, name: str, image: bytes) -> httpx.Response:
    token = http.get("/add/").cookies["csrftoken"]
    form = {"name": name, "price": "9.50", "csrfmiddlewaretoken": token}
    return http.post("/add/", data=form, files={"image": ("picture.jpg", image)})


def states(http: httpx.Client) -> list[str]:
    classes = Page(http.get("/").text).all("span", "class")
    return [name.removeprefix("state ") for name in classes if name.startswith("state ")]


def test_the_shop_shows_and_finds_products(django: httpx.Client, live: Live) -> None:
    for name in ("banana", "guitar", "penguin"):
        added = add_product(django, f"{name} <b>", (PICTURES / f"{name}.jpg").read_bytes())
        assert (added.status_code, added.headers.get("location")) == (302, "/"), added.text
    eventually(lambda: states(django) == ["done"] * 3)
    page = Page(django.get("/").text)
    assert page.all("img", "alt") == ["penguin <b>", "guitar <b>", "banana <b>"]
    assert "musical instrument" in page.words
    assert django.get(page.all("img", "src")[0]).content == (PICTURES / "penguin.jpg").read_bytes()
    found = Page(django.get("/search/", params={"q": "a banana"}).text)
    assert found.all("img", "alt")[0] == "banana <b>"
    (similar,) = (
        href
        for href, image in zip(
            [href for href in found.all("a", "href") if "/similar/" in href],
            found.all("img", "alt"),
            strict=True,
        )
        if image == "banana <b>"
    )
    others = Page(django.get(similar).text).all("img", "alt")
    assert sorted(others) == ["guitar <b>", "penguin <b>"]
    empty = Page(django.get("/search/", params={"q": " "}).text)
    assert empty.all("img", "alt") == []


def test_the_shop_refuses_what_is_no_picture(django: httpx.Client, live: Live) -> None:
    before = live.client.count(collection="products")
    assert add_product(django, "nothing", b"not a picture").status_code == 422
    assert live.client.count(collection="products") == before
    assert django.get("/search/", params={"q": "a\0b"}).status_code == 422


ROLLED_BACK = """
from django.core.files.base import ContentFile
from django.db import transaction
from products import index
from products.models import IndexedItem, Product

product = Product(name="never", price=1)
product.image = ContentFile(open(PICTURE, "rb").read(), "never.jpg")
try:
    with transaction.atomic():
        index.save(product)
        assert IndexedItem.objects.get(key=str(product.pk)).state == "queued"
        raise KeyError("something else goes wrong")
except KeyError:
    print(product.pk)
"""

DELETED = """
from products.models import Product

product = Product.objects.filter(name__startswith="banana").first()
print(product.pk)
Product.objects.filter(pk=product.pk).delete()
"""


def test_a_product_that_is_rolled_back_was_never_submitted(shop: Environment, live: Live) -> None:
    code = ROLLED_BACK.replace("PICTURE", repr(str(PICTURES / "lemon.jpg")))
    key = manage(shop, "shell", "-v", "0", "-c", code).strip()
    assert list(live.client.items(collection="products", keys=[key])) == []
    assert run_sql(live.database_url, "SELECT FROM products_product WHERE name = 'never'") == []


def test_a_product_that_is_deleted_leaves_the_index(
    django: httpx.Client, shop: Environment, live: Live
) -> None:
    add_product(django, "banana again", (PICTURES / "banana.jpg").read_bytes())
    key = manage(shop, "shell", "-v", "0", "-c", DELETED).strip()
    assert len(key) == 36
    assert list(live.client.items(collection="products", keys=[key])) == []


def test_the_admin_shows_states_and_labels(django: httpx.Client, shop: Environment) -> None:
    assert command("manage.py createsuperuser")[-1] == "createsuperuser"
    account = {"DJANGO_SUPERUSER_USERNAME": "ann", "DJANGO_SUPERUSER_PASSWORD": "a long one"}
    options = ("createsuperuser", "--no-input", "--email", "ann@example.org")
    manage({**shop, **account}, *options)
    add_product(django, "in the admin", (PICTURES / "trumpet.jpg").read_bytes())
    eventually(lambda: set(states(django)) == {"done"})
    with httpx.Client(base_url=django.base_url) as admin:
        admin.get("/admin/login/")
        login = {"username": "ann", "password": "a long one"}
        login["csrfmiddlewaretoken"] = admin.cookies["csrftoken"]
        assert admin.post("/admin/login/?next=/admin/", data=login).status_code == 302
        html = admin.get("/admin/products/product/?item__state=done&o=3").text
        assert "musical instrument" in Page(html).words
        (change,) = re.findall(r'href="([^"]+)">in the admin<', html)
        change = change.partition("?")[0]
        form = {"name": "renamed", "price": "3", "csrfmiddlewaretoken": admin.cookies["csrftoken"]}
        assert admin.post(change, data=form).status_code == 302
    assert "renamed" in Page(django.get("/").text).words


def test_the_shops_migrations_are_complete(shop: Environment) -> None:
    manage(shop, "makemigrations", "--check", "--dry-run")
    manage(shop, "check", "--fail-level", "WARNING")


# The script


def index_folder(live: Live, services: LocalServices, *arguments: str) -> Any:
    run = [*command("index_folder.py")[:2], *arguments]
    environ = environment(live.database_url, services.redis_url)
    return subprocess.run(run, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=120)


def test_a_folder_is_indexed_and_searched(
    live: Live, services: LocalServices, tmp_path: Path
) -> None:
    folder = tmp_path / "my folder"
    (folder / "more").mkdir(parents=True)
    for name in ("cat.jpg", "pizza.jpg", "more/rocket.jpg"):
        (folder / name).write_bytes((PICTURES / Path(name).name).read_bytes())
    (folder / "note.txt").write_text("a rainbow after the rain")
    (folder / "other.pdf").write_text("not looked at")
    done = index_folder(live, services, str(folder), "a rocket", str(PICTURES / "cat.jpg"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("4 of 4 files are indexed.")
    first, second = done.stdout.split("\n\n")[1:]
    assert "more/rocket.jpg" in first.splitlines()[1]
    assert "cat.jpg" in second.splitlines()[1]
    (folder / "broken.jpg").write_bytes(b"not a picture")
    (folder / "empty.txt").write_text("")
    (folder / "latin.txt").write_bytes(b"\xff\xfe\xff")
    done = index_folder(live, services, str(folder))
    assert done.returncode == 1
    assert done.stdout.startswith("4 of 7 files are indexed.")
    told = re.findall(r"^  not indexed: (\S+):", done.stderr, re.MULTILINE)
    assert sorted(told) == ["broken.jpg", "empty.txt", "latin.txt"]


def test_the_readmes_folder_is_indexed(live: Live, services: LocalServices) -> None:
    collection = ("--collection", "a folder")
    done = index_folder(live, services, *command("index_folder.py")[2:], *collection)
    assert done.returncode == 0, done.stderr
    assert "black-cat.jpg" in done.stdout.split("a black cat")[1].splitlines()[1]


def test_a_folder_that_can_not_be_indexed(
    live: Live, services: LocalServices, new_database: Any, tmp_path: Path
) -> None:
    assert index_folder(live, services, str(tmp_path / "none")).returncode == 2
    empty = index_folder(live, services, str(tmp_path), "a cat")
    assert (empty.returncode, "nothing found" in empty.stdout) == (0, True)
    nowhere = Live(live.client, f"postgresql://x@127.0.0.1:{free_port()}/x", tmp_path)
    (tmp_path / "note.txt").write_text("a note")
    failed = index_folder(nowhere, services, str(tmp_path))
    assert failed.returncode == 2
    assert failed.stderr.startswith("ConnectionFailed: ")
    idle = Live(live.client, new_database(), tmp_path)
    waiting = index_folder(idle, services, str(tmp_path), "--timeout", "0.5")
    assert waiting.returncode == 1
    assert "1 still wait" in waiting.stderr


# psql


def psql(live: Live, script: str, *options: str) -> Any:
    bundled = sorted(Path(sys.prefix).glob("lib/python*/site-packages/*/pginstall*/bin/psql"))
    program = shutil.which("psql") or (bundled and str(bundled[-1])) or required("psql")
    run = command(f"psql/{script}", **{"$PGCLIP_DATABASE_URL": live.database_url})
    run = [program, "-X", *run[1:], *options]
    return subprocess.run(run, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_psql_submits_follows_and_searches(live: Live) -> None:
    submitted = psql(live, "submit.sql")
    assert submitted.returncode == 0, submitted.stderr
    assert "cat.jpg" in submitted.stdout
    eventually(lambda: re.search(r"done +\| +4\b", psql(live, "status.sql").stdout))
    status = psql(live, "status.sql", "-v", "retry=1")
    assert status.returncode == 0, status.stderr
    assert re.search(r"queued_again *\n-+\n +0\b", status.stdout)
    assert " t " in status.stdout  # the worker is alive
    found = psql(live, "search.sql", "-v", "query=a slice of pizza")
    assert found.returncode == 0, found.stderr
    nearest, notes, alike, labels = re.split(
        r"^(?=Nearest|The same|Texts|Labels)", found.stdout, flags=re.MULTILINE
    )[1:]
    assert "note-2" in nearest.splitlines()[3]
    assert "bob" in notes.splitlines()[3]
    assert "eve" not in notes
    assert "note-" in alike
    assert "animal" in labels
    assert live.client.content("cat.jpg", collection="psql") == (PICTURES / "cat.jpg").read_bytes()


def test_psql_says_what_is_missing(live: Live) -> None:
    nothing = psql(live, "submit.sql", "-v", "picture=/nowhere/'; x.jpg")
    assert nothing.returncode == 3
    assert "ERROR" in nothing.stderr


# Node


@pytest.fixture(scope="module")
def node_app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the service, its packages installed."""
    required("node")
    folder = tmp_path_factory.mktemp("node") / "app"
    shutil.copytree(EXAMPLES / "node", folder, ignore=shutil.ignore_patterns("node_modules"))
    install = command("node ci")
    assert install[:3] == ["npm", "--prefix", "examples/node"]
    run = [required("npm"), install[3], "--no-audit", "--no-fund"]
    subprocess.run(run, cwd=folder, check=True, timeout=120)
    return folder


@contextmanager
def node_service(app: Path, database_url: str, redis_url: str, log: Path) -> Iterator[httpx.Client]:
    port = free_port()
    environ = environment(database_url, redis_url, PORT=str(port))
    start = json.loads((app / "package.json").read_text())["scripts"]["start"]
    run = [required("node"), *start.split()[1:]]
    with serving(run, environ, port, log, app) as http:
        yield http


@pytest.fixture(scope="module")
def node(node_app: Path, live: Live, services: LocalServices) -> Iterator[httpx.Client]:
    log = node_app.parent / "log"
    with node_service(node_app, live.database_url, services.redis_url, log) as http:
        yield http


def done(http: httpx.Client, accepted: httpx.Response) -> dict[str, Any]:
    assert accepted.status_code == 202, accepted.text
    status = accepted.headers["location"]
    eventually(lambda: http.get(status).json()["state"] in ("done", "failed"))
    item: dict[str, Any] = http.get(status).json()
    return item


def test_the_node_service_indexes_and_searches(node: httpx.Client) -> None:
    text = command("3000/texts")[2]
    article = done(node, node.post("/texts", content=text))
    assert article["state"] == "done"
    picture = (PICTURES / "penguin.jpg").read_bytes()
    item = done(node, node.post("/pictures", params={"key": "a/b?c #%"}, content=picture))
    assert (item["key"], item["state"]) == ("a/b?c #%", "done")
    assert "animal" in item["labels"] or "bird" in item["labels"]
    unnamed = done(node, node.post("/pictures", content=(PICTURES / "pizza.jpg").read_bytes()))
    assert unnamed["key"].startswith("sha256:")
    hits = node.get(command("3000/search")[1].split("3000")[1]).json()["hits"]
    assert {hit["key"] for hit in hits[:2]} == {article["key"], "a/b?c #%"}
    assert next(hit for hit in hits if hit["kind"] == "text")["title"] == json.loads(text)["title"]


def test_the_node_service_answers_with_statuses(node: httpx.Client, live: Live) -> None:
    articles = "SELECT count(*) FROM article"
    before = run_sql(live.database_url, articles)
    # Refused by pgclip within the transaction: the article is not there either.
    assert node.post("/texts", json={"title": "blank", "body": "  "}).status_code == 422
    assert run_sql(live.database_url, articles) == before
    assert node.post("/texts", content="{").status_code == 400
    assert node.post("/texts", json={"title": 1}).status_code == 422
    assert node.post("/pictures", content=b"").status_code == 422
    assert node.post("/pictures", content=bytes(11 * 2**20)).status_code == 413
    assert node.post("/pictures", content=iter([bytes(2**20)] * 11)).status_code == 413
    assert node.get("/search", params={"q": " "}).status_code == 422
    assert node.get("/search", params={"q": "x", "k": "many"}).status_code == 422
    for path in ("/items/unknown", "/nothing"):
        assert node.get(path).status_code == 404
    assert node.get("/items/%ff").status_code == 400


def test_the_node_service_without_a_worker(
    node_app: Path, services: LocalServices, new_database: Any, tmp_path: Path
) -> None:
    with node_service(node_app, new_database(), services.redis_url, tmp_path / "log") as http:
        asked = http.get("/search", params={"q": "a cat"})
        assert asked.status_code == 503
        assert int(asked.headers["retry-after"]) > 0


# All of them


def test_the_readme_names_what_is_there() -> None:
    shown = {path.name for path in EXAMPLES.iterdir() if path.name != "README.md"}
    linked = set(re.findall(r"\]\(([^)/]+)", README)) - {"..", "http:"}
    assert linked == shown - {"__pycache__", ".ruff_cache"}
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert (EXAMPLES / target).exists(), target
    for line in commands():
        for path in re.findall(r"(?:examples|demo)/[\w./-]+", line):
            assert (ROOT / path).exists(), line
    for target in re.findall(r"^make (\w+)", "\n".join(commands()), re.MULTILINE):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_examples_use_public_names_only() -> None:
    import pgclip

    for file in EXAMPLES.rglob("*.py"):
        source = file.read_text()
        for names in re.findall(r"from pgclip import (\([^)]*\)|.*)", source):
            assert set(re.findall(r"\w+", names)) <= set(pgclip.__all__), file
        assert not re.search(r"(from|import) pgclip\.", source), file
    for file in [*EXAMPLES.rglob("*.sql"), EXAMPLES / "node" / "store.js"]:
        assert not re.search(r"pgclip\._", file.read_text()), file


def test_the_lock_file_names_no_host() -> None:
    lock = (EXAMPLES / "node" / "package-lock.json").read_text()
    assert "://" not in lock
    assert json.loads(lock)["packages"][""]["dependencies"] == {"pg": "^8.13.0"}


def test_what_examples_require_is_what_they_are_tested_with() -> None:
    files = list(EXAMPLES.glob("*/requirements.txt"))
    assert len(files) == 2
    for file in files:
        for requirement in map(Requirement, file.read_text().splitlines()):
            assert version(requirement.name) in requirement.specifier, requirement
