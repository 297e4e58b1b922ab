"""Files that were indexed below a folder of this host and are not there any more."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pgclip import statements
from pgclip.cli.indexing.entries import Entry
from pgclip.client import Client
from pgclip.submitting.submission import name_text

_PAGE = 1000
# Of what was indexed below a folder, the share that may be taken away without being asked for.
_MOST = 0.2


@dataclass
class Gone:
    """Below one folder: how many files were indexed, and the keys of those that are gone.

    `by_content`: by the SHA-256 of their bytes, where that is known.
    """

    folder: Path
    indexed: int = 0
    keys: set[str] = field(default_factory=set)
    by_content: dict[bytes, str] = field(default_factory=dict)

    @property
    def is_much(self) -> bool:
        """More than somebody deletes by hand: a disk that is not mounted, a folder that moved."""
        return len(self.keys) > _MOST * self.indexed

    def renamed_to(self, content_hash: bytes | None) -> str | None:
        """The key of a file that is gone and had this content; it counts as found then."""
        key = None if content_hash is None else self.by_content.pop(content_hash, None)
        self.keys.discard(key or "")
        return key


def gone_below(client: Client, host: str, collection: str, folder: Path) -> Gone:
    """Looks at every file that this host has indexed below a folder."""
    found = Gone(Path(os.path.abspath(folder)))
    last = ""
    while True:
        with client._database.transaction("indexed files") as cursor:
            arguments = (host, collection, str(found.folder), last, _PAGE)
            cursor.execute(statements.FILES_BELOW, arguments)
            rows = cursor.fetchall()
        for path, key, content_hash in rows:
            found.indexed += 1
            if not os.path.lexists(path):
                found.keys.add(key)
                if content_hash is not None:
                    found.by_content[bytes(content_hash)] = key
            last = path
        if len(rows) < _PAGE:
            return found


def note(client: Client, host: str, collection: str, entries: Iterable[Entry]) -> None:
    """Has files remembered as this host's, those that were found in a folder."""
    noted = [
        (each.key, str(each.file))
        for each in entries
        if each.key and each.found_in and _is_text(str(each.file)) and _is_text(each.key)
    ]
    if noted:
        keys, paths = map(list, zip(*noted, strict=True))
        with client._database.transaction("indexed files") as cursor:
            cursor.execute(
                statements.NOTE_FILES, (name_text(host, "host"), collection, keys, paths)
            )


def _is_text(path: str) -> bool:
    return path.encode(errors="ignore").decode() == path
