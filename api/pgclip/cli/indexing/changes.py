"""What is new or has changed: what has to be submitted, and what else is brought up to date."""

import hashlib
from typing import Any

from pgclip.cli.indexing import fields
from pgclip.cli.indexing.entries import Entry, is_text
from pgclip.cli.indexing.gone import note
from pgclip.cli.indexing.tally import Tally, Wanted
from pgclip.client import Client
from pgclip.errors import InvalidItem, NotFound
from pgclip.items import ItemInfo
from pgclip.keys import file_url


def changed(
    chunk: list[Entry], wanted: Wanted, client: Client, tally: Tally
) -> list[tuple[Entry, dict[str, Any]]]:
    """Those that have to be submitted, with their metadata: new, of another content, or failed.

    Of others, metadata are brought up to date, and a file that has moved keeps its item.
    """
    known: dict[tuple[str, str], ItemInfo] = {}
    for name in {entry.collection or wanted.collection for entry in chunk}:
        # One that is no text to Postgres is refused later, alone.
        keys = [entry.key for entry in chunk if entry.key and is_text(entry.key)]
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
