"""What a person sees, and what a script gets."""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pgclip.items import Label

# Wide where nobody looks at it: a script must not get a key in two lines.
out = Console(highlight=False, width=None if sys.stdout.isatty() else 1000)
err = Console(stderr=True, highlight=False)


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    json.dump(value, sys.stdout, default=_plain, ensure_ascii=False, indent=2)
    sys.stdout.write("\n")


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, datetime):
        return value.isoformat()
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)


def print_table(columns: Sequence[str], rows: Iterable[Iterable[Any]], wide: int = 1) -> None:
    """A table. Of the columns the last `wide` may be long, and take several lines."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, no_wrap=number < len(columns) - wide, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    out.print(table)


def shown_key(key: str, width: int | None = None) -> str:
    """A key; in a terminal, a path relative to the current folder or the home, and its end in
    `width` columns.
    """
    if not out.is_terminal:
        return key
    below = key.removeprefix(os.getcwd() + os.sep)
    home = os.path.expanduser("~") + os.sep
    if below == key and key.startswith(home) and len(home) > 2:
        below = "~" + os.sep + key.removeprefix(home)
    if width is None or len(below) <= width:
        return below
    if os.sep in below:  # what tells paths apart is their end
        end = below[1 - width :]
        return "…" + end[max(0, end.find(os.sep)) :]
    return _cut(below, width)


def shown_labels(labels: Iterable[Label], most: int = 3) -> str:
    """The best labels, as "cat 0.91, weapon?": what is to be reviewed is a question, and what was
    decided not to be so is left out."""
    best = sorted(
        (label for label in labels if label.decision != "no"), key=lambda label: -label.score
    )
    return ", ".join(
        f"{label.name}?" if label.decision == "review" else f"{label.name} {label.score:.2f}"
        for label in best[:most]
    )


def shown_metadata(metadata: dict[str, Any], key: str = "", width: int = 60) -> str:
    """Metadata on one line, cut where it is long; without a name that the key ends with."""
    text = ", ".join(
        f"{name}={value}" for name, value in metadata.items()
        if name != "name" or not key.endswith(f"/{value}")
    )  # fmt: skip
    return _cut(text, width)


def shown_snippet(snippet: str | None, width: int = 80) -> str:
    """How a text begins, on one line."""
    return _cut(" ".join((snippet or "").split()), width)


def shown_bytes(size: int) -> str:
    """A size as a person reads it, such as 12.3 MiB."""
    number, units = float(size), ["B", "KiB", "MiB", "GiB", "TiB"]
    while number >= 1024 and len(units) > 1:
        number, units = number / 1024, units[1:]
    return f"{number:.0f} {units[0]}" if units[0] == "B" else f"{number:.1f} {units[0]}"


def shown_age(moment: datetime) -> str:
    """How long ago that was, such as 5 min."""
    seconds = max(0.0, (datetime.now(UTC) - moment).total_seconds())
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
