"""What a caller hands in, made into rows that the SQL functions take.

Only what SQL can't judge is checked here: Python types, references, JSON. The limits on sizes
are in schema pgclip, so that they are the same for every language.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pgclip.errors import InvalidItem

Kind: TypeAlias = Literal["image", "text"]
Image: TypeAlias = bytes | bytearray | memoryview | Path | str

# \u0000 in JSON, not behind an escaped backslash.
_NUL_ESCAPE = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_NAMES = {"image", "text", "key", "collection", "metadata"}


@dataclass(frozen=True, slots=True)
class Submission:
    """One item to submit: `data` inline, or a `source` URL that workers read."""

    kind: Kind
    data: bytes | None
    source: str | None
    key: str | None
    collection: str
    metadata: str  # JSON

    @property
    def size(self) -> int:
        """Bytes that it takes on the way to Postgres, roughly."""
        return len(self.data or b"") + len(self.source or "") + len(self.metadata) + 64

    def __str__(self) -> str:
        if self.key is None:
            return f"{self.kind} {self.source!r}" if self.source else f"{self.kind} without a key"
        return _name(self.kind, self.key) + f" in collection {self.collection!r}"


def image_submission(
    image: Image, key: str | None, collection: str, metadata: Mapping[str, Any] | None
) -> Submission:
    """A picture: its bytes, a Path or a URL. Raises InvalidItem."""
    what = _name("image", key)
    data, source = None, None
    if isinstance(image, Path):
        source = _text(image.absolute().as_uri(), what, "path")
    elif isinstance(image, str):
        if "://" not in image:
            raise InvalidItem(
                f"{what}: {image!r} is a string but not a URL. Pass pathlib.Path({image!r}) for a "
                "file that the worker can read, or the picture's bytes"
            )
        source = _text(image, what, "URL")
    elif isinstance(image, bytes | bytearray | memoryview):
        data = bytes(image)
    else:
        raise InvalidItem(
            f"{what}: an image is bytes, a pathlib.Path or a URL, not {type(image).__name__}"
        )
    return Submission("image", data, source, *_common(what, key, collection, metadata))


def text_submission(
    text: str, key: str | None, collection: str, metadata: Mapping[str, Any] | None
) -> Submission:
    """A text. Raises InvalidItem."""
    what = _name("text", key)
    if not isinstance(text, str):
        raise InvalidItem(f"{what}: a text is a str, not {type(text).__name__}")
    data = _text(text, what, "text").encode()
    return Submission("text", data, None, *_common(what, key, collection, metadata))


def submission_from(item: Mapping[str, Any]) -> Submission:
    """An item of submit_many: a mapping with image= or text=, and key, collection, metadata."""
    if not isinstance(item, Mapping):
        raise InvalidItem(f"an item is a mapping, not {type(item).__name__}")
    what = _name("item", item.get("key"))
    if unknown := set(item) - _NAMES:
        raise InvalidItem(f"{what}: unknown {', '.join(sorted(map(repr, unknown)))}")
    common = (item.get("key"), item.get("collection", "default"), item.get("metadata"))
    if ("image" in item) == ("text" in item):
        raise InvalidItem(f"{what}: an item has either image or text")
    if "image" in item:
        return image_submission(item["image"], *common)
    return text_submission(item["text"], *common)


def query_text(text: str) -> str:
    """A text to search for. Raises InvalidItem if it is not one."""
    if not isinstance(text, str):
        raise InvalidItem(f"a query is a str, not {type(text).__name__}")
    return _text(text, "query", "text")


def query_image(image: bytes | Path) -> bytes:
    """A picture to search with: its bytes, or a file that this process reads."""
    if isinstance(image, Path):
        try:
            return image.read_bytes()
        except OSError as error:
            raise InvalidItem(f"query image {image}: {error.strerror}") from error
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    raise InvalidItem(f"a query image is bytes or a pathlib.Path, not {type(image).__name__}")


def _name(kind: str, key: object) -> str:
    """For messages; a key may be long and anything."""
    return f"{kind} without a key" if key is None else f"{kind} {key!r:.100}"


def _common(
    what: str, key: str | None, collection: str, metadata: Mapping[str, Any] | None
) -> tuple[str | None, str, str]:
    if key is not None:
        _text(key, what, "key")
    _text(collection, what, "collection")
    if metadata is not None and not isinstance(metadata, Mapping):
        raise InvalidItem(f"{what}: metadata is a mapping, not {type(metadata).__name__}")
    try:
        encoded = json.dumps(dict(metadata or {}), allow_nan=False, ensure_ascii=False)
        encoded.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidItem(f"{what}: the metadata is not JSON: {error}") from error
    if _NUL_ESCAPE.search(encoded):
        raise InvalidItem(f"{what}: the metadata has a NUL character, which Postgres can't store")
    return key, collection, encoded


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
