"""What a search asks with, and what it may leave out; checked before Postgres is asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

from pgclip.arguments import (
    collection_name,
    filter_json,
    flag,
    kind_of,
    name_text,
    number,
    text,
)
from pgclip.errors import InvalidItem
from pgclip.items import Hit
from pgclip.submitting.pictures import Pillow, query_image

if TYPE_CHECKING:
    import numpy as np

Picture: TypeAlias = bytes | Path | IO[bytes] | Pillow


@dataclass(frozen=True, slots=True)
class Like:
    """An item that is there, as a query or a part of one."""

    key: str | Path
    collection: str = "default"


Query: TypeAlias = str | Picture | Like


def narrowed(k: object, collection: object, kind: object, filter: object) -> tuple[Any, ...]:
    """What narrows a search, as Postgres takes it. Raises InvalidItem."""
    if not isinstance(k, int):
        raise InvalidItem(f"k must be from 1 to 10000, not {k!r:.100}")
    return (k, collection_name(collection), kind_of(kind), filter_json(filter))


def search_options(
    k: int,
    collection: str | None,
    kind: str | None,
    filter: Mapping[str, Any] | None,
    min_score: float | None,
    min_relevance: float | None,
    exact: bool,
    recall: float | None,
    after: Hit | None,
    model: str | None,
) -> tuple[Any, ...]:
    """What searches have in common, in the order of statements._OPTIONS. Raises InvalidItem."""
    if after is not None and not isinstance(after, Hit):
        raise InvalidItem(f"after is the last hit of a page, not {type(after).__name__}")
    return (
        *narrowed(k, collection, kind, filter),
        number(min_score, "min_score"),
        number(min_relevance, "min_relevance"),
        flag(exact, "exact"),
        number(recall, "recall"),
        *((None, None) if after is None else (after.score, after.item_id)),
        None if model is None else name_text(model, "model"),
    )


def item_of(like: str | Path | Like, collection: str = "default") -> tuple[str, str]:
    """Key and collection of an item to look for. Raises InvalidItem."""
    key, within = (like.key, like.collection) if isinstance(like, Like) else (like, collection)
    return name_text(key, "key"), name_text(within, "collection")


def text_or_picture(query: object, image: object, what: str) -> str | bytes:
    """The one of both that is given, as Postgres takes it. Raises InvalidItem."""
    if (query is None) == (image is None):
        raise InvalidItem(f"{what} one of: a text, image=…")
    return query_text(query) if query is not None else query_image(image)


def query_text(query: object) -> str:
    """A text to search for. Raises InvalidItem if it is none."""
    if not isinstance(query, str):
        advice = "; a picture goes as image=…" if is_picture(query) else ""
        raise InvalidItem(f"a query is a str, not {type(query).__name__}{advice}")
    return text(query, "query", "text")


def is_picture(query: object) -> bool:
    """Whether it is what image= takes."""
    return (
        isinstance(query, bytes | bytearray | memoryview | Path)
        or callable(getattr(query, "read", None))
        or callable(getattr(query, "save", None))
    )


def weighted_parts(parts: object) -> list[tuple[str | bytes | tuple[str, str], float]]:
    """Texts, pictures and items (key, collection) with their weights. Raises InvalidItem."""
    if is_picture(parts) or not isinstance(parts, Sequence):
        query_text(parts)
    advice = 'weighted queries are pairs such as ("beach", 1.0)'
    pairs: list[tuple[str | bytes | tuple[str, str], float]] = []
    for part in parts:  # type: ignore[attr-defined]
        if isinstance(part, str) or not isinstance(part, Sequence) or len(part) != 2:
            raise InvalidItem(f"{advice}, not {part!r:.100}")
        query, weight = part[0], number(part[1], f"{advice}: a weight")
        if weight is None:
            raise InvalidItem(f"{advice}, not {part!r:.100}")
        if isinstance(query, Like):
            pairs.append((item_of(query), weight))
        else:
            pairs.append((query_image(query) if is_picture(query) else query_text(query), weight))
    if not pairs:
        raise InvalidItem("there is no query to search for")
    return pairs


def vector_numbers(vector: "Sequence[float] | np.ndarray[Any, Any]") -> list[float]:
    """A vector of shape (dim,) as numbers for Postgres. Raises InvalidItem."""
    try:
        if not isinstance(vector, str | bytes):
            return [float(value) for value in vector]
    except (TypeError, ValueError, OverflowError):
        pass
    raise InvalidItem("a vector is a sequence of numbers, of shape (dim,)")


def search_for(query: str | bytes) -> str:
    """For messages; a query may be long."""
    return f"search for {query!r:.100}" if isinstance(query, str) else "search for an image"
