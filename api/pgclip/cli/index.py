"""`pgclip index`: submits files and references, skips what is unchanged, shows the progress."""

import hashlib
import math
import socket
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

from pgclip.cli.indexing import fields
from pgclip.cli.indexing.entries import Entry, Passed, Selection, entries
from pgclip.cli.indexing.gone import Gone, gone_below, note, prune
from pgclip.cli.indexing.lists import TYPES
from pgclip.cli.options import AsJson, DatabaseUrl, RedisUrl, client_for, metadata_from
from pgclip.cli.output import err, print_json, shown_key
from pgclip.client import Client
from pgclip.errors import InvalidItem, NotFound
from pgclip.items import ItemInfo
from pgclip.submitting.jobs import Batch, ItemFailure
from pgclip.submitting.submission import file_url

# Entries that are looked up, submitted and committed together.
_AT_ONCE = 200
_LOOK_SECONDS = 0.5
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
            tuple(exclude or ()), follow, _types(types or []), client.settings.formats
        )
        for path in (Path(name).expanduser() for name in paths if "://" not in name):
            if path.is_dir():
                gone = gone_below(client, wanted.host, collection, path, passed)
                tally.gone[gone.folder] = gone
        _index(paths, selection, passed, wanted, client, tally, _progress(as_json), wait)
        if prune_gone:
            _prune(tally, passed, wanted, client, yes)
        tally.failures += passed.troubles
    _report(tally, passed, wanted, wait, as_json)


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
        fresh = _changed(chunk, wanted, client, tally)
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


def _changed(
    chunk: list[Entry], wanted: Wanted, client: Client, tally: Tally
) -> list[tuple[Entry, dict[str, Any]]]:
    """Those that have to be submitted, with their metadata: new, of another content, or failed.

    Of others, metadata are brought up to date, and a file that has moved keeps its item.
    """
    known: dict[tuple[str, str], ItemInfo] = {}
    for name in {entry.collection or wanted.collection for entry in chunk}:
        # One that is no text to Postgres is refused later, alone.
        keys = [entry.key for entry in chunk if entry.key and _is_plain(entry.key)]
        known |= {(name, item.key): item for item in client.items(collection=name, keys=keys)}
    fresh = []
    for entry in chunk:
        collection = entry.collection or wanted.collection
        item = known.get((collection, entry.key or "")) or _moved(entry, wanted, client, tally)
        try:
            metadata = _metadata(entry, wanted)
        except OSError as error:
            tally.failures.append((str(entry.file), f"can't be read: {error.strerror}"))
            continue
        if item is None or not _is_up_to_date(item, entry, wanted):
            fresh.append((entry, metadata))
        elif item.metadata | metadata == item.metadata:
            tally.unchanged += 1
        else:
            _update(item, metadata, wanted, client, tally)
    return fresh


def _update(
    item: ItemInfo, metadata: dict[str, Any], wanted: Wanted, client: Client, tally: Tally
) -> None:
    if not wanted.dry_run:
        try:
            client.update_metadata(item.key, set=metadata, collection=item.collection)
        except (InvalidItem, NotFound) as error:  # of metadata, or deleted meanwhile
            tally.failures.append((item.key, str(error)))
            return
    tally.updated += 1


def _is_up_to_date(item: ItemInfo, entry: Entry, wanted: Wanted) -> bool:
    return (
        item.state == "done"
        and item.content_hash is not None
        and item.content_hash == _hash(entry)
        and (item.kept or not wanted.keep)
        and (entry.file is None or item.source in (None, file_url(entry.file)))
    )


def _moved(entry: Entry, wanted: Wanted, client: Client, tally: Tally) -> ItemInfo | None:
    """The item of a file that was elsewhere below the same folder, under its new key."""
    gone = tally.gone.get(entry.found_in) if entry.found_in else None
    if gone is None or not gone.by_content or entry.key is None:
        return None
    before = gone.renamed_to(_hash(entry))
    if before is None:
        return None
    if not wanted.dry_run:
        try:
            client.rename(before, entry.key, collection=wanted.collection)
        except (InvalidItem, NotFound):  # somebody has submitted it meanwhile, or deleted the other
            return None
        note(client, wanted.host, wanted.collection, [entry])
    tally.renamed += 1
    key = before if wanted.dry_run else entry.key
    return next(client.items(collection=wanted.collection, keys=[key]), None)


def _metadata(entry: Entry, wanted: Wanted) -> dict[str, Any]:
    """What a list says counts most, then what is said of all, then what the file says. OSError."""
    said = {}
    if entry.file is not None and entry.found_in is not None:
        said = fields.of_file(entry.file, wanted.fields, entry.is_text)
    return said | wanted.metadata | entry.metadata


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


def _report(tally: Tally, passed: Passed, wanted: Wanted, waited: bool, as_json: bool) -> None:
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
