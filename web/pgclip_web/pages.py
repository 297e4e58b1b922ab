"""Templates: everything in them is escaped, whatever a key or a text says."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

from anyio.to_thread import run_sync
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.requests import Request
from starlette.responses import HTMLResponse

from pgclip import (
    Client,
    ConnectionFailed,
    Hit,
    InvalidItem,
    ItemInfo,
    ModelMismatch,
    NotFound,
    QueryFailed,
    QueueFull,
    WaitTimeout,
)
from pgclip.errors import sqlstate

T = TypeVar("T")

_TEMPLATES = Environment(
    loader=PackageLoader("pgclip_web"),
    autoescape=select_autoescape(default=True, default_for_string=True),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def status_of(error: Exception | None) -> int:
    """Of HTTP."""
    match error:
        case None:
            return 200
        case InvalidItem() | ModelMismatch():
            return 400
        case NotFound():
            return 404
        case _ if sqlstate(error) == "42501":  # the role may not
            return 403
        case QueryFailed() | ConnectionFailed() | QueueFull() | WaitTimeout():
            return 503
        case _:
            return 500


def render(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A page. Links in it are relative to a folder, so that an application may be mounted."""
    values |= {"read_only": request.app.state.access.read_only}
    return HTMLResponse(_TEMPLATES.get_template(template).render(values), status)


async def waited(request: Request, call: Callable[[], T]) -> T:
    """What a call gives that waits for a worker: on threads of their own, few, so that the other
    pages have theirs."""
    return await run_sync(call, limiter=request.app.state.waiting)


def item_named(request: Request) -> tuple[str, str]:
    """The key and the collection of the item that an address names."""
    params = request.query_params
    return params.get("key", ""), params.get("collection", "default")


def of_item(item: Hit | ItemInfo) -> str:
    """The query string that names an item."""
    return urlencode({"collection": item.collection, "key": item.key})


def text_of(client: Client, key: str, collection: str) -> str | None:
    """A text that is kept."""
    try:
        return client.content(key, collection=collection).decode()
    except NotFound:
        return None


def tables(client: Client) -> dict[str, str]:
    """Collections that a table is kept in step with, and which: what is there is its rows'."""
    return {each.collection: each.table for each in client.tables()}


def items_named(
    client: Client, names: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], ItemInfo]:
    """Items by their collections and keys, as far as they are there."""
    keys = defaultdict[str, list[str]](list)
    for collection, key in names:
        keys[collection].append(key)
    return {
        (name, item.key): item
        for name, some in keys.items()
        for item in client.items(collection=name, keys=some)
    }


def has_original(item: ItemInfo) -> bool:
    """Whether the picture that was submitted is at hand; of one with a source it is there."""
    return item.kind == "image" and item.kept and not item.source


def name_of(key: str) -> str:
    """The last part of a key that is a path or a URL; the whole of another."""
    return Path(key.rstrip("/")).name or key


def labels_of(item: Hit | ItemInfo) -> str:
    """What stands for a picture that can't be seen, beside its name."""
    return ", ".join(label.name for label in getattr(item, "labels", ()))


def said_of(item: Hit | ItemInfo) -> str:
    """What stands for a picture that can't be seen: its labels, and its name."""
    return ": ".join(filter(None, (labels_of(item), name_of(item.key))))


_TEMPLATES.filters |= {
    "of_item": of_item,
    "name_of": name_of,
    "labels_of": labels_of,
    "said_of": said_of,
    "has_original": has_original,
    "compact": lambda value: json.dumps(value, ensure_ascii=False),
    "json": lambda value: json.dumps(value, ensure_ascii=False, indent=2),
}
