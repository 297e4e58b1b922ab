"""`pgclip index`: submits files and references, skips what is unchanged, shows the progress."""

import math
import socket
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pgclip.cli.indexing import fields
from pgclip.cli.indexing.changes import changed
from pgclip.cli.indexing.entries import Entry, Passed, Selection, entries
from pgclip.cli.indexing.gone import gone_below, note, prune
from pgclip.cli.indexing.lists import TYPES
from pgclip.cli.indexing.tally import Tally, Wanted, report
from pgclip.cli.options import AsJson, DatabaseUrl, RedisUrl, client_for, metadata_from
from pgclip.cli.output import err
from pgclip.client import Client
from pgclip.submitting.jobs import ItemFailure

# Entries that are looked up, submitted and committed together.
_AT_ONCE = 200
_LOOK_SECONDS = 0.5


def index(
    paths: Annotated[
        list[str],
        typer.Argument(
            help="Files, folders, CSV or JSONL lists, URLs, prefixes in object storage "
            "(s3://bucket/pictures/); - for a list on standard input."
        ),
    ],
    collection: Annotated[
        str, typer.Option("--collection", "-c", help="Into this one.")
    ] = "default",
    by_reference: Annotated[
        bool,
        typer.Option(
            "--by-reference",
            help="Let workers read the files (below their PGCLIP_ROOTS) instead of uploading them.",
        ),
    ] = False,
    keep: Annotated[
        bool | None,
        typer.Option(help="Keep uploaded bytes once they are encoded; default: as is set."),
    ] = None,
    metadata: Annotated[
        str | None, typer.Option(help='JSON object for all of them: \'{"album": "2024"}\'.')
    ] = None,
    file_fields: Annotated[
        str,
        typer.Option(
            "--fields",
            help=f"Of files in their metadata, with commas: {', '.join(fields.FIELDS)}.",
        ),
    ] = "name",
    types: Annotated[
        list[str] | None,
        typer.Option(
            "--type", help="Of a CSV's column, as price=number; number, boolean or string."
        ),
    ] = None,
    lines: Annotated[
        bool, typer.Option("--lines", help="Of a text file that is named, each line is a text.")
    ] = False,
    exclude: Annotated[
        list[str] | None,
        typer.Option(help="Pass over names or paths below the folder, such as '*.tmp' or 'raw/*'."),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Enter linked folders.")] = False,
    prune_gone: Annotated[
        bool,
        typer.Option(
            "--prune", help="Delete the items of files that this host indexed and that are gone."
        ),
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Prune more than a fifth of what was indexed.")
    ] = False,
    host: Annotated[
        str, typer.Option(help="Whose files these are; by default this host's name.")
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    priority: Annotated[int, typer.Option(min=0, max=9, help="0 is first, 9 last.")] = 1,
    wait: Annotated[bool, typer.Option(help="Wait until all are encoded.")] = True,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
    as_json: AsJson = False,
) -> None:
    """Index pictures and texts: what is new or has changed is encoded, the rest is skipped.

    A key is the file's path, or what a list says. A list has a column or field image (a file or
    URL) or text, and if wanted key, collection, metadata; all others are metadata. Interrupted,
    it goes on where it was when it is run again.
    """
    wanted = Wanted(
        collection, metadata_from(metadata) or {}, fields.chosen_from(file_fields), by_reference,
        keep, priority, host or socket.gethostname(), dry_run,
    )  # fmt: skip
    tally, passed = Tally(), Passed()
    # Where the queue has a ceiling, this is who waits.
    with client_for(database_url, redis_url, queue_wait=math.inf) as client:
        selection = Selection(
            tuple(exclude or ()), follow, _types(types or []), client.settings.formats, lines
        )
        for path in (Path(name).expanduser() for name in paths if "://" not in name):
            if path.is_dir():
                gone = gone_below(client, wanted.host, collection, path, passed)
                tally.gone[gone.folder] = gone
        _index(paths, selection, passed, wanted, client, tally, _progress(as_json), wait)
        if prune_gone:
            _prune(tally, passed, wanted, client, yes)
        tally.failures += passed.troubles
    report(tally, passed, wanted, wait, as_json)


def _types(given: list[str]) -> dict[str, str]:
    """Of columns, from "price=number". Raises BadParameter."""
    found = {}
    for each in given:
        column, _, name = each.rpartition("=")
        if not column or name not in TYPES:
            raise typer.BadParameter(
                f"{each!r} is not like price=number; types are {', '.join(TYPES)}",
                param_hint="--type",
            )
        found[column] = name
    return found


def _index(
    paths: list[str],
    selection: Selection,
    passed: Passed,
    wanted: Wanted,
    client: Client,
    tally: Tally,
    progress: Progress,
    wait: bool,
) -> None:
    # Looked through first: for the remaining time, and so that a list that can't be read to its
    # end is refused before anything of it is submitted. A pipe can be read only once.
    total = None if "-" in paths else sum(1 for _ in entries(paths, selection, Passed()))
    with progress:
        bar = progress.add_task("indexing", total=total, rate="", failed="")
        for _ in _submissions(entries(paths, selection, passed), wanted, client, tally):
            _settle(tally, progress, bar)
        progress.update(bar, total=tally.found)
        while wait and tally.open_:
            time.sleep(_LOOK_SECONDS)
            _settle(tally, progress, bar)
    for batch in tally.open_:  # whatever is not waited for
        tally.failures += map(_told, batch.refused)


def _submissions(
    found: Iterator[Entry], wanted: Wanted, client: Client, tally: Tally
) -> Iterator[None]:
    """Submits what is new or has changed, some hundred at a time."""
    while chunk := list(islice(found, _AT_ONCE)):
        tally.found += len(chunk)
        for entry in chunk:
            if entry.found_in:
                tally.found_in[entry.found_in] = tally.found_in.get(entry.found_in, 0) + 1
            for gone in tally.gone.values():
                gone.is_there(entry.key)
        fresh = changed(chunk, wanted, client, tally)
        if wanted.dry_run:
            tally.submitted += len(fresh)
        else:
            batch = client.submit_many(
                _items(fresh, wanted, tally), priority=wanted.priority, keep_source=wanted.keep
            )
            tally.submitted += batch.accepted
            tally.open_.append(batch)
            # Not what somebody else has submitted and this only found.
            note(client, wanted.host, wanted.collection, [entry for entry, _ in fresh])
        yield


def _prune(tally: Tally, passed: Passed, wanted: Wanted, client: Client, yes: bool) -> None:
    """Deletes items of files that are gone, unless the folder looks as if it were not all there."""
    for gone in tally.gone.values():
        below = [path for path, _ in passed.troubles if Path(path).is_relative_to(gone.folder)]
        if not gone.paths:
            continue
        if not tally.found_in.get(gone.folder) or below:
            why = f"{below[0]} can't be read" if below else "nothing is in it"
            tally.failures.append((str(gone.folder), f"not pruned: {why}"))
        elif gone.is_much and not yes:
            told = f"{len(gone.paths)} of {gone.indexed} files are gone; --yes prunes them"
            tally.failures.append((str(gone.folder), f"not pruned: {told}"))
        elif wanted.dry_run:
            tally.pruned += len(gone.paths)
        else:
            tally.pruned += prune(client, wanted.host, wanted.collection, gone, passed)


def _progress(as_json: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("[red]{task.fields[failed]}"),
        console=err,
        disable=as_json or not err.is_terminal,
    )


def _items(
    fresh: Iterable[tuple[Entry, dict[str, Any]]], wanted: Wanted, tally: Tally
) -> Iterator[dict[str, Any]]:
    """What submit_many takes. A file that can't be read is a failure, and no more than that."""
    for entry, metadata in fresh:
        item: dict[str, Any] = {
            "key": entry.key,
            "collection": entry.collection or wanted.collection,
            "metadata": metadata,
            "merge_metadata": True,
        }
        if entry.priority is not None:
            item["priority"] = entry.priority
        try:
            item |= _content(entry, wanted.by_reference)
        except (OSError, ValueError) as error:
            tally.failures.append(
                (str(entry.file), f"can't be read: {getattr(error, 'strerror', error)}")
            )
        else:
            yield item


def _content(entry: Entry, by_reference: bool) -> dict[str, Any]:
    if entry.url is not None:
        return {"image": entry.url}
    if entry.text is not None:
        return {"text": entry.text}
    file = entry.file or Path()
    if entry.is_text:
        return {"text": file.read_bytes().decode()}  # as it is, whatever its line ends
    return {"image": file if by_reference else file.read_bytes()}


def _settle(tally: Tally, progress: Progress, bar: TaskID) -> None:
    """Counts what has ended, and shows it. Batches end in their order, more or less."""
    under_way = 0
    while tally.open_:
        counts = tally.open_[0].counts()
        if counts["queued"] + counts["leased"]:
            under_way = counts["done"]
            break
        tally.done += counts["done"]
        tally.failures += map(_told, tally.open_.popleft().failures())
    done, failed = tally.done + under_way, len(tally.failures)
    elapsed = progress.tasks[bar].elapsed or 0.0
    progress.update(
        bar,
        completed=tally.unchanged + tally.updated + done + failed,
        rate=f"{done / elapsed:.0f}/s" if elapsed else "",
        failed=f"{failed} failed" if failed else "",
    )


def _told(failure: ItemFailure) -> tuple[str, str]:
    key = failure.key or f"entry {failure.position}"
    return key.encode(errors="backslashreplace").decode(), failure.message
