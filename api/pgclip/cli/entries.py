"""What `pgclip index` finds: files, folders, and lists of references (CSV, JSONL)."""

import csv
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgclip.errors import InvalidItem

PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".avif", ".bmp", ".tif", ".tiff"}
TEXTS = {".txt", ".md"}
LISTS = {".csv", ".jsonl", ".ndjson"}
_CSV_FIELD = 2**20  # characters; a text has 256 KiB at most
_OWN = ("image", "path", "url", "text", "key", "collection", "metadata", "priority")


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing to index: a file, a URL, or a text; with what a list says about it."""

    key: str | None
    file: Path | None
    url: str | None
    text: str | None
    metadata: dict[str, Any]
    collection: str | None = None
    priority: int | None = None

    @property
    def is_text(self) -> bool:
        """Whether it is a text, inline or a file."""
        return self.text is not None or (
            self.file is not None and self.file.suffix.lower() in TEXTS
        )


def entries(paths: Iterable[str]) -> Iterator[Entry]:
    """Everything to index below the paths. "-" is JSONL from standard input.

    Raises InvalidItem for a path that is not there or not of a kind that can be indexed, and for
    a line of a list that can't be read.
    """
    for name in paths:
        path = Path(name).expanduser()
        if name == "-":
            lines = _from_jsonl(sys.stdin, "standard input", Path.cwd())
            yield from _decoded(lines, "standard input")
        elif path.is_dir():
            yield from map(_from_file, sorted_files(path))
        elif not path.is_file():
            raise InvalidItem(f"{name}: there is no such file or folder")
        elif path.suffix.lower() in PICTURES | TEXTS:
            yield _from_file(path)
        elif path.suffix.lower() == ".csv":
            yield from _from_csv(path)
        elif path.suffix.lower() in LISTS:
            with path.open(encoding="utf-8-sig") as file:
                yield from _decoded(_from_jsonl(file, name, path.parent), name)
        else:
            kinds = " ".join(sorted(PICTURES | TEXTS | LISTS))
            raise InvalidItem(f"{name}: can't be indexed; what can be is {kinds}")


def sorted_files(folder: Path) -> Iterator[Path]:
    """Pictures and texts below a folder, in a stable order, without hidden ones."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            known = path.suffix.lower() in PICTURES | TEXTS
            if known and not name.startswith(".") and path.is_file():
                yield path


def _from_file(path: Path) -> Entry:
    # The same key from wherever it is indexed, so that indexing again finds it.
    path = path.absolute()
    return Entry(str(path), path, None, None, {"name": path.name})


def _from_csv(path: Path) -> Iterator[Entry]:
    csv.field_size_limit(_CSV_FIELD)
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        found = (
            _from_row(_csv_values(row), f"{path}, line {reader.line_num}", path.parent)
            for row in reader
        )
        yield from _decoded(found, f"{path}")


def _decoded(found: Iterator[Entry], name: str) -> Iterator[Entry]:
    """The same, with an error for a person where a file is not what its name says."""
    try:
        yield from found
    except UnicodeDecodeError as error:
        raise InvalidItem(f"{name}: not UTF-8: {error}") from error
    except csv.Error as error:
        raise InvalidItem(f"{name}: not CSV: {error}") from error


def _from_jsonl(lines: Iterable[str], name: str, folder: Path) -> Iterator[Entry]:
    for number, line in enumerate(lines, 1):
        where = f"{name}, line {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InvalidItem(f"{where}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise InvalidItem(f"{where}: not a JSON object")
        yield _from_row(row, where, folder)


def _csv_values(row: Mapping[str | None, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name and value not in ("", None)}


def _from_row(row: Mapping[str, Any], where: str, folder: Path) -> Entry:
    """A line of a list. Fields with no meaning of their own are metadata."""
    places = [row[name] for name in ("image", "path", "url") if name in row]
    text = row.get("text")
    if len(places) + (text is not None) != 1 or not all(isinstance(p, str) for p in places):
        raise InvalidItem(f"{where}: needs one of image, path, url (a file or URL), or text")
    for field in ("key", "collection", "text"):
        if not isinstance(row.get(field, ""), str):
            raise InvalidItem(f"{where}: {field} is not a text: {row[field]!r:.100}")
    metadata = _metadata(row.get("metadata", {}), where)
    metadata |= {name: value for name, value in row.items() if name not in _OWN}
    priority = str(row["priority"]) if "priority" in row else None
    if priority is not None and not (priority.isdecimal() and int(priority) <= 9):
        raise InvalidItem(f"{where}: the priority is from 0 (first) to 9, not {priority:.100}")
    about = (metadata, row.get("collection"), None if priority is None else int(priority))
    if text is not None:
        return Entry(row.get("key"), None, None, text, *about)
    if "://" in places[0]:
        return Entry(row.get("key", places[0]), None, places[0], None, *about)
    file = (folder / places[0]).absolute()
    return Entry(row.get("key", str(file)), file, None, None, *about)


def _metadata(given: Any, where: str) -> dict[str, Any]:
    """An object, or in a CSV its JSON."""
    try:
        value = json.loads(given) if isinstance(given, str) else given
    except ValueError as error:
        raise InvalidItem(f"{where}: metadata is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidItem(f"{where}: metadata is not a JSON object")
    return dict(value)
