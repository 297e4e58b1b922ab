"""What is among the hits: labels, decisions, fields of the metadata, with counts to narrow by."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from pgclip import Hit, ItemInfo
from pgclip_web.asked import Asked
from pgclip_web.pages import render
from pgclip_web.search import found

_AMONG = 200  # the best hits, or the first items
_VALUES = 12  # of a field that are shown, the most frequent
_LONGEST = 80  # characters of a value that is shown
Condition = dict[str, Any]
Value = str | bool | int | float


class Facet(NamedTuple):
    """Something that hits differ in: each value in words, how many have it, and the search of
    these."""

    name: str
    values: list[tuple[str, int, str]]


def page(request: Request) -> Response:
    """A part of the page of a search, which asks for it when the hits are there."""
    asked = Asked.from_params(request.query_params)
    items = found(request, asked, _AMONG)
    facets = [*_labels(asked, items), *_fields(asked, items)]
    return render(request, "facets.html", facets=facets, among=len(items), asked=asked)


def _labels(asked: Asked, items: Sequence[Hit | ItemInfo]) -> Iterator[Facet]:
    """By set; where something decides of a label, by what is decided."""
    sets = defaultdict[str, Counter[tuple[str, str | None]]](Counter)
    for item in items:
        for label in getattr(item, "labels", ()):
            sets[label.set][label.name, label.decision] += 1
    for name, counts in sorted(sets.items()):
        yield Facet(f"labels of {name}", [
            (f"{label}: {decision}" if decision else label, count,
             asked.narrowed(_label(name, label, decision)))
            for (label, decision), count in counts.most_common(_VALUES)
        ])  # fmt: skip


def _label(label_set: str, label: str, decision: str | None) -> Condition:
    if decision:
        return {"$decision": {label_set: {label: decision}}}
    return {"$label": {"name": label, "set": label_set}}


def _fields(asked: Asked, items: Sequence[Hit | ItemInfo]) -> Iterator[Facet]:
    """Of fields in which several items are alike, and not all."""
    fields = defaultdict[str, Counter[tuple[bool, Value]]](Counter)
    for item in items:
        for name, given in item.metadata.items():
            if name and "." not in name and not name.startswith("$"):
                fields[name].update(set(_values(given)))
    for name, counts in sorted(fields.items()):
        most = [each for each in counts.most_common(_VALUES) if each[1] < len(items)]
        if most and most[0][1] > 1:
            yield Facet(name, [
                (str(value).lower() if isinstance(value, bool) else str(value), count,
                 asked.narrowed({name: {"contains" if is_of_list else "eq": value}}))
                for (is_of_list, value), count in most
            ])  # fmt: skip


def _values(given: Any) -> Iterable[tuple[bool, Value]]:
    """Those by which one can narrow; with whether it stands in a list."""
    if isinstance(given, list):
        return [(True, each) for each in given if _is_shown(each)]
    return [(False, given)] if _is_shown(given) else []


def _is_shown(value: Any) -> bool:
    return isinstance(value, bool | int | float) or (
        isinstance(value, str) and 0 < len(value) <= _LONGEST
    )
