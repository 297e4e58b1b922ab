"""`pgclip index` on folders, lists and prefixes as people have them."""

import errno
import json
import os
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from PIL import Image
from support.commands import PICTURES, Run
from support.pictures import encoded, noise
from support.processes import Live

GUITAR = (PICTURES / "guitar.jpg").read_bytes()
Told = Callable[..., dict[str, Any]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "pictures"
    made.mkdir()
    return made


@pytest.fixture
def told(run: Run, request: pytest.FixtureRequest) -> Told:
    """What `pgclip index` says as JSON, in a collection of the test's own, with its exit status."""

    def index(*arguments: str | Path, **rest: str) -> dict[str, Any]:
        ended = run("index", *arguments, "-c", request.node.name, "--json", **rest)
        assert ended.stdout, ended.stderr
        return {**json.loads(ended.stdout), "status": ended.returncode}

    return index


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> set[Path]:
    """Paths that may not be read. Tests run as root, who may: two calls stand for the system's."""
    paths: set[Path] = set()

    def guarded(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(path: Any, *arguments: Any, **rest: Any) -> Any:
            if Path(path) in paths:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return call(path, *arguments, **rest)

        return run

    monkeypatch.setattr(os, "scandir", guarded(os.scandir))
    monkeypatch.setattr(Path, "open", guarded(Path.open))
    return paths


@pytest.fixture
def metadata(live: Live, request: pytest.FixtureRequest) -> Callable[[str | Path], Any]:
    return lambda key: live.client.get(key, collection=request.node.name).metadata


# What is a picture, and what is passed over.


def test_what_is_a_picture_is_decided_by_its_content(told: Told, folder: Path) -> None:
    for name in ("a.jfif", "a.jpe", "a.HEIC", "no ending", "a.dat", "a.JPEG"):
        (folder / name).write_bytes(GUITAR)
    picture = noise(1, 40, 40)
    for format in ("PNG", "WEBP", "GIF", "AVIF", "BMP", "TIFF"):
        (folder / f"{format}-without").write_bytes(encoded(picture, format))
    (folder / "clip.mov").write_bytes(b"\0\0\0\x14ftypqt  ")
    (folder / "b.mov").write_bytes(b"\0\0\0\x14ftypqt  ")
    (folder / "paper.pdf").write_bytes(b"%PDF-1.4")
    (folder / "BMW").write_text("BM is how a text may begin, too")
    (folder / "list.csv").write_text("text\nx\n")
    os.mkfifo(folder / "pipe")
    found = told(folder)
    assert (found["found"], found["done"], found["status"]) == (12, 12, 0)
    assert found["left_out"] == {".mov": 2, ".pdf": 1, "no ending": 1, ".csv": 1, "no files": 1}


def test_what_is_left_out_is_said(run: Run, folder: Path) -> None:
    for name in ("a.mov", "b.mov", "c.pdf"):
        (folder / name).write_bytes(b"x")
    assert run("index", folder).stdout == (
        "0 found: 0 encoded, 0 unchanged, 0 failed\n3 left out: .mov 2, .pdf 1\n"
    )


def test_formats_that_an_operator_has_added(told: Told, folder: Path) -> None:
    (folder / "a.ico").write_bytes(encoded(noise(1, 32, 32), "ICO"))
    assert told(folder)["left_out"] == {".ico": 1}
    added = told(folder, "--no-wait", PGCLIP_FORMATS="JPEG,ICO")
    assert (added["submitted"], added["left_out"]) == (1, {})


def test_links(told: Told, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "guitar.jpg").write_bytes(GUITAR)
    (folder / "linked.jpg").symlink_to(other / "guitar.jpg")
    (folder / "linked").symlink_to(other)
    (folder / "again").symlink_to(other)
    (folder / "loop").symlink_to(folder)
    (folder / "own").mkdir()
    (folder / "own" / "penguin.jpg").write_bytes((PICTURES / "penguin.jpg").read_bytes())
    (folder / "a link to own").symlink_to(folder / "own")
    found = told(folder)
    assert (found["done"], found["status"]) == (2, 0)
    assert found["left_out"] == {"linked folders (--follow)": 4}
    followed = told(folder, "--follow")
    assert (followed["found"], followed["unchanged"], followed["status"]) == (3, 2, 0)
    (folder / "broken.jpg").symlink_to(tmp_path / "nothing")
    broken = told(folder)
    assert broken["status"] == 1
    assert broken["failed"] == [{"key": str(folder / "broken.jpg"), "error": "a broken link"}]


def test_what_can_not_be_read_is_trouble(
    told: Told, run: Run, folder: Path, closed: set[Path]
) -> None:
    (folder / "closed").mkdir()
    for name in ("closed/a.jpg", "b.jpg", "c.jpg", "d.dat"):
        (folder / name).write_bytes(GUITAR)
    closed |= {folder / "closed", folder / "c.jpg", folder / "d.dat"}
    found = told(folder)
    assert (found["done"], found["status"]) == (1, 1)
    failed = {Path(each["key"]).name: each["error"] for each in found["failed"]}
    assert failed == dict.fromkeys(("closed", "c.jpg", "d.dat"), "can't be read: Permission denied")
    named = run("index", folder / "closed")
    assert named.returncode == 1
    assert "closed: can't be read: Permission denied" in named.stderr


def test_exclude_and_dry_run(told: Told, run: Run, folder: Path, live: Live) -> None:
    (folder / "raw").mkdir()
    for name in ("raw/a.jpg", "b.jpg", "thumb_b.jpg"):
        (folder / name).write_bytes(GUITAR)
    dry = told(folder, "--dry-run", "--exclude", "raw", "--exclude", "thumb_*")
    assert (dry["found"], dry["submitted"], dry["done"]) == (1, 1, 0)
    assert dry["left_out"] == {"excluded": 2}
    assert told(folder, "--exclude", "raw/*")["done"] == 2
    text = run("index", folder, "-c", "test_exclude_and_dry_run", "--dry-run").stdout
    assert text == "3 found: 1 to be encoded, 2 unchanged, 0 failed\nnothing was done\n"


# What has gone.


@pytest.fixture
def album(told: Told, folder: Path) -> Path:
    """Ten pictures that were indexed."""
    for n in range(10):
        (folder / f"{n}.png").write_bytes(encoded(noise(n, 30, 30), "PNG"))
    assert told(folder)["done"] == 10
    return folder


def test_deleted_files_are_pruned(told: Told, run: Run, album: Path, live: Live) -> None:
    name = "test_deleted_files_are_pruned"
    live.client.submit_text("of somebody else", key=str(album / "other.txt"), collection=name)
    (album / "3.png").unlink()
    said = run("index", album, "-c", name).stdout
    assert "1 gone from disk and still found; --prune deletes them" in said
    assert told(album, "--prune", "--host", "another")["pruned"] == 0
    assert told(album, "--prune", "--dry-run")["pruned"] == 1
    pruned = told(album, "--prune")
    assert (pruned["pruned"], pruned["gone"], pruned["status"]) == (1, 0, 0)
    left = {Path(item.key).name for item in live.client.items(collection=name)}
    assert left == {f"{n}.png" for n in range(10) if n != 3} | {"other.txt"}
    # What is excluded, or not asked for, is not gone.
    assert told(album, "--prune", "--exclude", "*.png")["pruned"] == 0


def test_a_folder_that_is_empty_or_not_there_is_not_pruned(
    told: Told, album: Path, closed: set[Path]
) -> None:
    for n in range(3):
        (album / f"{n}.png").unlink()
    refused = told(album, "--prune")
    assert (refused["pruned"], refused["status"]) == (0, 1)
    assert refused["failed"][0]["error"] == (
        "not pruned: 3 of 10 files are gone; --yes prunes them"
    )
    (album / "closed").mkdir()
    closed.add(album / "closed")
    unreadable = told(album, "--prune", "--yes")
    assert any("closed can't be read" in each["error"] for each in unreadable["failed"])
    assert unreadable["pruned"] == 0
    closed.clear()
    aside = album.rename(album.parent / "aside")
    album.mkdir()
    empty = told(album, "--prune", "--yes")
    assert empty["failed"][0]["error"] == "not pruned: nothing is in it"
    album.rmdir()
    aside.rename(album)
    assert told(album, "--prune", "--yes")["pruned"] == 3


def test_what_is_found_after_all_or_is_another_s_is_not_pruned(
    told: Told, album: Path, live: Live, closed: set[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "test_what_is_found_after_all_or_is_another_s_is_not_pruned"
    # Somebody else's, which indexing only finds.
    (album / "own.png").write_bytes(encoded(noise(99, 30, 30), "PNG"))
    theirs = {"key": str(album / "own.png"), "collection": name}
    live.client.submit_image((album / "own.png").read_bytes(), **theirs).wait(timeout=60)
    assert told(album, "--fields", "")["unchanged"] == 11
    (album / "own.png").unlink()
    assert told(album, "--prune")["pruned"] == 0
    # Another spelling of the same name.
    composed, decomposed = (unicodedata.normalize(form, "ä.png") for form in ("NFC", "NFD"))
    (album / decomposed).write_bytes(encoded(noise(50, 30, 30), "PNG"))
    told(album)
    (album / decomposed).rename(album / composed)
    found = told(album, "--prune")
    assert (found["pruned"], found["gone"]) == (0, 0)
    assert live.client.get(album / composed, collection=name).state == "done"
    # Another host has it as well.
    (album / "2.png").write_bytes(encoded(noise(51, 30, 30), "PNG"))
    told(album)
    (album / "2.png").write_bytes(encoded(noise(52, 30, 30), "PNG"))
    told(album, "--host", "another")
    (album / "2.png").unlink()
    assert told(album, "--prune")["pruned"] == 0
    assert told(album, "--prune", "--host", "another", "--yes")["pruned"] == 1
    # A path as people type it, below which something can't be read.
    (album / "3.png").unlink()
    (album / "closed").mkdir()
    closed.add(Path("pictures/closed"))
    closed.add(album / "closed")
    monkeypatch.chdir(album.parent)
    relative = told("pictures", "--prune")
    assert relative["pruned"] == 0
    assert any("not pruned" in each["error"] for each in relative["failed"])


def test_a_renamed_file_keeps_its_item(told: Told, album: Path, live: Live) -> None:
    name = "test_a_renamed_file_keeps_its_item"
    live.client.update_metadata(album / "3.png", set={"mine": 1}, collection=name)
    before = live.client.search("x", filter={"$key": str(album / "3.png")}, collection=name)[0]
    (album / "deep").mkdir()
    (album / "3.png").rename(album / "deep" / "three.png")
    assert told(album, "--dry-run")["renamed"] == 1
    found = told(album)
    assert (found["renamed"], found["done"], found["gone"], found["updated"]) == (1, 0, 0, 1)
    (after,) = live.client.search(
        "x", filter={"$key": str(album / "deep" / "three.png")}, collection=name
    )
    assert after.item_id == before.item_id
    assert after.metadata == {"mine": 1, "name": "three.png"}
    # A copy is another item.
    shutil.copy(album / "4.png", album / "copy.png")
    copied = told(album)
    assert (copied["done"], copied["renamed"]) == (1, 0)


def test_a_renamed_file_by_reference(told: Told, live: Live) -> None:
    folder = live.folder / "renamed"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(GUITAR)
    assert told(folder, "--by-reference")["done"] == 1
    (folder / "a.jpg").rename(folder / "b.jpg")
    found = told(folder, "--by-reference")
    assert (found["renamed"], found["gone"], found["status"]) == (1, 0, 0)
    item = live.client.get(folder / "b.jpg", collection="test_a_renamed_file_by_reference")
    assert (item.source, item.state) == ((folder / "b.jpg").as_uri(), "done")


# Metadata.


def test_only_fields_of_its_own_are_touched(
    told: Told, folder: Path, live: Live, metadata: Callable[[str | Path], Any]
) -> None:
    name = "test_only_fields_of_its_own_are_touched"
    path = folder / "a.jpg"
    path.write_bytes(GUITAR)
    told(folder)
    live.client.update_metadata(path, set={"price": 9}, collection=name)
    again = told(folder)
    assert (again["unchanged"], again["done"], again["updated"]) == (1, 0, 0)
    more = told(folder, "--metadata", '{"album": 1}')
    assert (more["unchanged"], more["done"], more["updated"]) == (0, 0, 1)
    path.write_bytes((PICTURES / "violin.jpg").read_bytes())
    assert told(folder)["done"] == 1
    assert metadata(path) == {"price": 9, "name": "a.jpg", "album": 1}


def test_fields_that_people_search_by(
    told: Told, run: Run, folder: Path, metadata: Callable[[str | Path], Any]
) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Canon", "Canon EOS R5"
    exif.get_ifd(0x8769)[0x9003] = "2024:05:01 12:30:00"
    (folder / "a.jpg").write_bytes(encoded(noise(1, 40, 30), "JPEG", exif=exif))
    (folder / "b.jpg").write_bytes(encoded(noise(1, 40, 30), "JPEG"))
    (folder / "c.txt").write_text("a text")
    os.utime(folder / "a.jpg", (0, 0))
    every = "name,folder,size,modified,width,height,taken,camera"
    assert told(folder, "--fields", every)["done"] == 3
    size = (folder / "a.jpg").stat().st_size
    of_camera = metadata(folder / "a.jpg")
    width, height = Image.open(folder / "a.jpg").size
    assert of_camera == {
        "name": "a.jpg", "folder": "pictures", "size": size, "width": width, "height": height,
        "modified": "1970-01-01T00:00:00+00:00", "taken": "2024-05-01T12:30:00",
        "camera": "Canon EOS R5",
    }  # fmt: skip
    assert set(metadata(folder / "b.jpg")) == set(of_camera) - {"taken", "camera"}
    assert set(metadata(folder / "c.txt")) == {"name", "folder", "size", "modified"}
    wrong = run("index", folder, "--fields", "colour")
    assert wrong.returncode == 1
    assert "colour: fields are name, folder" in wrong.stderr


# Names.


def test_one_key_from_everywhere(told: Told, live: Live) -> None:
    name = "test_one_key_from_everywhere"
    folder = live.folder / "names"
    (folder / "lists").mkdir(parents=True)
    composed, decomposed = (unicodedata.normalize(form, "Käse.jpg") for form in ("NFC", "NFD"))
    path = folder / decomposed
    path.write_bytes(GUITAR)
    (folder / "lists" / "list.csv").write_text(f"image\n../{decomposed}\n")
    live.client.submit_image(path, collection=name).wait(timeout=60)
    told(folder)
    told(folder / "lists" / "list.csv")
    (item,) = live.client.items(collection=name)
    assert item.key == str(folder / composed)
    assert live.client.get(path, collection=name).key == item.key
    assert live.client.get(folder / composed, collection=name).key == item.key


@pytest.mark.parametrize("by", [["--by-reference"], []], ids=["by reference", "inline"])
def test_a_name_that_is_not_utf_8(told: Told, live: Live, by: list[str]) -> None:
    folder = live.folder / f"names {len(by)}"
    folder.mkdir()
    path = Path(os.fsdecode(os.fsencode(folder) + b"/k\xe4tzchen.jpg"))
    path.write_bytes(GUITAR)
    found = told(folder, *by)
    assert (found["done"], found["status"]) == (1, 0), found
    (item,) = live.client.items(keys=[f"file://{folder}/k%E4tzchen.jpg".replace(" ", "%20")])
    assert item.metadata == {"name": "k\ufffdtzchen.jpg"}
    assert told(folder, *by)["unchanged"] == 1


# Lists.


def test_a_column_has_one_type(
    told: Told, tmp_path: Path, metadata: Callable[[str | Path], Any], live: Live
) -> None:
    (tmp_path / "a.csv").write_text(
        "text;key;price;zip;sold;day;mixed;size;empty\n"
        "one;1;9.5;01234;true;2024-05-01;7;1e3;\n"
        "two;2;-10;81234;False;2024-05-02;seven;;\n"
    )
    assert told(tmp_path / "a.csv")["done"] == 2
    assert metadata("1") == {
        "price": 9.5, "zip": "01234", "sold": True, "day": "2024-05-01", "mixed": "7", "size": 1000
    }  # fmt: skip
    assert metadata("2") == {
        "price": -10, "zip": "81234", "sold": False, "day": "2024-05-02", "mixed": "seven"
    }  # fmt: skip
    below = live.client.search(
        "one", filter={"price": {"lt": 9}}, collection="test_a_column_has_one_type"
    )
    assert [hit.key for hit in below] == ["2"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters(
    told: Told, tmp_path: Path, delimiter: str, metadata: Callable[[str | Path], Any]
) -> None:
    rows = [["text", "key", "note, or two"], ["a text", "k", '"a; b, c | d"']]
    (tmp_path / "a.csv").write_text("\n".join(map(delimiter.join, rows)).replace(
        "note, or two", "note" if delimiter == "," else "note, or two"))  # fmt: skip
    assert told(tmp_path / "a.csv")["done"] == 1
    assert list(metadata("k").values()) == ["a; b, c | d"]


def test_types_that_are_given_and_those_of_a_pipe(
    told: Told, run: Run, tmp_path: Path, metadata: Callable[[str | Path], Any]
) -> None:
    lines = "text,key,year,price\none,1,1959,9\n"
    assert told("-", stdin=lines)["done"] == 1
    assert metadata("1") == {"year": "1959", "price": "9"}
    told("-", "--type", "price=number", stdin=lines)
    assert metadata("1") == {"year": "1959", "price": 9}
    (tmp_path / "a.csv").write_text(lines)
    told(tmp_path / "a.csv", "--type", "year=string")
    assert metadata("1") == {"year": "1959", "price": 9}
    wrong = run("index", tmp_path / "a.csv", "--type", "year=boolean")
    assert wrong.returncode == 1
    assert "line 2: year is no boolean: '1959'" in wrong.stderr
    assert "not like price=number" in run("index", "-", "--type", "year").stderr


def test_a_prefix_in_object_storage(told: Told, run: Run, live: Live) -> None:
    """An in-memory one, which stands for s3:// and others that fsspec has."""
    storage = fsspec.filesystem("memory")
    for name in ("a.jpg", "deep/b.PNG", "notes.txt", "c"):
        storage.pipe(f"/bucket/pictures/{name}", b"x")
    storage.pipe("/bucket/other/d.jpg", b"x")
    found = told("memory://bucket/pictures/", "--no-wait")
    assert (found["submitted"], found["left_out"]) == (2, {".txt": 1, "no ending": 1})
    keys = {item.key for item in live.client.items(collection="test_a_prefix_in_object_storage")}
    assert keys == {"memory://bucket/pictures/a.jpg", "memory://bucket/pictures/deep/b.PNG"}
    wrong = run("index", "nonsense://bucket/")
    assert wrong.returncode == 1
    assert "nonsense://bucket/ can't be listed" in wrong.stderr
    assert told("https://example.org/a.jpg", "--no-wait")["submitted"] == 1
