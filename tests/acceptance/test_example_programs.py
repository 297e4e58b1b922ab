"""The script, psql and Node examples, run as the README says."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
from support.databases import run_sql
from support.examples import (
    PICTURES,
    command,
    done,
    environment,
    node_service,
    required,
)
from support.places import ROOT
from support.processes import Live, eventually, free_port

from pgclip.local import LocalServices

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
    assert "guitar.jpg" in submitted.stdout
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
    assert "musical instrument" in labels
    stored = live.client.content("guitar.jpg", collection="psql")
    assert stored == (PICTURES / "guitar.jpg").read_bytes()


def test_psql_says_what_is_missing(live: Live) -> None:
    nothing = psql(live, "submit.sql", "-v", "picture=/nowhere/'; x.jpg")
    assert nothing.returncode == 3
    assert "ERROR" in nothing.stderr


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
