"""The page of a search: what is asked, what narrows it, hits, and more of them."""

from collections.abc import Sequence
from itertools import islice
from typing import Any

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from pgclip import Client, Hit, InvalidItem, ItemInfo, NotFound
from pgclip_web.asked import AGES, Asked
from pgclip_web.pages import render, status_of

_AT_ONCE = 30
_MOST_SKIPPED = 10_000  # what comes later is found by looking for something
_LIKE, _UNLIKE = 0.5, -0.5


def page(request: Request) -> Response:
    """The whole page."""
    client: Client = request.app.state.client
    try:
        shown, trouble = _shown(request), None
    except (InvalidItem, NotFound) as error:  # said where it can be mended
        shown, trouble = _nothing(request), error
    return render(
        request,
        "search.html",
        status_of(trouble),
        trouble=str(trouble or ""),
        collections=client.collections(),
        labels=[(each.name, each.labels) for each in client.label_sets() if each.active],
        ages=AGES,
        **shown,
    )


def hits(request: Request) -> Response:
    """The hits after those that are shown, to be appended to them."""
    return render(request, "hits.html", **_shown(request))


def found(request: Request, asked: Asked, most: int) -> Sequence[Hit | ItemInfo]:
    """The best hits of a search, from the one on that its address says; the first items where
    nothing is looked for. Raises InvalidItem, NotFound."""
    client: Client = request.app.state.client
    narrowed: dict[str, Any] = {
        "collection": asked.collection or None,
        "kind": asked.kind,
        "filter": asked.filter(),
    }
    if asked.is_nothing:
        skipped = _skipped(request.query_params)
        return list(islice(client.items(**narrowed), skipped, skipped + most))
    if asked.is_hybrid:
        # Two rankings are fused as far as they go; there is no hit after which to go on.
        return client.hybrid(asked.words, k=most, **narrowed)
    picture = request.app.state.dropped.get(asked.picture) if asked.picture else None
    return client.search(
        asked.queries(picture),
        k=most,
        after=_after(request.query_params),
        min_relevance=asked.relevance / 100 if asked.relevance else None,
        **narrowed,
    )


def _shown(request: Request) -> dict[str, Any]:
    asked = Asked.from_params(request.query_params)
    items = found(request, asked, _AT_ONCE + 1)
    shown = items[:_AT_ONCE]
    return {
        "asked": asked,
        "items": shown,
        "like": _LIKE,
        "unlike": _UNLIKE,
        "more": _more(request, asked, shown[-1]) if len(items) > _AT_ONCE else None,
    }


def _more(request: Request, asked: Asked, last: Hit | ItemInfo) -> str | None:
    """The address of what comes after what is shown."""
    if isinstance(last, Hit):
        after = f"after={last.score!r},{last.item_id}"
        return None if asked.is_hybrid else f"{asked.address()}&{after}"
    skipped = _skipped(request.query_params) + _AT_ONCE
    return f"{asked.address()}&skip={skipped}" if skipped < _MOST_SKIPPED else None


def _skipped(params: QueryParams) -> int:
    """How many items were shown before, where nothing is looked for."""
    given = params.get("skip", "")
    return min(int(given), _MOST_SKIPPED) if given.isdecimal() and len(given) < 10 else 0


def _nothing(request: Request) -> dict[str, Any]:
    """The page of a search that could not be made; also of one whose address makes no sense."""
    try:
        asked = Asked.from_params(request.query_params)
    except InvalidItem:
        asked = Asked(words=request.query_params.get("q", ""))
    return {"asked": asked, "items": [], "like": _LIKE, "unlike": _UNLIKE, "more": None}


def _after(params: QueryParams) -> Hit | None:
    """The hit that was shown last, as far as a search minds it: its score and its id."""
    if "after" not in params:
        return None
    score, _, item_id = params["after"].partition(",")
    try:
        last = Hit(int(item_id), "", float(score), "", "image", None, {}, ())
    except ValueError as error:
        raise InvalidItem(f"after is not SCORE,ID: {params['after']!r:.100}") from error
    if not (0 <= last.item_id < 2**63 and -1.1 < last.score < 1.1):
        raise InvalidItem(f"after is not SCORE,ID: {params['after']!r:.100}")
    return last
