"""Lists of references and texts: CSV and JSONL, each line with what it says of its item; lines."""

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import IO, Any

from pgclip.cli.indexing.entries import Entry, Selection
from pgclip.cli.indexing.folders import TEXTS
from pgclip.errors import InvalidItem
from pgclip.keys import file_key, url_key

ENDINGS = {".csv", ".tsv", ".jsonl", ".ndjson"}
_CSV_FIELD = 2**20  # characters; a text has 256 KiB at most
_OWN = ("image", "path", "url", "text", "key", "collection", "metadata", "priority")
_DELIMITERS = ",;\t|"
# What a column may be besides a string; a leading zero is part of a name, such as a postcode.
TYPES = {
    "number": re.compile(r"[+-]?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d{1,3})?"),
    "boolean": re.compile(r"true|false", re.IGNORECASE),
    "string": re.compile(r".*", re.DOTALL),
}


def entries(path: Path, selection: Selection) -> Iterator[Entry]:
    """The lines of a file. Raises InvalidItem for one that can't be read."""
    try:
        if path.suffix.lower() in (".csv", ".tsv"):
            # Whatever can't be read twice has the types that are given and no others.
            types = dict(selection.types)
            if path.is_file():
                with path.open(newline="", encoding="utf-8-sig") as file:
                    types = _types(_rows(file, str(path))) | types
            with path.open(newline="", encoding="utf-8-sig") as file:
                yield from _from_csv(file, str(path), path.parent, types)
        else:
            with path.open(encoding="utf-8-sig") as file:
                if path.suffix.lower() in TEXTS:
                    yield from _from_lines(file)
                else:
                    yield from _from_jsonl(file, str(path), path.parent)
    except UnicodeDecodeError as error:
        raise InvalidItem(f"{path}: not UTF-8: {error}") from error
    except OSError as error:
        raise InvalidItem(f"{path}: can't be read: {error.strerror}") from error


def from_pipe(stream: IO[str], selection: Selection) -> Iterator[Entry]:
    """JSONL, or CSV if it does not begin like that; a CSV's types are those that are given."""
    name = "standard input"
    try:
        first = stream.readline()
        lines = chain([first], stream)
        if first.lstrip("\ufeff \t\r\n")[:1] in ("{", "["):
            yield from _from_jsonl(lines, name, Path.cwd())
        elif first.strip():
            yield from _from_csv(lines, name, Path.cwd(), selection.types)
        else:
            yield from _from_jsonl(stream, name, Path.cwd())
    except UnicodeDecodeError as error:
        raise InvalidItem(f"{name}: not UTF-8: {error}") from error


def _from_csv(
    lines: Iterable[str], name: str, folder: Path, types: Mapping[str, str]
) -> Iterator[Entry]:
    for number, row in _rows(lines, name):
        where = f"{name}, line {number}"
        values = {
            field: value if field in _OWN else _typed(value, types.get(field), f"{where}: {field}")
            for field, value in row.items()
        }
        yield _from_row(values, where, folder)


def _rows(lines: Iterable[str], name: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Each line's number and the values it has. Raises InvalidItem."""
    csv.field_size_limit(_CSV_FIELD)
    lines = iter(lines)
    header = next(lines, "")
    # Whichever separates most names.
    delimiter = max(_DELIMITERS, key=lambda each: (header.count(each), each == ","))
    reader = csv.DictReader(chain([header], lines), delimiter=delimiter)
    try:
        for row in reader:
            yield reader.line_num, {field: value for field, value in row.items() if field and value}
    except csv.Error as error:
        raise InvalidItem(f"{name}: not CSV: {error}") from error


def _types(rows: Iterable[tuple[int, Mapping[str, str]]]) -> dict[str, str]:
    """Of each column the type that all of its values have; strings else."""
    left: dict[str, list[str]] = {}
    for _, row in rows:
        for field, value in row.items():
            if field not in _OWN:
                candidates = left.get(field, list(TYPES))
                left[field] = [name for name in candidates if TYPES[name].fullmatch(value)]
    return {field: candidates[0] for field, candidates in left.items()}


def _typed(value: str, type_: str | None, where: str) -> Any:
    if type_ is None or type_ == "string":
        return value
    if not TYPES[type_].fullmatch(value):
        raise InvalidItem(f"{where} is no {type_}: {value!r:.100}")
    return json.loads(value.lower().removeprefix("+"))


def _from_lines(lines: Iterable[str]) -> Iterator[Entry]:
    for line in lines:
        if line.strip():
            yield Entry(None, None, None, line.strip(), {}, is_text=True)


def _from_jsonl(lines: Iterable[str], name: str, folder: Path) -> Iterator[Entry]:
    for number, line in enumerate(lines, 1):
        where = f"{name}, line {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line.removeprefix("\ufeff"))
        except ValueError as error:
            raise InvalidItem(f"{where}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise InvalidItem(f"{where}: not a JSON object")
        yield _from_row(row, where, folder)


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
        return Entry(row.get("key"), None, None, text, *about, is_text=True)
    if "://" in places[0]:
        return Entry(row.get("key", url_key(places[0])), None, places[0], None, *about)
    file = folder / places[0]
    try:
        key = row.get("key", file_key(file))
    except ValueError as error:
        raise InvalidItem(f"{where}: {places[0]!r:.100} is not a path: {error}") from error
    return Entry(key, file.absolute(), None, None, *about, is_text=file.suffix.lower() in TEXTS)


def _metadata(given: Any, where: str) -> dict[str, Any]:
    """An object, or in a CSV its JSON."""
    try:
        value = json.loads(given) if isinstance(given, str) else given
    except ValueError as error:
        raise InvalidItem(f"{where}: metadata is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidItem(f"{where}: metadata is not a JSON object")
    return dict(value)
