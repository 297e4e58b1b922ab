"""What a caller hands in, made into rows that the SQL functions take.

Only what SQL can't judge is checked here: Python types, references, JSON. The limits on sizes are
in schema pgclip, so that they are the same for every language.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias

from pgclip.arguments import flag, metadata_json, text
from pgclip.errors import InvalidItem
from pgclip.items import Kind
from pgclip.keys import file_url
from pgclip.settings import masked
from pgclip.submitting.pictures import Pillow, picture_bytes

Image: TypeAlias = bytes | bytearray | memoryview | Path | str | IO[bytes] | Pillow

_NAMES = {"image", "text", "key", "collection", "metadata", "priority", "keep_source",
          "merge_metadata"}  # fmt: skip


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
    """A picture: bytes, a binary file, a Pillow image, a Path or a URL. Raises InvalidItem."""
    what = _name("image", about.get("key"))
    data, source = None, None
    if isinstance(image, Path):
        source = text(file_url(image), what, "path")
    elif isinstance(image, str):
        if image[:5].lower() == "data:":
            raise InvalidItem(
                f"{what}: {image!r:.40}… is a data: URL. Pass the bytes that it holds: "
                "base64.b64decode(url.partition(',')[2])"
            )
        if "://" not in image:
            raise InvalidItem(
                f"{what}: {image!r:.200} is a string but not a URL. Pass a pathlib.Path of it for "
                "a file that the worker can read, or the picture's bytes"
            )
        source = text(image, what, "URL")
    else:
        data = picture_bytes(image, what)
    return Submission("image", data, source, **_common(what, **about))


def text_submission(body: str, **about: Any) -> Submission:
    """A text. Raises InvalidItem."""
    what = _name("text", about.get("key"))
    if not isinstance(body, str):
        raise InvalidItem(f"{what}: a text is a str, not {type(body).__name__}")
    data = text(body, what, "text").encode()
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
        text(key, what, "key")
    text(collection, what, "collection")
    if not isinstance(priority, int) or isinstance(priority, bool) or not 0 <= priority <= 9:
        raise InvalidItem(f"{what}: the priority is from 0 (first) to 9, not {priority!r}")
    flag(keep_source, f"{what}: keep_source")
    flag(merge_metadata, f"{what}: merge_metadata")
    return {
        "key": key,
        "collection": collection,
        "metadata": metadata_json(metadata, what),
        "priority": priority,
        "keep_source": keep_source,
        "merge_metadata": merge_metadata,
    }
