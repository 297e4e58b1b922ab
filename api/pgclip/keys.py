"""What files and URLs go by, as keys of items."""

import os
import re
import unicodedata
from pathlib import Path
from urllib.parse import unquote_to_bytes


def file_url(path: Path) -> str:
    """A file's URL, without "..": what is not UTF-8 in its name is percent-encoded."""
    return Path(os.path.abspath(path)).as_uri()


def file_key(path: Path) -> str:
    """What a file goes by as an item, however it is spelled: its path, composed (NFC).

    If the path is not UTF-8, its URL. As pgclip._file_key has it of URLs.
    """
    whole = os.path.abspath(path)
    try:
        whole.encode()
    except UnicodeEncodeError:
        return file_url(path)
    return unicodedata.normalize("NFC", whole)


def url_key(url: str) -> str:
    """What goes by a URL; a file:///… by its path, as pgclip._file_key has it."""
    if not url.startswith("file:///"):
        return url
    path = unquote_to_bytes(re.split("[?#]", url.removeprefix("file://"))[0])
    try:
        return unicodedata.normalize("NFC", path.decode())
    except UnicodeDecodeError:
        return url
