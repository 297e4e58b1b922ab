"""What a caller hands in, made into rows that the SQL functions take.

Only what SQL can't judge is checked here: Python types, references, JSON. The limits on sizes
are in schema pgclip, so that they are the same for every language.
"""

import json
import os
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias
from urllib.parse import unquote_to_bytes

from pgclip.errors import InvalidItem
from pgclip.settings import masked

Kind: TypeAlias = Literal["image", "text"]
Image: TypeAlias = bytes | bytearray | memoryview | Path | str | IO[bytes]

# \u0000 in JSON, not behind an escaped backslash.
_NUL_ESCAPE = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_NAMES = {"image", "text", "key", "collection", "metadata", "priority", "keep_source",
          "merge_metadata"}  # fmt: skip
# No picture may have more inline; a file object that has is not read to its end.
_INLINE_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Submission:
    """One item to submit: `data` inline, or a `source` URL that workers read."""

    kind: Kind
    data: bytes | None
    source: str | None
    key: str | None
    collection: str
    metadata: str  # JSON
    priority: int = 0
    keep_source: bool = True
    merge_metadata: bool = False

    @property
    def size(self) -> int:
        """Bytes that it takes on the way to Postgres, roughly."""
        return len(self.data or b"") + len(self.source or "") + len(self.metadata) + 64

    def __str__(self) -> str:
        if self.key is None:
            return _name(self.kind, self.source)
        return _name(self.kind, self.key) + f" in collection {self.collection!r}"


def image_submission(image: Image, **about: Any) -> Submission:
    """A picture: its bytes, a binary file, a Path or a URL. Raises InvalidItem."""
    what = _name("image", about.get("key"))
    data, source = None, None
    if isinstance(image, Path):
        source = _text(file_url(image), what, "path")
    elif isinstance(image, str):
        if "://" not in image:
            raise InvalidItem(
                f"{what}: {image!r} is a string but not a URL. Pass pathlib.Path({image!r}) for a "
                "file that the worker can read, or the picture's bytes"
            )
        source = _text(image, what, "URL")
    else:
        data = _bytes(image, what)
    return Submission("image", data, source, **_common(what, **about))


def text_submission(text: str, **about: Any) -> Submission:
    """A text. Raises InvalidItem."""
    what = _name("text", about.get("key"))
    if not isinstance(text, str):
        raise InvalidItem(f"{what}: a text is a str, not {type(text).__name__}")
    data = _text(text, what, "text").encode()
    return Submission("text", data, None, **_common(what, **about))


def submission_from(item: Mapping[str, Any], **defaults: Any) -> Submission:
    """An item of submit_many: a mapping with image= or text=, and key, collection, metadata …"""
    if not isinstance(item, Mapping):
        raise InvalidItem(f"an item is a mapping, not {type(item).__name__}")
    what = _name("item", item.get("key"))
    if unknown := set(item) - _NAMES:
        raise InvalidItem(f"{what}: unknown {', '.join(sorted(map(repr, unknown)))}")
    if ("image" in item) == ("text" in item):
        raise InvalidItem(f"{what}: an item has either image or text")
    about = defaults | {name: item[name] for name in item if name not in ("image", "text")}
    if "image" in item:
        return image_submission(item["image"], **about)
    return text_submission(item["text"], **about)


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


def query_text(text: str) -> str:
    """A text to search for. Raises InvalidItem if it is not one."""
    if not isinstance(text, str):
        raise InvalidItem(f"a query is a str, not {type(text).__name__}")
    return _text(text, "query", "text")


def name_text(value: str | Path, name: str) -> str:
    """A key or a collection to look for, as Postgres can take it; of a file its key.

    Raises InvalidItem.
    """
    if isinstance(value, Path):
        value = file_key(value)
    return _text(value, f"{name} {value!r:.100}", name)


def query_image(image: bytes | Path | IO[bytes]) -> bytes:
    """A picture to search with: its bytes, or a file that this process reads."""
    if isinstance(image, Path):
        try:
            return image.read_bytes()
        except OSError as error:
            raise InvalidItem(f"query image {image}: {error.strerror}") from error
    return _bytes(image, "query image")


def metadata_json(metadata: Mapping[str, Any] | None, what: str) -> str:
    """Metadata as JSON that Postgres can store. Raises InvalidItem."""
    if metadata is not None and not isinstance(metadata, Mapping):
        raise InvalidItem(f"{what}: metadata is a mapping, not {type(metadata).__name__}")
    try:
        encoded = json.dumps(dict(metadata or {}), allow_nan=False, ensure_ascii=False)
        encoded.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidItem(f"{what}: the metadata is not JSON: {error}") from error
    if _NUL_ESCAPE.search(encoded):
        raise InvalidItem(f"{what}: the metadata has a NUL character, which Postgres can't store")
    return encoded


def _bytes(image: Any, what: str) -> bytes:
    if callable(read := getattr(image, "read", None)):
        try:
            image = read(_INLINE_BYTES + 1)
        except (OSError, ValueError) as error:
            raise InvalidItem(f"{what}: the file can't be read: {error}") from error
        if not isinstance(image, bytes):
            raise InvalidItem(f"{what}: the file must be opened for binary reading")
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    raise InvalidItem(
        f"{what}: an image is bytes, a binary file, a pathlib.Path or a URL, not "
        f"{type(image).__name__}"
    )


def _name(kind: str, key: object) -> str:
    """For messages; a key may be long and anything."""
    if isinstance(key, str):
        key = masked(key)  # it may be the URL of a picture
    return f"{kind} without a key" if key is None else f"{kind} {key!r:.100}"


def _common(
    what: str,
    *,
    key: str | None = None,
    collection: str = "default",
    metadata: Mapping[str, Any] | None = None,
    priority: int = 0,
    keep_source: bool = True,
    merge_metadata: bool = False,
) -> dict[str, Any]:
    if key is not None:
        _text(key, what, "key")
    _text(collection, what, "collection")
    if not isinstance(priority, int) or not 0 <= priority <= 9:
        raise InvalidItem(f"{what}: the priority is from 0 (first) to 9, not {priority!r}")
    for name, value in (("keep_source", keep_source), ("merge_metadata", merge_metadata)):
        if not isinstance(value, bool):
            raise InvalidItem(f"{what}: {name} is True or False, not {value!r}")
    return {
        "key": key,
        "collection": collection,
        "metadata": metadata_json(metadata, what),
        "priority": priority,
        "keep_source": keep_source,
        "merge_metadata": merge_metadata,
    }


def _text(value: str, what: str, name: str) -> str:
    if not isinstance(value, str):
        raise InvalidItem(f"{what}: the {name} is a str, not {type(value).__name__}")
    if "\0" in value:
        raise InvalidItem(f"{what}: the {name} has a NUL character, which Postgres can't store")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidItem(f"{what}: the {name} is not valid Unicode: {error}") from error
    return value
