"""The page of an item, and what can be changed of it."""

import json
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from pgclip import Client, InvalidItem, Like, NotFound
from pgclip.items import Kind
from pgclip_web.pages import item_named, of_item, render

_NEAREST = 12
_KINDS: tuple[Kind, ...] = ("image", "text")


def page(request: Request) -> Response:
    """The picture or the text, what is known of it, and what is near it."""
    client: Client = request.app.state.client
    key, collection = item_named(request)
    item = client.get(key, collection=collection)
    is_found = len(item.vectors) > 0
    return render(
        request,
        "item.html",
        item=item,
        text=_text(client, key, collection) if item.kind == "text" else None,
        link=item.source if (item.source or "").startswith(("https://", "http://")) else None,
        nearest=[(kind, _nearest(client, key, collection, kind)) for kind in _KINDS]
        if is_found
        else [],
        duplicates=client.duplicates_of(key, collection=collection) if is_found else [],
    )


async def change(request: Request) -> Response:
    """Takes the metadata as they are to be from now on."""
    form = await request.form()
    return await run_in_threadpool(_change, request, str(form.get("metadata", "")))


def _change(request: Request, given: str) -> Response:
    client: Client = request.app.state.client
    key, collection = item_named(request)
    try:
        wanted = json.loads(given)
    except ValueError as error:
        raise InvalidItem(f"the metadata are no JSON: {error}. Nothing was changed") from error
    if not isinstance(wanted, dict):
        raise InvalidItem('metadata are a JSON object, such as {"year": 2024}. Nothing was changed')
    item = client.get(key, collection=collection)
    changed = {
        name: value
        for name, value in wanted.items()
        if name not in item.metadata or json.dumps(item.metadata[name]) != json.dumps(value)
    }
    gone = [name for name in item.metadata if name not in wanted]
    # Of what nobody changed here, another's change in the meantime stays.
    client.update_metadata(key, set=changed, remove=gone, collection=collection)
    return RedirectResponse(f"item?{of_item(item)}", 303)


def _nearest(client: Client, key: str, collection: str, kind: Kind) -> list[Any]:
    """Of a kind, in any collection, without the item itself."""
    found = client.search([(Like(key, collection), 1.0)], k=_NEAREST + 1, kind=kind)
    others = [hit for hit in found if (hit.key, hit.collection) != (key, collection)]
    return others[:_NEAREST]


def _text(client: Client, key: str, collection: str) -> str | None:
    """A text that is kept."""
    try:
        return client.content(key, collection=collection).decode()
    except NotFound:
        return None
