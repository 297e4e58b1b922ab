"""The command line, run as people run it: as a process, with its exit status and its streams."""

import hashlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import DEMO_MODEL, ROOT, Live, WorkerFactory, eventually, run_sql, with_database
from pictures import jpeg

from pgclip import Client
from pgclip.local import LocalServices

Run = Callable[..., "subprocess.CompletedProcess[str]"]
PICTURES = ROOT / "demo" / "pictures"


def pgclip(
    *arguments: str | Path, stdin: str = "", **environ: str
) -> "subprocess.CompletedProcess[str]":
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PGCLIP_")
    }
    return subprocess.run(
        [sys.executable, "-m", "pgclip", *map(str, arguments)],
        env={**environment, "PGCLIP_DATA_DIR": "/nonexistent", "COLUMNS": "200", **environ},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
    )


def interruptible(*arguments: str, **environ: str) -> "subprocess.Popen[bytes]":
    """A command that hears SIGINT, even if the tests run in the background, where it is ignored."""
    return subprocess.Popen(
        [sys.executable, "-m", "pgclip", *arguments],
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def urls(client: Client) -> dict[str, str]:
    return {
        "PGCLIP_DATABASE_URL": client.settings.database_url,
        "PGCLIP_REDIS_URL": client.settings.redis_url,
    }


@pytest.fixture
def run(live: Live) -> Run:
    """Runs a command against a database with the demo model's worker."""
    return lambda *arguments, **rest: pgclip(*arguments, **urls(live.client), **rest)


@pytest.fixture
def idle(client: Client) -> Run:
    """Runs a command against a database that no worker serves."""
    return lambda *arguments, **rest: pgclip(*arguments, **urls(client), **rest)


class TestIndex:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        (tmp_path / "deep" / ".hidden").mkdir(parents=True)
        for name in ("guitar.jpg", "penguin.jpg"):
            (tmp_path / "deep" / name).write_bytes((PICTURES / name).read_bytes())
            (tmp_path / "deep" / ".hidden" / name).write_bytes(b"never looked at")
        (tmp_path / "note.txt").write_text("a note on violins")
        (tmp_path / "data.bin").write_text("nothing that can be indexed")
        return tmp_path

    def test_a_folder_and_what_has_changed_of_it(self, run: Run, folder: Path, live: Live) -> None:
        first = run("index", folder, "-c", "folder", "--metadata", '{"album": 1}')
        assert (first.returncode, first.stderr) == (0, "")
        assert first.stdout == "3 found: 3 encoded, 0 unchanged, 0 failed\n"
        item = live.client.get(str(folder / "deep" / "guitar.jpg"), collection="folder")
        assert item.metadata == {"album": 1, "name": "guitar.jpg"}
        assert item.content_hash == hashlib.sha256((PICTURES / "guitar.jpg").read_bytes()).digest()

        again = run("index", folder, "-c", "folder", "--metadata", '{"album": 1}')
        assert again.stdout == "3 found: 0 encoded, 3 unchanged, 0 failed\n"
        (folder / "note.txt").write_text("another text")
        (folder / "broken.jpg").write_bytes(b"no picture")
        changed = run("index", folder, "-c", "folder", "--metadata", '{"album": 1}', "--json")
        assert changed.returncode == 1
        told = json.loads(changed.stdout)
        assert (told["found"], told["unchanged"], told["done"]) == (4, 2, 1)
        assert told["failed"][0]["key"].endswith("broken.jpg")
        # What failed is tried again; other metadata are a change.
        assert "0 unchanged, 1 failed" in run("index", folder, "-c", "folder").stdout

    def test_by_reference_within_the_roots(self, run: Run, live: Live) -> None:
        folder = live.folder / "references"
        folder.mkdir()
        for name in ("guitar.jpg", "penguin.jpg"):
            (folder / name).write_bytes((PICTURES / name).read_bytes())
        for encoded, unchanged in ((2, 0), (0, 2)):
            told = run("index", folder, "-c", "references", "--by-reference")
            assert f"{encoded} encoded, {unchanged} unchanged" in told.stdout
        item = live.client.get(str(folder / "guitar.jpg"), collection="references")
        assert item.source == (folder / "guitar.jpg").as_uri()

    def test_lists(self, run: Run, folder: Path, live: Live) -> None:
        (folder / "list.csv").write_text(
            "image,key,collection,year\n"
            "deep/guitar.jpg,g1,lists,1959\n"
            "deep/nothing.jpg,g2,lists,\n"
            "https://example.org/a.jpg,g3,lists,\n"
        )
        lines = [
            {"text": "a text", "key": "t1", "collection": "lists", "metadata": {"a": {"b": 1}}},
            {"path": "deep/penguin.jpg", "key": "p1", "collection": "lists", "priority": 0},
        ]
        (folder / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
        told = run("index", folder / "list.csv", folder / "list.jsonl")
        assert told.returncode == 1
        assert told.stdout == "5 found: 3 encoded, 0 unchanged, 2 failed\n"
        assert "nothing.jpg: can't be read: No such file" in told.stderr
        assert "g3: https://example.org/a.jpg is not below a URL" in told.stderr
        assert live.client.get("g1", collection="lists").metadata == {"year": "1959"}
        assert live.client.get("t1", collection="lists").metadata == {"a": {"b": 1}}
        piped = run("index", "-", stdin='{"text": "from a pipe", "key": "s"}\n\n')
        assert piped.stdout == "1 found: 1 encoded, 0 unchanged, 0 failed\n"

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("a.csv", "title\nx\n", "line 2: needs one of image"),
            ("a.jsonl", '{"text": "x"}\n{', "line 2: not JSON"),
            ("a.jsonl", "[1]", "line 1: not a JSON object"),
            ("a.jsonl", '{"text": "x", "key": 5}', "line 1: key is not a text"),
            ("a.jsonl", '{"text": "x", "priority": null}', "the priority is from 0"),
            ("a.jsonl", '{"text": "x", "metadata": 5}', "metadata is not a JSON object"),
            ("a.csv", "text,metadata\nx,{\n", "line 2: metadata is not JSON"),
            ("a.csv", 'text\n"' + "x" * 2**21, "not CSV"),
            ("a.bin", "", "can't be indexed"),
        ],
    )
    def test_what_can_not_be_read(
        self, idle: Run, tmp_path: Path, name: str, text: str, message: str
    ) -> None:
        (tmp_path / name).write_text(text)
        told = idle("index", tmp_path / name)
        assert told.returncode == 1
        assert message in told.stderr
        assert "Traceback" not in told.stderr

    def test_odd_names_and_bytes(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_bytes("text,key\nschön,s\n".encode("latin-1"))
        assert "not UTF-8" in run("index", tmp_path / "a.csv").stderr
        folder = tmp_path / "odd"
        folder.mkdir()
        Path(os.fsdecode(bytes(folder) + b"/k\xe4tzchen.txt")).write_text("a kitten")
        (folder / "lines.txt").write_bytes(b"two\r\nlines")
        told = run("index", folder, "-c", "odd", "--json")
        found = json.loads(told.stdout)
        assert (told.returncode, found["done"]) == (1, 1)
        assert "not valid Unicode" in found["failed"][0]["error"]
        assert json.loads(run("index", folder, "-c", "odd", "--json").stdout)["unchanged"] == 1

    def test_metadata_in_a_csv(self, run: Run, live: Live, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text('text,key,metadata,year\nx,csv-1,"{""a"": [1]}",1959\n')
        assert run("index", tmp_path / "a.csv").returncode == 0
        assert live.client.get("csv-1").metadata == {"a": [1], "year": "1959"}

    def test_without_waiting_and_again_after_an_interruption(
        self, idle: Run, client: Client, folder: Path, database_url: str
    ) -> None:
        told = idle("index", folder, "--no-wait", "--priority", "9", "--no-keep")
        assert told.stdout == "3 found: 3 submitted, 0 unchanged, 0 failed\n"
        assert run_sql(database_url, "SELECT bool_or(keep_source) FROM pgclip.item") == [(False,)]
        connected = """SELECT count(*) FROM pg_stat_activity
                       WHERE application_name = 'pgclip' AND datname = current_database()"""
        eventually(lambda: run_sql(database_url, connected) == [(0,)])
        process = interruptible("index", str(folder), **urls(client))
        eventually(lambda: run_sql(database_url, connected) != [(0,)])
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 130, err
        assert b"Traceback" not in err

    def test_the_progress_in_a_terminal(self, run: Run, live: Live, folder: Path) -> None:
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "pgclip", "index", str(folder), "-c", "terminal"],
            env={**os.environ, **urls(live.client), "TERM": "xterm-256color", "COLUMNS": "120"},
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        seen = b""
        try:
            while part := os.read(ours, 4096):
                seen += part
        except OSError:  # the terminal is gone with its last process
            pass
        os.close(ours)
        assert process.wait(30) == 0, seen.decode()
        assert b"3/3" in seen
        assert b"3 found: 3 encoded" in seen


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


class TestDoctor:
    def findings(self, *arguments: str, **environ: str) -> dict[str, dict[str, str]]:
        told = pgclip("doctor", "--json", *arguments, **environ)
        found = json.loads(told.stdout)
        in_the_way = any(finding["state"] == "trouble" for finding in found)
        assert told.returncode == int(in_the_way), told.stderr
        return {finding["what"]: finding for finding in found}

    def test_a_healthy_set_up(self, live: Live) -> None:
        found = self.findings(
            **urls(live.client), PGCLIP_MODEL=str(DEMO_MODEL), PGCLIP_ROOTS=str(PICTURES)
        )
        assert {name for name, finding in found.items() if finding["state"] == "ok"} >= {
            *("settings", "Postgres", "pgvector", "schema", "Redis", "worker", "root"),
            *("model", "workers"),
        }
        told = pgclip("doctor", **urls(live.client), PGCLIP_MODEL=str(DEMO_MODEL))
        assert told.returncode == 0
        assert "✓ schema: pgclip is up to date" in told.stdout

    def test_nothing_is_set(self) -> None:
        (finding,) = self.findings().values()
        assert "pgclip up" in finding["detail"]

    def test_services_are_down(self) -> None:
        found = self.findings(
            PGCLIP_DATABASE_URL="postgresql://u:secret@127.0.0.1:9/db",
            PGCLIP_REDIS_URL="redis://127.0.0.1:9/0",
            PGCLIP_ROOTS="/nonexistent",
            PGCLIP_URLS="gs://bucket/",
        )
        assert {name for name, finding in found.items() if finding["state"] == "trouble"} == {
            *("Postgres", "Redis", "root", "URLs"),
        }
        assert "refused" in found["Postgres"]["detail"]
        assert "Start it" in found["Postgres"]["advice"]
        assert "secret" not in json.dumps(found)
        assert "gcsfs" in found["URLs"]["advice"]

    def test_no_schema_no_pgvector_an_old_schema(
        self, services: LocalServices, new_database: Callable[[], str]
    ) -> None:
        run_sql(services.database_url, "CREATE DATABASE doctor_empty")
        url = with_database(services.database_url, "doctor_empty")
        given = {"PGCLIP_DATABASE_URL": url, "PGCLIP_REDIS_URL": services.redis_url}
        found = self.findings(**given)
        assert found["pgvector"]["state"] == "ok"
        assert found["schema"]["advice"] == "pgclip migrate"
        # This server's extensions are looked for elsewhere: to this database it has none.
        run_sql(url, "ALTER DATABASE doctor_empty SET extension_control_path = '/nonexistent'")
        found = self.findings(**given)
        assert found["pgvector"]["state"] == "trouble"
        assert "pgvector/pgvector" in found["pgvector"]["advice"]

        old = new_database()
        run_sql(old, "UPDATE pgclip.schema_version SET version_num = '0001'")
        found = self.findings(**{**given, "PGCLIP_DATABASE_URL": old})
        assert "at version 0001, this package needs" in found["schema"]["detail"]
        run_sql(old, "UPDATE pgclip.schema_version SET version_num = '9999'")
        found = self.findings(**{**given, "PGCLIP_DATABASE_URL": old})
        assert found["schema"]["state"] == "ok"  # it says that it answers this version, too
        run_sql(old, "CREATE OR REPLACE FUNCTION pgclip.serves() RETURNS text LANGUAGE sql"
                     " IMMUTABLE AS $$ SELECT '9999' $$")  # fmt: skip
        found = self.findings(**{**given, "PGCLIP_DATABASE_URL": old})
        assert "pip install --upgrade pgclip" in found["schema"]["detail"]

        broken = new_database()
        run_sql(broken, "DROP FUNCTION pgclip.store; DROP VIEW pgclip.queue")
        found = self.findings(**{**given, "PGCLIP_DATABASE_URL": broken})
        assert found["schema"]["state"] == "trouble"
        assert "lay view queue: it is missing" in found["schema"]["detail"]
        assert found["schema"]["advice"] == "pgclip migrate"

    def test_another_model(self, client: Client, database_url: str) -> None:
        run_sql(database_url, "SELECT pgclip.register_model('first', 4, 10, '{\"fatal\": {}}')")
        found = self.findings(**urls(client), PGCLIP_MODEL="second")
        assert "holds vectors of first" in found["model"]["detail"]
        assert "pgclip.add_model('second')" in found["model"]["advice"]
        assert found["workers"]["state"] == "warning"

    def test_what_failed_and_what_waits(
        self, client: Client, database_url: str, start_worker: WorkerFactory
    ) -> None:
        start_worker(database_url)
        client.submit_text("fail")
        client.submit_image(jpeg(1))
        eventually(lambda: client.count()["failed"] == 1)
        found = self.findings(**urls(client), PGCLIP_MODEL="planted")
        assert "encoding_failed 1" in found["items"]["detail"]


def test_up_runs_everything_and_stops_it(tmp_path: Path) -> None:
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PGCLIP_")},
        "PGCLIP_DATA_DIR": str(tmp_path / "data"),
    }
    log = tmp_path / "log"
    with log.open("wb") as output:
        up = subprocess.Popen(
            [sys.executable, "-m", "pgclip", "up", "--model", str(DEMO_MODEL)],
            env=environ,
            stdout=output,
            stderr=output,
        )
    try:
        eventually(lambda: "Ready;" in log.read_text() or up.poll() is not None, 120)
        data = {"PGCLIP_DATA_DIR": str(tmp_path / "data")}
        assert pgclip("index", PICTURES / "guitar.jpg", **data).returncode == 0, log.read_text()
        assert "guitar.jpg" in pgclip("search", "a guitar", **data).stdout
        doctor = pgclip("doctor", **data)
        assert doctor.returncode == 0, doctor.stdout
        file = tmp_path / "data" / "urls.json"
        assert file.stat().st_mode & 0o777 == 0o600
        passwords = re.findall(":([^:]*)@", file.read_text())
        assert len(passwords) == 2
        assert str(file) in log.read_text()
        assert not any(password in log.read_text() for password in passwords)
        second = pgclip("up", "--model", DEMO_MODEL, **data)
        assert (second.returncode, "runs already" in second.stderr) == (1, True)
        up.send_signal(signal.SIGINT)
        assert up.wait(60) == 0
    finally:
        if up.poll() is None:
            up.terminate()
            up.wait(60)
    assert "Stopped; the data stay." in log.read_text()
    assert not (tmp_path / "data" / "urls.json").exists()
    told = pgclip("status", PGCLIP_DATA_DIR=str(tmp_path / "data"))
    assert told.returncode == 1
    assert "pgclip up" in told.stderr


def test_a_worker_ends_with_a_killed_up(tmp_path: Path, client: Client, database_url: str) -> None:
    log = tmp_path / "log"
    with log.open("wb") as output:
        up = subprocess.Popen(
            [sys.executable, "-m", "pgclip", "up", "--model", str(DEMO_MODEL), "--data", "."],
            env={**os.environ, **urls(client)},
            cwd=tmp_path,
            stdout=output,
            stderr=output,
        )
    eventually(lambda: " ready: model" in log.read_text() or up.poll() is not None, 120)
    up.kill()
    up.wait()
    eventually(lambda: run_sql(database_url, "SELECT count(*) FROM pgclip.workers") == [(0,)])


def test_up_says_why_a_worker_does_not_start(tmp_path: Path, client: Client) -> None:
    told = pgclip("up", "--model", tmp_path / "no-model", "--data", tmp_path, **urls(client))
    assert told.returncode == 1
    assert "the worker ended with status 1" in told.stderr
    assert "no-model' can't be loaded" in told.stderr


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
