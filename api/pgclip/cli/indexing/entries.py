"""One thing to index, and everything that is named on the command line as such things."""

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pgclip.errors import InvalidItem


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, a URL, or a text; with what a list says about it.

    `key` is None of a text without one. `found_in`: the folder that was walked, or of a file that
    was named itself its own; None of what a list has.
    """

    key: str | None
    file: Path | None
    url: str | None
    text: str | None
    metadata: dict[str, Any]
    collection: str | None = None
    priority: int | None = None
    is_text: bool = False
    found_in: Path | None = None


@dataclass(frozen=True)
class Selection:
    """What to take of what there is.

    `exclude` are patterns for names and for paths below the folder; `types` are those of a list's
    columns that are given; `formats` are pictures' besides those that are always taken. `lines`:
    of a text file that is named each line is a text.
    """

    exclude: tuple[str, ...] = ()
    follow: bool = False
    types: Mapping[str, str] = field(default_factory=dict)
    formats: tuple[str, ...] = ()
    lines: bool = False


@dataclass
class Passed:
    """What was not taken: how many by kind, and what could not be looked at, with why."""

    kinds: dict[str, int] = field(default_factory=dict)
    troubles: list[tuple[str, str]] = field(default_factory=list)

    def over(self, kind: str) -> None:
        """One more of a kind."""
        self.kinds[kind] = self.kinds.get(kind, 0) + 1

    def by(self, path: object, reason: str) -> None:
        """Something that should have been looked at."""
        self.troubles.append((str(path), reason))


def is_text(name: str) -> bool:
    """Whether Postgres takes a name for a text: no NUL, and nothing that is not UTF-8."""
    return "\0" not in name and name.encode(errors="ignore").decode() == name


def entries(paths: Iterable[str], selection: Selection, passed: Passed) -> Iterator[Entry]:
    """Everything to index below the paths. "-" is a list from standard input.

    Raises InvalidItem for a path that is not there or not of a kind that can be indexed, and for
    a line of a list that can't be read.
    """
    from pgclip.cli.indexing import folders, lists, storage

    for name in paths:
        path = Path(name).expanduser()
        if name == "-":
            yield from lists.from_pipe(sys.stdin, selection)
        elif "://" in name:
            yield from storage.entries(name, selection, passed)
        elif path.is_dir():
            yield from folders.entries(path, selection, passed)
        elif not path.exists():
            raise InvalidItem(f"{name}: there is no such file or folder")
        elif path.suffix.lower() in lists.ENDINGS or (
            selection.lines and path.suffix.lower() in folders.TEXTS
        ):
            yield from lists.entries(path, selection)
        elif kind := folders.kind_of(path, selection, passed):
            yield folders.entry(path, kind, Path(os.path.abspath(path)).parent)
        elif not passed.troubles:
            raise InvalidItem(
                f"{name}: can't be indexed; what can be are pictures, texts "
                f"({' '.join(sorted(folders.TEXTS))}) and lists ({' '.join(sorted(lists.ENDINGS))})"
            )
