"""`pgclip index`, as people run it."""

import hashlib
import json
import os
import signal
from pathlib import Path

import pytest
from support.commands import PICTURES, Run, in_terminal, interruptible, urls
from support.databases import run_sql
from support.processes import Live, eventually

from pgclip import Client


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
        assert first.stdout == "3 found: 3 encoded, 0 unchanged, 0 failed\n1 left out: .bin 1\n"
        item = live.client.get(str(folder / "deep" / "guitar.jpg"), collection="folder")
        assert item.metadata == {"album": 1, "name": "guitar.jpg"}
        assert item.content_hash == hashlib.sha256((PICTURES / "guitar.jpg").read_bytes()).digest()

        again = run("index", folder, "-c", "folder", "--metadata", '{"album": 1}')
        assert "3 found: 0 encoded, 3 unchanged, 0 failed\n" in again.stdout
        (folder / "note.txt").write_text("another text")
        (folder / "broken.jpg").write_bytes(b"no picture")
        changed = run("index", folder, "-c", "folder", "--metadata", '{"album": 1}', "--json")
        assert changed.returncode == 1
        told = json.loads(changed.stdout)
        assert (told["found"], told["unchanged"], told["done"]) == (4, 2, 1)
        assert told["failed"][0]["key"].endswith("broken.jpg")
        # What failed is tried again.
        assert "3 unchanged, 1 failed" in run("index", folder, "-c", "folder").stdout

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
        assert live.client.get("g1", collection="lists").metadata == {"year": 1959}
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
        assert (told.returncode, found["done"]) == (0, 2)
        assert json.loads(run("index", folder, "-c", "odd", "--json").stdout)["unchanged"] == 2

    def test_metadata_in_a_csv(self, run: Run, live: Live, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text('text,key,metadata,year\nx,csv-1,"{""a"": [1]}",1959\n')
        assert run("index", tmp_path / "a.csv").returncode == 0
        assert live.client.get("csv-1").metadata == {"a": [1], "year": 1959}

    def test_without_waiting_and_again_after_an_interruption(
        self, idle: Run, client: Client, folder: Path, database_url: str
    ) -> None:
        told = idle("index", folder, "--no-wait", "--priority", "9", "--no-keep")
        assert "3 found: 3 submitted, 0 unchanged, 0 failed\n" in told.stdout
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
        seen = in_terminal("index", folder, "-c", "terminal", **urls(live.client))
        assert "3/3" in seen
        assert "3 found: 3 encoded" in seen
