"""`pgclip labels`: defined, judged, taught, checked, written and read, as people do it."""

import csv
import io
import json
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from support.commands import pgclip
from support.databases import run_sql
from support.processes import WorkerFactory, eventually
from support.roles import Roles

from pgclip import Client
from pgclip.local import LocalServices

Told = CompletedProcess[str]


class Shell:
    """Runs commands in an environment."""

    def __init__(self, database_url: str, services: LocalServices) -> None:
        self.environ = {"PGCLIP_DATABASE_URL": database_url, "PGCLIP_REDIS_URL": services.redis_url}

    def __call__(self, *arguments: str | Path, status: int = 0) -> str:
        told = pgclip("labels", *arguments, **self.environ)
        assert told.returncode == status, told.stderr
        return told.stdout if status == 0 else told.stdout + told.stderr


@pytest.fixture
def labels(
    client: Client, database_url: str, services: LocalServices, start_worker: WorkerFactory
) -> Shell:
    """A worker, and texts that are like three words, as their metadata say."""
    start_worker(database_url)
    client.submit_many(
        [{"text": f"like {word} {n}", "key": f"{word} {n}", "metadata": {"is": word}}
         for word in ("cat", "dog", "car") for n in range(20)]
    ).wait(60)  # fmt: skip
    return Shell(database_url, services)


def test_from_a_definition_to_an_evaluation(labels: Shell, client: Client) -> None:
    told = labels("define", "pets", "cat=kitten", "dog=puppy=hound", "--template", "{}",
                  "--background", "car", "--threshold", "0.2", "--no-relabel")  # fmt: skip
    assert told == "label set pets has 2 labels\n"
    (pets,) = [one for one in client.label_sets() if one.name == "pets"]
    assert pets.forms == {"cat": ("kitten",), "dog": ("puppy", "hound")}
    assert (pets.background, pets.relabel, pets.templates) == (("car",), False, ("{}",))
    assert labels("relabel", "pets") == "items are labelled anew\n"
    assert labels("relabel", "pets", "--stop") == "items stay as they are\n"
    for n in range(4):
        assert labels("judge", "pets", "cat", f"cat {n}", "--yes", "--by", "ana") == "noted\n"
        labels("judge", "pets", "dog", f"dog {n}", "--yes", "--by", "ana")
    labels("judge", "pets", "cat", "cat 0", "--no", "--by", "ben")
    told = labels("teach", "pets")
    assert told.startswith("8 examples; right of those held out: ")
    assert "1 judgements don't count: people disagree" in told
    assert labels("judge", "pets", "cat", "cat 0", "--take-back", "--by", "ben") == "taken back\n"
    told = " ".join(labels("evaluate", "pets", "--truth", "is").split())
    assert "60 examples, 8 judged by heads held out" in told
    assert "items of no label, with one" in told
    assert "threshold items with a label precision recall 0.10" in told
    found = json.loads(labels("evaluate", "pets", "--truth", "is", "--json"))
    assert found["recall"]["of"] == 40
    accuracy = found["accuracy"]
    assert accuracy["low"] < accuracy["share"] <= accuracy["high"]
    assert json.loads(labels("teach", "pets", "--truth", "is", "--json"))["examples"] == 60
    listed = " ".join(labels("list").split())
    assert "pets 3 3 0.20 both yes 2 cat, dog" in listed
    labels("define", "rooms", "kitchen", "bath", "--no-exclusive", "--background", "common",
           "--template", "seven", "--collection", "shop", "--collection", "more")  # fmt: skip
    (rooms,) = [one for one in client.label_sets() if one.name == "rooms"]
    assert (rooms.exclusive, len(rooms.templates), rooms.collections) == (
        False, 7, ("shop", "more")
    )  # fmt: skip
    assert "each alone: kitchen, bath" in " ".join(labels("list").split())


@pytest.mark.parametrize("as_csv", [False, True])
def test_written_and_read(labels: Shell, client: Client, tmp_path: Path, as_csv: bool) -> None:
    labels("define", "pets", "cat", "dog")
    client.judge("pets", "cat", "cat 1", by="ana, the first")
    client.judge("pets", "dog", "cat 1", False, by='ben "two"')
    client.judge("pets", "cat", "dog 1", False)
    before = client.judgements()
    written = labels("export", "pets", *(["--csv"] if as_csv else []))
    rows = (
        list(csv.DictReader(io.StringIO(written))) if as_csv
        else [json.loads(line) for line in written.splitlines()]
    )  # fmt: skip
    assert [row["judge"] for row in rows] == ["ana, the first", 'ben "two"', "postgres"]
    file = tmp_path / ("judgements.csv" if as_csv else "judgements.jsonl")
    file.write_text(written)
    labels("drop", "pets")
    assert client.judgements() == []
    told = labels("import", file, status=1)
    assert "judgement 1: label set pets has no label cat" in told
    assert "0 of 3 judgements are noted" in told
    labels("define", "pets", "cat", "dog")
    client.submit_text("other", key="dog 1").wait(60)
    told = labels("import", file, status=1)
    assert "judgement 3: item dog 1 has other content than that which was judged" in told
    assert client.judgements() == before[:2]


def test_what_can_t_be_read(labels: Shell, tmp_path: Path) -> None:
    file = tmp_path / "judgements.jsonl"
    assert "No such file" in labels("import", file, status=1)
    file.write_text("[1]\n")
    assert "line 1 is no object" in labels("import", file, status=1)
    file.write_text("{]\n")
    assert "neither CSV nor JSON lines" in labels("import", file, status=1)
    assert "--yes, --no" in labels("judge", "general", "animal", "cat 1", status=2)
    assert "there is no label set nothing" in labels("teach", "nothing", status=1)
    assert "nobody has judged" in labels("evaluate", "general", status=1)
    assert "templates are named" in labels(
        "define", "x", "a", "b", "--template", "a", status=1
    ) or (
        "templates that contain {}" in labels("define", "x", "a", "b", "--template", "a", status=1)
    )


def test_who_may_what(
    ordinary: Roles, services: LocalServices, start_worker: WorkerFactory
) -> None:
    """A client judges and evaluates; the owner, who is no superuser, defines and teaches."""
    start_worker(ordinary.of("worker"))
    as_owner, as_client = ordinary.of("owner"), ordinary.of("client")
    with (
        Client(database_url=as_client, redis_url=services.redis_url) as client,
        Client(database_url=as_owner, redis_url=services.redis_url) as owner,
    ):
        owner.define_label_set("pets", ["cat", "dog"], templates=["{}"], threshold=0)
        for word in ("cat", "dog"):
            for n in range(4):
                client.submit_text(f"like {word} {n}", key=f"{word} {n}").wait(60)
                client.judge("pets", word, f"{word} {n}")
        assert {one.judge for one in client.judgements()} == {ordinary.client}
        assert client.evaluate("pets")["examples"] == 8
        assert owner.teach("pets")["examples"] == 8
        eventually(lambda: client.missing() == [])
        for statement in (
            "SELECT pgclip.request_teaching('pets')",
            "SELECT pgclip.define_label_set('pets', ARRAY['a', 'b'])",
            "SELECT pgclip.relabel('pets')",
            "SELECT pgclip.drop_label_set('pets')",
            "SELECT pgclip.end_label_task(1, '{}', NULL)",
            "DELETE FROM pgclip.judgement",
            "INSERT INTO pgclip.label_head SELECT",
        ):
            with pytest.raises(Exception, match="permission denied"):
                run_sql(as_client, statement)
