"""`pgclip index`: submits files and references, skips what is unchanged, shows the progress."""

import hashlib
import math
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
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

from pgclip.cli.entries import Entry, entries
from pgclip.cli.options import AsJson, DatabaseUrl, RedisUrl, client_for, metadata_from
from pgclip.cli.output import err, print_json, shown_key
from pgclip.client import Client
from pgclip.submitting.jobs import Batch, ItemFailure

# Entries that are looked up, submitted and committed together.
_AT_ONCE = 200
_LOOK_SECONDS = 0.5
_FAILURES_SHOWN = 10


@dataclass(frozen=True)
class Wanted:
    """How to submit what is found, unless a list says otherwise."""

    collection: str
    metadata: dict[str, Any]
    by_reference: bool
    keep: bool | None
    priority: int


@dataclass
class Tally:
    """What has become of everything so far."""

    found: int = 0
    unchanged: int = 0
    submitted: int = 0
    done: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    open_: deque[Batch] = field(default_factory=deque)


def index(
    paths: Annotated[
        list[str],
        typer.Argument(help="Files, folders, CSV or JSONL lists; - for JSONL on standard input."),
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
    wanted = Wanted(collection, metadata_from(metadata) or {}, by_reference, keep, priority)
    tally = Tally()
    # Where the queue has a ceiling, this is who waits.
    with client_for(database_url, redis_url, queue_wait=math.inf) as client:
        _index(paths, wanted, client, tally, _progress(as_json), wait)
    _report(tally, wait, as_json)


def _index(
    paths: list[str], wanted: Wanted, client: Client, tally: Tally, progress: Progress, wait: bool
) -> None:
    # Looked through first: for the remaining time, and so that a list that can't be read to its
    # end is refused before anything of it is submitted. A pipe can be read only once.
    total = None if "-" in paths else sum(1 for _ in entries(paths))
    with progress:
        bar = progress.add_task("indexing", total=total, rate="", failed="")
        for _ in _submissions(entries(paths), wanted, client, tally):
            _settle(tally, progress, bar)
        progress.update(bar, total=tally.found)
        while wait and tally.open_:
            time.sleep(_LOOK_SECONDS)
            _settle(tally, progress, bar)
    for batch in tally.open_:  # whatever is not waited for
        tally.failures += map(_told, batch.refused)


def _submissions(
    found: Iterator[Entry], wanted: Wanted, client: Client, tally: Tally
) -> Iterator[Batch]:
    """Submits what is new or has changed, some hundred at a time."""
    while chunk := list(islice(found, _AT_ONCE)):
        tally.found += len(chunk)
        fresh = _changed(chunk, wanted, client, tally)
        batch = client.submit_many(
            _items(fresh, wanted, tally), priority=wanted.priority, keep_source=wanted.keep
        )
        tally.submitted += batch.accepted
        tally.open_.append(batch)
        yield batch


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


def _changed(chunk: list[Entry], wanted: Wanted, client: Client, tally: Tally) -> list[Entry]:
    """Those that are new, or have another content or other metadata, or have failed."""
    known: dict[tuple[str, str], Any] = {}
    for name in {entry.collection or wanted.collection for entry in chunk}:
        # One that is no text to Postgres is refused later, alone.
        keys = [entry.key for entry in chunk if entry.key and _is_plain(entry.key)]
        known |= {(name, item.key): item for item in client.items(collection=name, keys=keys)}
    fresh = []
    for entry in chunk:
        item = known.get((entry.collection or wanted.collection, entry.key or ""))
        if (
            item is not None
            and item.state == "done"
            and item.metadata == wanted.metadata | entry.metadata
            and item.content_hash is not None
            and item.content_hash == _hash(entry)
            and (item.kept or not wanted.keep)
        ):
            tally.unchanged += 1
        else:
            fresh.append(entry)
    return fresh


def _is_plain(key: str) -> bool:
    return "\0" not in key and key.encode(errors="ignore").decode() == key


def _hash(entry: Entry) -> bytes | None:
    """SHA-256 of its bytes; None if they can't be had here."""
    if entry.text is not None:
        return hashlib.sha256(entry.text.encode()).digest()
    if entry.file is None:
        return None
    try:
        with entry.file.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return None


def _items(fresh: Iterable[Entry], wanted: Wanted, tally: Tally) -> Iterator[dict[str, Any]]:
    """What submit_many takes. A file that can't be read is a failure, and no more than that."""
    for entry in fresh:
        item: dict[str, Any] = {
            "key": entry.key,
            "collection": entry.collection or wanted.collection,
            "metadata": wanted.metadata | entry.metadata,
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
        completed=tally.unchanged + done + failed,
        rate=f"{done / elapsed:.0f}/s" if elapsed else "",
        failed=f"{failed} failed" if failed else "",
    )


def _told(failure: ItemFailure) -> tuple[str, str]:
    key = failure.key or f"entry {failure.position}"
    return key.encode(errors="backslashreplace").decode(), failure.message


def _report(tally: Tally, waited: bool, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "found": tally.found,
                "unchanged": tally.unchanged,
                "submitted": tally.submitted,
                "done": tally.done,
                "failed": [{"key": key, "error": error} for key, error in tally.failures],
            }
        )
    else:
        for key, message in tally.failures[:_FAILURES_SHOWN]:
            typer.secho(f"failed: {shown_key(key)}: {message}", fg="red", err=True)
        if len(tally.failures) > _FAILURES_SHOWN:
            typer.echo(f"… and {len(tally.failures) - _FAILURES_SHOWN} more", err=True)
        ended = f"{tally.done} encoded" if waited else f"{tally.submitted} submitted"
        typer.echo(
            f"{tally.found} found: {ended}, {tally.unchanged} unchanged, "
            f"{len(tally.failures)} failed"
        )
    if tally.failures:
        raise typer.Exit(1)
