"""A search as the address bar has it: whoever gets the link sees the same."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self
from urllib.parse import urlencode

from starlette.datastructures import QueryParams

from pgclip import InvalidItem, Like
from pgclip.items import Kind

KINDS: tuple[Kind, ...] = ("image", "text")
AGES = ("1 day", "7 days", "30 days", "365 days")
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
    (docs/search.md) as JSON; `within` is how long ago items may have come, one of AGES; `relevance`
    is the least, in percent.
    """

    words: str = ""
    picture: str = ""
    likes: tuple[Liked, ...] = ()
    collection: str = ""
    kind: Kind | None = None
    label: str = ""
    where: str = ""
    within: str = ""
    relevance: int = 0
    hybrid: bool = False

    @classmethod
    def from_params(cls, params: QueryParams) -> Self:
        """Raises InvalidItem for an address that makes no sense."""
        if len(params.getlist("like")) > _MOST_LIKES:
            raise InvalidItem(f"a search minds {_MOST_LIKES} items at most")
        kind = next((each for each in KINDS if each == params.get("kind")), None)
        relevance = params.get("relevance", "")
        return cls(
            words=params.get("q", "").strip(),
            picture=params.get("picture", ""),
            likes=tuple(_liked(text) for text in params.getlist("like")),
            collection=params.get("collection", ""),
            kind=kind,
            label=params.get("label", ""),
            where=params.get("filter", "").strip(),
            within=params["within"] if params.get("within") in AGES else "",
            relevance=min(int(relevance), 100)
            if relevance.isdecimal() and len(relevance) < 4
            else 0,
            hybrid="hybrid" in params,
        )

    @property
    def is_nothing(self) -> bool:
        """Whether nothing is looked for; then items are shown as they come."""
        return not (self.words or self.picture or self.likes)

    @property
    def is_hybrid(self) -> bool:
        """Whether words of texts count, which they do where nothing but words is looked for."""
        return self.hybrid and bool(self.words) and not (self.likes or self.picture)

    @property
    def is_narrowed(self) -> bool:
        """Whether not everything is searched, or not in the usual way."""
        fields = (self.collection, self.kind, self.label, self.where, self.within, self.relevance)
        return any(fields) or self.hybrid

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
            ("within", asked.within),
            ("relevance", str(asked.relevance or "")),
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

    def narrowed(self, condition: dict[str, Any]) -> str:
        """The address of the search that minds one more condition. Raises InvalidItem."""
        given = self._given()
        both = {"$and": [given, condition]} if condition.keys() & given else {**given, **condition}
        return self.address(where=json.dumps(both, ensure_ascii=False))

    def conditions(self) -> list[tuple[str, str]]:
        """Each of the filter in words, and the address of the search without it; none of a filter
        that makes no sense."""
        try:
            given = self._given()
        except InvalidItem:
            return []
        found = []
        for name in given:
            rest = {other: value for other, value in given.items() if other != name}
            where = json.dumps(rest, ensure_ascii=False) if rest else ""
            found.append((_in_words(name, given[name]), self.address(where=where)))
        return found

    def filter(self) -> dict[str, Any] | None:
        """The filter with the label and the time. Raises InvalidItem."""
        given = self._given()
        if self.label:
            given = {"$and": [given, {"$label": self.label}]} if given else {"$label": self.label}
        if self.within:
            recent = {"$created_at": {"within": self.within}}
            given = {"$and": [given, recent]} if given else recent
        return given or None

    def _given(self) -> dict[str, Any]:
        given = json_of(self.where, "the filter") if self.where else {}
        if not isinstance(given, dict):
            raise InvalidItem('a filter is a JSON object, such as {"year": {"ge": 2024}}')
        return given

    def queries(self, picture: bytes | None) -> Sequence[tuple[Any, float]]:
        """What to ask, each with its weight."""
        first = [(given, 1.0) for given in (self.words, picture) if given]
        return [*first, *((Like(like.key, like.collection), like.weight) for like in self.likes)]


def _in_words(name: str, wanted: Any) -> str:
    """A condition as a person reads it, if it is one of the usual ones."""
    match name, wanted:
        case "$label", {"name": label, "set": label_set}:
            return f"{label}, of {label_set}"
        case "$decision", dict():
            return ", ".join(_leaves(wanted))
        case _, {"eq": value} | {"contains": value} if len(wanted) == 1:
            return f"{name}: {value}"
        case _:
            return json.dumps({name: wanted}, ensure_ascii=False)[1:-1]


def _leaves(tree: dict[str, Any]) -> Iterator[str]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value)
        else:
            yield f"{name}: {value}"


def json_of(text: str, what: str, moreover: str = "") -> Any:
    """What JSON says. Raises InvalidItem, also for what is nested deeper than can be read, and for
    half a character, which can't be written again."""
    try:
        found = json.loads(text)
        json.dumps(found, ensure_ascii=False).encode()
        return found
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
