"""The page of a search: what is asked, what narrows it, hits, and more of them."""

from collections.abc import Sequence
from itertools import islice
from typing import Any

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from pgclip import Client, Hit, InvalidItem, ItemInfo, NotFound
from pgclip_web.asked import Asked
from pgclip_web.pages import render, status_of

_AT_ONCE = 30
_LIKE, _UNLIKE = 0.5, -0.5


def page(request: Request) -> Response:
    """The whole page."""
    client: Client = request.app.state.client
    try:
        found, trouble = _found(request), None
    except (InvalidItem, NotFound) as error:  # said where it can be mended
        found, trouble = _nothing(request), error
    return render(
        request,
        "search.html",
        status_of(trouble),
        trouble=str(trouble or ""),
        collections=client.collections(),
        labels=[(each.name, each.labels) for each in client.label_sets() if each.active],
        **found,
    )


def hits(request: Request) -> Response:
    """The hits after those that are shown, to be appended to them."""
    return render(request, "hits.html", **_found(request))


def _found(request: Request) -> dict[str, Any]:
    asked = Asked.from_params(request.query_params)
    found = _first_items(request, asked) if asked.is_nothing else _hits(request, asked)
    shown = found[:_AT_ONCE]
    last = shown[-1] if len(found) > _AT_ONCE else None
    return {
        "asked": asked,
        "items": shown,
        "like": _LIKE,
        "unlike": _UNLIKE,
        "more": f"{asked.address()}&after={last.score!r},{last.item_id}"
        if isinstance(last, Hit)
        else None,
    }


def _nothing(request: Request) -> dict[str, Any]:
    """The page of a search that could not be made; also of one whose address makes no sense."""
    try:
        asked = Asked.from_params(request.query_params)
    except InvalidItem:
        asked = Asked(words=request.query_params.get("q", ""))
    return {"asked": asked, "items": [], "like": _LIKE, "unlike": _UNLIKE, "more": None}


def _hits(request: Request, asked: Asked) -> Sequence[Hit]:
    client: Client = request.app.state.client
    narrowed: dict[str, Any] = {
        "collection": asked.collection or None,
        "kind": asked.kind,
        "filter": asked.filter(),
    }
    if asked.hybrid and asked.words and not (asked.likes or asked.picture):
        # Two rankings are fused as far as they go; there is no hit after which to go on.
        return client.hybrid(asked.words, k=_AT_ONCE, **narrowed)
    picture = request.app.state.dropped.get(asked.picture) if asked.picture else None
    return client.search(
        asked.queries(picture), k=_AT_ONCE + 1, after=_after(request.query_params), **narrowed
    )


def _first_items(request: Request, asked: Asked) -> Sequence[ItemInfo]:
    """What there is, where nothing is looked for yet."""
    client: Client = request.app.state.client
    found = client.items(collection=asked.collection or None, kind=asked.kind)
    return list(islice(found, _AT_ONCE))


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
