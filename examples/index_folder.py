"""Indexes a folder of pictures and text files, then searches it.

python index_folder.py ~/Pictures "a dog on the beach" "a birthday cake"

Files that have not changed since the last time are not encoded again.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pgclip import Batch, Client, Hit, ItemFailed, NotFound, PgclipError, WaitTimeout

PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".avif", ".bmp", ".tif", ".tiff"}
TEXTS = {".txt", ".md"}


def main() -> int:
    """Returns the exit status; --help says what it means."""
    options = parser().parse_args()
    if not options.folder.is_dir():
        parser().error(f"{options.folder} is not a folder")
    collection = options.collection or options.folder.resolve().name
    try:
        with Client() as client:
            complete = index(client, options.folder, collection, options.timeout)
            for query in options.query:
                show(query, search(client, query, collection, options.number))
    except PgclipError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0 if complete else 1


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Index the pictures and texts of a folder, then search them.",
        epilog="PGCLIP_DATABASE_URL and PGCLIP_REDIS_URL say where; a worker must be running. "
        "Exit status: 0 all is well, 1 some files are not indexed, 2 it had to break off.",
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("query", nargs="*", help="a text, or the path of a picture")
    parser.add_argument("--collection", help="where the items go (the folder's name)")
    parser.add_argument("-n", "--number", type=int, default=5, help="hits to show (5)")
    parser.add_argument("--timeout", type=float, default=3600, help="seconds to wait (3600)")
    return parser


def index(client: Client, folder: Path, collection: str, timeout: float) -> bool:
    """Submits all files and waits; tells whether all of them are indexed."""
    unreadable: list[str] = []
    batch = client.submit_many(items(folder, collection, unreadable))
    follow(batch, timeout)
    counts = batch.counts()
    open_ = counts["queued"] + counts["leased"]
    print(f"{counts['done']} of {batch.submitted + len(unreadable)} files are indexed.")
    for failure in batch.failures():
        unreadable.append(f"{failure.key}: {failure.message}")
    for line in unreadable:
        print(f"  not indexed: {line}", file=sys.stderr)
    if open_:
        print(f"  {open_} still wait; is a worker running? It goes on later.", file=sys.stderr)
    return not open_ and not unreadable


def items(folder: Path, collection: str, unreadable: list[str]) -> Iterator[dict[str, Any]]:
    """One item for each file, read when its turn comes: a large folder needs no memory.

    Bytes are submitted, so that the worker may be anywhere. Where it sees the same folder
    (PGCLIP_ROOTS), `"image": path` submits a reference instead.
    """
    for path in sorted(folder.rglob("*")):
        about = {"key": path.relative_to(folder).as_posix(), "collection": collection}
        try:
            if path.suffix.lower() in PICTURES:
                yield {"image": path.read_bytes(), **about}
            elif path.suffix.lower() in TEXTS:
                yield {"text": path.read_text(encoding="utf-8"), **about}
        except (OSError, UnicodeDecodeError) as error:
            unreadable.append(f"{about['key']}: {error}")


def follow(batch: Batch, timeout: float) -> None:
    """Waits until all have ended; on a terminal, shows how far it is."""
    step = 0.5
    for _ in range(max(1, round(timeout / step))):
        try:
            return batch.wait(step)
        except ItemFailed:
            return None  # all have ended; who failed is told afterwards
        except WaitTimeout:
            if sys.stdout.isatty():
                counts = batch.counts()
                ended = counts["done"] + counts["failed"]
                print(f"\r{ended} of {batch.submitted} ", end="\r", flush=True)


def search(client: Client, query: str, collection: str, number: int) -> list[Hit]:
    """The nearest to a text, or to a picture if the query is the path of one."""
    picture = Path(query)
    try:
        if picture.suffix.lower() in PICTURES and picture.is_file():
            return client.search(image=picture, k=number, collection=collection)
        return client.search(query, k=number, collection=collection)
    except NotFound:  # no file was there to be indexed
        return []


def show(query: str, hits: list[Hit]) -> None:
    """Prints hits as a table."""
    print(f"\n{query}" + ("" if hits else "\n  nothing found"))
    for hit in hits:
        labels = ", ".join(label.name for label in hit.labels if label.set == "general")
        print(f"  {hit.score:5.2f}  {hit.kind:<5}  {hit.key:<32} {labels}")


if __name__ == "__main__":
    sys.exit(main())
