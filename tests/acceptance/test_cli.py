"""The command line, run as people run it: as a process, with its exit status and its streams."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.commands import PICTURES, Run, interruptible, pgclip, urls
from support.processes import Live, WorkerFactory

from pgclip import Client


class TestSearch:
    @pytest.fixture(autouse=True)
    def indexed(self, run: Run) -> None:
        names = ("guitar.jpg", "penguin.jpg", "strawberry.png")
        assert run("index", *(PICTURES / name for name in names), "-c", "search").returncode == 0

    def test_words_pictures_and_keys(self, run: Run) -> None:
        rest = ("-c", "search", "-k", "1")
        words = run("search", "a", "guitar", *rest)
        assert words.returncode == 0
        assert "guitar.jpg" in words.stdout.splitlines()[1]
        assert "guitar.jpg" in run("search", "--image", PICTURES / "guitar.jpg", *rest).stdout
        run("index", PICTURES / "guitar.jpg", "--no-wait")
        like = run("search", "--like", PICTURES / "guitar.jpg", "-c", "search", "--json")
        hits = json.loads(like.stdout)
        assert {"key", "score", "labels", "metadata"} <= set(hits[0])

    def test_a_page_of_pictures(self, run: Run, tmp_path: Path) -> None:
        shown = tmp_path / "shown"
        opener = tmp_path / "open"
        opener.write_text(f'#!/bin/sh\necho "$1" > {shown}\n')
        opener.chmod(0o755)
        told = run("search", "a <guitar>", "-c", "search", "--open", BROWSER=str(opener))
        assert told.returncode == 0
        page = Path(shown.read_text().strip().removeprefix("file://"))
        html = page.read_text()
        page.unlink()
        assert html.count('<img src="data:image;base64,') == 3
        assert "a &lt;guitar&gt;" in html

    def test_previews(self, run: Run) -> None:
        told = run("search", "a guitar", "-c", "search", "-k", "1", "--preview")
        assert "▄" in told.stdout

    def test_usage_and_failure(self, run: Run, idle: Run, tmp_path: Path) -> None:
        assert run("search").returncode == 2
        assert run("search", "cat", "--kind", "film").returncode == 2
        missing = run("search", "--image", tmp_path / "none.jpg")
        assert (missing.returncode, missing.stdout) == (1, "")
        assert "No such file" in missing.stderr
        nobody = idle("search", "a cat")
        assert nobody.returncode == 1
        assert "no model has been registered yet" in nobody.stderr


def test_show_list_and_export(run: Run, tmp_path: Path) -> None:
    run("index", PICTURES / "guitar.jpg", "-c", "shown")
    key = str(PICTURES / "guitar.jpg")
    shown = run("show", key, "-c", "shown")
    assert "state  done" in shown.stdout
    assert "vectors  1 × 128" in shown.stdout
    item = json.loads(run("show", key, "-c", "shown", "--json").stdout)
    assert len(item["vectors"][0]) == 128
    missing = run("show", "nothing")
    assert missing.returncode == 1
    assert "there is no item 'nothing'" in missing.stderr

    listed = run("list", "-c", "shown", "--state", "done", "--where", '{"name": "guitar.jpg"}')
    assert key in listed.stdout
    assert len(json.loads(run("list", "-c", "shown", "--json").stdout)) == 1
    assert run("list", "--where", "[1]").returncode == 1

    import pyarrow.parquet as pq

    run("index", "-", "-c", "shown", stdin=json.dumps({"text": "guitar " * 200, "key": "long"}))
    parquet, npz = tmp_path / "out.parquet", tmp_path / "out.npz"
    for file in (parquet, npz):
        told = run("export", file, "-c", "shown")
        assert told.returncode == 0, told.stderr
    table = pq.read_table(parquet).to_pylist()
    arrays = np.load(npz)
    assert [row["key"] for row in table] == arrays["key"].tolist()
    assert table[0]["key"] == key
    assert {row["part"] for row in table[1:]} == set(range(len(table) - 1))
    assert len(table) > 3
    np.testing.assert_allclose(arrays["embedding"], [row["embedding"] for row in table])
    np.testing.assert_allclose(arrays["embedding"][0], item["vectors"][0], atol=1e-6)
    assert json.loads(table[0]["labels"])
    assert run("export", tmp_path / "out.csv").returncode == 1
    assert list(tmp_path.glob("*.part")) == []
    assert run("export", "/proc/nothing/out.npz").returncode == 1


def test_labels(idle: Run) -> None:
    define = ("labels", "define", "weather", "sunny", "rainy", "--template", "a {} day")
    assert idle(*define).returncode == 0
    sets = {found["name"]: found for found in json.loads(idle("labels", "list", "--json").stdout)}
    assert sets["weather"]["templates"] == ["a {} day"]
    assert "weather" in idle("labels", "list").stdout
    assert idle("labels", "define", "weather", "alone").returncode == 1
    assert idle("labels", "drop", "weather").returncode == 0
    assert idle("labels", "drop", "weather").returncode == 1


def test_control(idle: Run, client: Client, database_url: str, start_worker: WorkerFactory) -> None:
    start_worker(database_url).kill(signal.SIGTERM)
    for n in range(3):
        client.submit_text(f"text {n}", key=f"t{n}", metadata={"n": n})
    assert idle("cancel", "--where", '{"n": 0}').stdout == "1 item cancelled\n"
    assert idle("retry", "--reason", "cancelled", "--json").stdout.strip() == '{\n  "items": 1\n}'
    assert idle("delete").returncode == 2
    assert idle("delete", "t0", "t1").stdout == "2 items deleted\n"
    assert idle("delete", "t0").returncode == 1
    declined = idle("delete", "--state", "queued", stdin="n\n")
    assert declined.returncode == 1
    assert idle("delete", "--state", "queued", "--yes").stdout == "1 item deleted\n"


def test_status(run: Run, idle: Run, live: Live) -> None:
    run("index", PICTURES / "guitar.jpg")
    told = run("status")
    assert told.returncode == 0
    assert "model model (live, 128 dimensions)" in told.stdout
    assert "cpu" in told.stdout
    found = json.loads(run("status", "--json").stdout)
    (worker,) = found["workers"]
    assert worker["alive"]
    assert worker["heartbeat_age"] < 30
    assert found["items"]["done"] >= 1
    assert "no worker; start one with: pgclip worker" in idle("status").stdout


def test_status_can_be_watched(client: Client) -> None:
    process = interruptible("status", "--watch", "--every", "0.1", **urls(client))
    assert process.stdout is not None
    for _ in range(2):
        while not process.stdout.readline().startswith(b"queued 0"):
            pass
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert err == b""


def test_settings_hide_the_password() -> None:
    url = "postgresql://me:secret@host/db?sslpassword=secret&user=a&password=secret"
    told = pgclip("settings", PGCLIP_DATABASE_URL=url, PGCLIP_REDIS_URL="redis://:secret@host/0")
    assert "secret" not in told.stdout
    assert "postgresql://me:***@host/db" in told.stdout
    assert "redis://:***@host/0" in told.stdout
    rows = {row["setting"]: row for row in json.loads(pgclip("settings", "--json").stdout)}
    assert rows["PGCLIP_LEASE"] == {
        "setting": "PGCLIP_LEASE",
        "value": 20.0,
        "from": "default",
        "what": "without a heartbeat, until a worker's jobs run elsewhere",
    }


def test_completion_and_help() -> None:
    completed = pgclip(_PGCLIP_COMPLETE="complete_bash", COMP_WORDS="pgclip se", COMP_CWORD="1")
    assert sorted(completed.stdout.split()) == ["search", "segments", "settings"]
    told = pgclip("--help")
    assert told.returncode == 0
    for command in ("up", "index", "search", "duplicates", "segments", "doctor", "labels"):
        assert command in told.stdout
        assert pgclip(command, "-h").returncode == 0
    assert pgclip("--version").stdout.startswith("pgclip 0.")
    assert pgclip("nonsense").returncode == 2


def test_a_closed_pipe_is_no_error(live: Live) -> None:
    live.client.submit_many({"text": f"text {n}"} for n in range(2000))
    command = f"{sys.executable} -m pgclip list -n 0 --json | head -1"
    told = subprocess.run(
        ["bash", "-c", command], env={**os.environ, **urls(live.client)}, capture_output=True
    )
    assert told.stdout == b"[\n"
    assert told.stderr == b""


def test_without_the_extra_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['typer'] = None; import pgclip.cli; sys.exit(pgclip.cli.main([]))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert told.returncode == 1
    assert "pip install 'pgclip[cli]'" in told.stderr


def test_the_entry_point_is_light() -> None:
    """Importing the client or the command's entry loads neither typer nor rich."""
    code = "import sys, pgclip.cli; print({'typer', 'rich'} & set(sys.modules))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert told.stdout.strip() == "set()"
