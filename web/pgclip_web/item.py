"""The page of an item, and what can be changed of it."""

import json
from typing import Any
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from pgclip import Client, InvalidItem, Like
from pgclip.items import Kind
from pgclip_web.asked import KINDS, Asked, json_of
from pgclip_web.pages import item_named, render, tables, text_of

_NEAREST = 12


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
        text=text_of(client, key, collection) if item.kind == "text" else None,
        link=item.source if (item.source or "").startswith(("https://", "http://")) else None,
        nearest=[(kind, _nearest(client, key, collection, kind)) for kind in KINDS]
        if is_found
        else [],
        said=client.judgements_of(key, collection=collection),
        sets=[each for each in client.label_sets() if each.applies_to in ("both", item.kind)],
        decisions=client.decisions_of(key, collection=collection),
        duplicates=client.duplicates_of(key, collection=collection) if is_found else [],
    )


async def change(request: Request) -> Response:
    """Takes the metadata as they are to be from now on."""
    form = await request.form()
    given = (str(form.get(name, "")) for name in ("shown", "metadata"))
    return await run_in_threadpool(_change, request, *given)


def _change(request: Request, shown: str, given: str) -> Response:
    """Sets and removes what differs from what the page showed: another's change since then, of
    something else, stays."""
    client: Client = request.app.state.client
    key, collection = item_named(request)
    before, wanted = _metadata(shown), _metadata(given)
    changed = {
        name: value
        for name, value in wanted.items()
        if name not in before or json.dumps(before[name]) != json.dumps(value)
    }
    gone = [name for name in before if name not in wanted]
    client.update_metadata(key, set=changed, remove=gone, collection=collection)
    return RedirectResponse(f"item?{urlencode({'collection': collection, 'key': key})}", 303)


def delete(request: Request) -> Response:
    """Deletes it; leads to what else is in its collection."""
    client: Client = request.app.state.client
    key, collection = item_named(request)
    if table := tables(client).get(collection):
        raise InvalidItem(f"it is a row's of table {table}: delete that")
    client.delete(key, collection=collection)
    return RedirectResponse(f"./{Asked(collection=collection).address()}", 303)


def _metadata(text: str) -> dict[str, Any]:
    found = json_of(text, "the metadata", "Nothing was changed")
    if not isinstance(found, dict):
        raise InvalidItem('metadata are a JSON object, such as {"year": 2024}. Nothing was changed')
    return found


def _nearest(client: Client, key: str, collection: str, kind: Kind) -> list[Any]:
    """Of a kind, in any collection, without the item itself."""
    found = client.search([(Like(key, collection), 1.0)], k=_NEAREST + 1, kind=kind)
    others = [hit for hit in found if (hit.key, hit.collection) != (key, collection)]
    return others[:_NEAREST]
