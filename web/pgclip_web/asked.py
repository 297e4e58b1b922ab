"""A search as the address bar has it: whoever gets the link sees the same."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self
from urllib.parse import urlencode

from starlette.datastructures import QueryParams

from pgclip import InvalidItem, Like
from pgclip.items import Kind

KINDS: tuple[Kind, ...] = ("image", "text")
_MOST_LIKES = 16  # each is in the links of each hit


class Liked(NamedTuple):
    """An item that hits should be like, or unlike where the weight is below 0."""

    weight: float
    collection: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is looked for, and among what.

    `picture` is the SHA-256, in hex, of one that was dropped onto the page; `where` is a filter
    (docs/search.md) as JSON.
    """

    words: str = ""
    picture: str = ""
    likes: tuple[Liked, ...] = ()
    collection: str = ""
    kind: Kind | None = None
    label: str = ""
    where: str = ""
    hybrid: bool = False

    @classmethod
    def from_params(cls, params: QueryParams) -> Self:
        """Raises InvalidItem for an address that makes no sense."""
        if len(params.getlist("like")) > _MOST_LIKES:
            raise InvalidItem(f"a search minds {_MOST_LIKES} items at most")
        kind = next((each for each in KINDS if each == params.get("kind")), None)
        return cls(
            words=params.get("q", "").strip(),
            picture=params.get("picture", ""),
            likes=tuple(_liked(text) for text in params.getlist("like")),
            collection=params.get("collection", ""),
            kind=kind,
            label=params.get("label", ""),
            where=params.get("filter", "").strip(),
            hybrid="hybrid" in params,
        )

    @property
    def is_nothing(self) -> bool:
        """Whether nothing is looked for; then items are shown as they come."""
        return not (self.words or self.picture or self.likes)

    @property
    def is_narrowed(self) -> bool:
        """Whether not everything is searched, or not in the usual way."""
        return bool(self.collection or self.kind or self.label or self.where or self.hybrid)

    def address(self, **changes: Any) -> str:
        """The query string of this search, or of one that differs in some of the fields."""
        asked = replace(self, **changes)
        pairs = [
            ("q", asked.words),
            ("picture", asked.picture),
            *(("like", json.dumps(like, ensure_ascii=False)) for like in asked.likes),
            ("collection", asked.collection),
            ("kind", asked.kind or ""),
            ("label", asked.label),
            ("filter", asked.where),
            ("hybrid", "1" if asked.hybrid else ""),
        ]
        return "?" + urlencode([(name, value) for name, value in pairs if value])

    def with_like(self, weight: float, collection: str, key: str) -> str:
        """The address of the search that minds one more item, or minds it otherwise."""
        others = tuple(like for like in self.likes if like[1:] != (collection, key))
        return self.address(likes=(*others, Liked(weight, collection, key)))

    def without_like(self, like: Liked) -> str:
        """The address of the search that does not mind this item."""
        return self.address(likes=tuple(each for each in self.likes if each != like))

    def filter(self) -> dict[str, Any] | None:
        """The filter with the label. Raises InvalidItem."""
        given = json_of(self.where, "the filter") if self.where else {}
        if not isinstance(given, dict):
            raise InvalidItem('a filter is a JSON object, such as {"year": {"ge": 2024}}')
        if self.label:
            given = {"$and": [given, {"$label": self.label}]} if given else {"$label": self.label}
        return given or None

    def queries(self, picture: bytes | None) -> Sequence[tuple[Any, float]]:
        """What to ask, each with its weight."""
        first = [(given, 1.0) for given in (self.words, picture) if given]
        return [*first, *((Like(like.key, like.collection), like.weight) for like in self.likes)]


def json_of(text: str, what: str, moreover: str = "") -> Any:
    """What JSON says. Raises InvalidItem, also for what is nested deeper than can be read."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidItem(f"{what} is no JSON: {error}. {moreover}".rstrip()) from error


def _liked(text: str) -> Liked:
    try:
        weight, collection, key = json_of(text, "like")
        liked = Liked(float(weight), collection, key)
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidItem(f"like is not [weight, collection, key]: {text!r:.200}") from error
    if not (isinstance(collection, str) and isinstance(key, str)):
        raise InvalidItem(f"like is not [weight, collection, key]: {text!r:.200}")
    return liked
