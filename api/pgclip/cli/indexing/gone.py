"""Files that were indexed below a folder of this host and are not there any more."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pgclip import statements
from pgclip.arguments import name_text
from pgclip.cli.indexing.entries import Entry, Passed, is_text
from pgclip.client import Client

_PAGE = 1000
# Of what was indexed below a folder, the share that may be taken away without being asked for.
_MOST = 0.2


@dataclass
class Gone:
    """Below one folder: how many files were indexed, and those that are gone, by key.

    `by_content`: their keys by the SHA-256 of their bytes, where that is known.
    """

    folder: Path
    indexed: int = 0
    paths: dict[str, str] = field(default_factory=dict)
    by_content: dict[bytes, str] = field(default_factory=dict)

    @property
    def is_much(self) -> bool:
        """More than somebody deletes by hand: a disk that is not mounted, a folder that moved."""
        return len(self.paths) > _MOST * self.indexed

    def is_there(self, key: str | None) -> None:
        """It was found after all, under another spelling of its name or by now."""
        self.paths.pop(key or "", None)

    def renamed_to(self, content_hash: bytes | None) -> str | None:
        """The key of a file that is gone and had this content; it counts as found then."""
        key = None if content_hash is None else self.by_content.pop(content_hash, None)
        return key if key is not None and self.paths.pop(key, None) is not None else None


def gone_below(client: Client, host: str, collection: str, folder: Path, passed: Passed) -> Gone:
    """Looks at every file that this host has indexed below a folder."""
    found = Gone(Path(os.path.abspath(folder)))
    if not is_text(str(found.folder)):
        return found  # nothing below it was remembered
    last = ""
    while True:
        with client._database.transaction("indexed files") as cursor:
            arguments = (name_text(host, "host"), collection, str(found.folder), last, _PAGE)
            cursor.execute(statements.FILES_BELOW, arguments)
            rows = cursor.fetchall()
        for path, key, content_hash in rows:
            found.indexed += 1
            if _is_gone(path, passed):
                found.paths[key] = path
                if content_hash is not None:
                    found.by_content[bytes(content_hash)] = key
            last = path
        if len(rows) < _PAGE:
            return found


def prune(client: Client, host: str, collection: str, gone: Gone, passed: Passed) -> int:
    """Deletes the items of files that are still gone, but those that another host has.

    Returns how many.
    """
    keys = sorted(key for key, path in gone.paths.items() if _is_gone(path, passed))
    pruned = 0
    for at in range(0, len(keys), _PAGE):
        with client._database.transaction("indexed files") as cursor:
            arguments = (name_text(host, "host"), collection, keys[at : at + _PAGE])
            cursor.execute(statements.PRUNE_FILES, arguments)
            ((count,),) = cursor.fetchall()
        pruned += count
    gone.paths.clear()
    return pruned


def note(client: Client, host: str, collection: str, entries: Iterable[Entry]) -> None:
    """Has files remembered as this host's, those that were found in a folder."""
    noted = [
        (each.key, str(each.file))
        for each in entries
        if each.key and each.found_in and is_text(str(each.file)) and is_text(each.key)
    ]
    if noted:
        keys, paths = map(list, zip(*noted, strict=True))
        with client._database.transaction("indexed files") as cursor:
            arguments = (name_text(host, "host"), collection, keys, paths)
            cursor.execute(statements.NOTE_FILES, arguments)


def _is_gone(path: str, passed: Passed) -> bool:
    """What can't be looked at is not gone, and trouble."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError as error:
        passed.by(path, f"can't be looked at: {error.strerror}")
    return False
