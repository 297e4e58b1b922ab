"""How files are to be submitted, what has become of them so far, and what a person reads of it."""

from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from pgclip.cli.indexing.entries import Passed
from pgclip.cli.indexing.gone import Gone
from pgclip.cli.output import print_json, shown_key
from pgclip.submitting.jobs import Batch

_FAILURES_SHOWN = 10


@dataclass(frozen=True)
class Wanted:
    """How to submit what is found, unless a list says otherwise."""

    collection: str
    metadata: dict[str, Any]
    fields: tuple[str, ...]
    by_reference: bool
    keep: bool | None
    priority: int
    host: str
    dry_run: bool


@dataclass
class Tally:
    """What has become of everything so far."""

    found: int = 0
    unchanged: int = 0
    updated: int = 0
    renamed: int = 0
    submitted: int = 0
    done: int = 0
    pruned: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    open_: deque[Batch] = field(default_factory=deque)
    gone: dict[Path, Gone] = field(default_factory=dict)
    found_in: dict[Path, int] = field(default_factory=dict)

    @property
    def gone_keys(self) -> int:
        """Files that are gone, and whose items are there."""
        return sum(len(each.paths) for each in self.gone.values())


def report(tally: Tally, passed: Passed, wanted: Wanted, waited: bool, as_json: bool) -> None:
    """Says it, and ends with 1 if something failed."""
    if as_json:
        print_json(
            {
                "found": tally.found,
                "unchanged": tally.unchanged,
                "updated": tally.updated,
                "renamed": tally.renamed,
                "submitted": tally.submitted,
                "done": tally.done,
                "left_out": passed.kinds,
                "gone": tally.gone_keys,
                "pruned": tally.pruned,
                "failed": [{"key": key, "error": error} for key, error in tally.failures],
            }
        )
    else:
        _print(tally, passed, wanted, waited)
    if tally.failures:
        raise typer.Exit(1)


def _print(tally: Tally, passed: Passed, wanted: Wanted, waited: bool) -> None:
    for key, message in tally.failures[:_FAILURES_SHOWN]:
        typer.secho(f"failed: {shown_key(key)}: {message}", fg="red", err=True)
    if len(tally.failures) > _FAILURES_SHOWN:
        typer.echo(f"… and {len(tally.failures) - _FAILURES_SHOWN} more", err=True)
    if wanted.dry_run:
        ended = f"{tally.submitted} to be encoded"
    else:
        ended = f"{tally.done} encoded" if waited else f"{tally.submitted} submitted"
    rare = {"updated": tally.updated, "renamed": tally.renamed, "pruned": tally.pruned}
    parts = [ended, f"{tally.unchanged} unchanged",
             *(f"{count} {name}" for name, count in rare.items() if count),
             f"{len(tally.failures)} failed"]  # fmt: skip
    typer.echo(f"{tally.found} found: {', '.join(parts)}")
    if passed.kinds:
        kinds = sorted(passed.kinds.items(), key=lambda kind: (-kind[1], kind[0]))
        told = ", ".join(f"{kind} {count}" for kind, count in kinds)
        typer.echo(f"{sum(passed.kinds.values())} left out: {told}")
    if tally.gone_keys:
        typer.echo(f"{tally.gone_keys} gone from disk and still found; --prune deletes them")
    if wanted.dry_run:
        typer.echo("nothing was done")
