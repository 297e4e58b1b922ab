"""What a search asks with, and what it may leave out; checked before Postgres is asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

from pgclip.errors import InvalidItem
from pgclip.items import Hit
from pgclip.submitting.submission import Kind, metadata_json, name_text

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Like:
    """An item that is there, as a query or a part of one."""

    key: str
    collection: str = "default"


Query: TypeAlias = str | bytes | Path | IO[bytes] | Like


def narrowed(
    k: int, collection: str | None, kind: Kind | None, filter: Mapping[str, Any] | None
) -> tuple[Any, ...]:
    """What narrows a search, as Postgres takes it. Raises InvalidItem."""
    if not isinstance(k, int):
        raise InvalidItem(f"k must be from 1 to 10000, not {k!r}")
    if collection is not None:
        name_text(collection, "collection")
    return (k, collection, kind, None if filter is None else metadata_json(filter, "filter"))


def search_options(
    k: int,
    collection: str | None,
    kind: Kind | None,
    filter: Mapping[str, Any] | None,
    min_score: float | None,
    min_relevance: float | None,
    exact: bool,
    recall: float | None,
    after: Hit | None,
) -> tuple[Any, ...]:
    """What searches have in common, in the order of statements._OPTIONS."""
    minima = (None if least is None else float(least) for least in (min_score, min_relevance))
    page = (None, None) if after is None else (after.score, after.item_id)
    share = None if recall is None else float(recall)
    return (*narrowed(k, collection, kind, filter), *minima, exact, share, *page)


def check_item(item: Like) -> None:
    """Raises InvalidItem unless Postgres can look for it."""
    name_text(item.key, "key")
    name_text(item.collection, "collection")


def weighted_pairs(parts: Sequence[tuple[Query, float]]) -> Sequence[tuple[Query, float]]:
    """Raises InvalidItem unless they are queries with their weights."""
    if not isinstance(parts, Sequence):
        raise InvalidItem(f"a query is a str, not {type(parts).__name__}")
    if any(isinstance(part, str) for part in parts):  # one of two characters is a pair, too
        raise InvalidItem('weighted queries are pairs such as ("beach", 1.0)')
    try:
        pairs = [(query, float(weight)) for query, weight in parts]
    except (TypeError, ValueError):
        raise InvalidItem('weighted queries are pairs such as ("beach", 1.0)') from None
    if not pairs:
        raise InvalidItem("there is no query to search for")
    return pairs


def vector_numbers(vector: "Sequence[float] | np.ndarray[Any, Any]") -> list[float]:
    """A vector of shape (dim,) as numbers for Postgres. Raises InvalidItem."""
    try:
        return [float(value) for value in vector]
    except (TypeError, ValueError):
        raise InvalidItem("a vector is a sequence of numbers, of shape (dim,)") from None


def search_for(query: str | bytes) -> str:
    """For messages; a query may be long."""
    return f"search for {query!r:.100}" if isinstance(query, str) else "search for an image"
