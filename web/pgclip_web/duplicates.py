"""The page of duplicates: groups side by side, which of each to keep, and what would be deleted."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from pgclip import Client, Duplicate, InvalidItem, ItemInfo
from pgclip_web.asked import json_of
from pgclip_web.looking import Look, Wanted
from pgclip_web.pages import items_named, render, tables, text_of
from pgclip_web.uploads import fields

_AT_ONCE = 20  # groups on a page
_SHOWN_CHARACTERS = 500  # of a text


class Member(NamedTuple):
    """One of a group. `mark` names it and its content, so that no other is deleted instead."""

    duplicate: Duplicate
    item: ItemInfo
    text: str
    size: int | None
    is_kept: bool
    mark: str


def page(request: Request) -> Response:
    """What to look for; and, once it was, groups."""
    client: Client = request.app.state.client
    wanted = Wanted.from_params(request.query_params)
    look: Look | None = request.app.state.looks.of(wanted)
    # Once: while the page is made the look may end.
    found, error = (look.groups, look.error) if look else (None, None)
    groups = found or []
    first = min(_whole(request.query_params.get("first", "0")), max(0, len(groups) - 1))
    first -= first % _AT_ONCE
    shown = groups[first : first + _AT_ONCE]
    return render(
        request,
        "duplicates.html",
        wanted=wanted,
        collections=client.collections(),
        look=look,
        error=error,
        is_looking=look is not None and found is None and error is None,
        count=len(groups),
        first=first,
        at_once=_AT_ONCE,
        groups=_members(client, shown),
    )


async def look(request: Request) -> Response:
    """Begins to look for groups."""
    form = await request.form()
    wanted = Wanted.from_params(form)
    request.app.state.looks.begin(wanted, request.app.state.client)
    return RedirectResponse(f"duplicates{wanted.address()}", 303)


async def delete(request: Request) -> Response:
    """Shows what would be deleted; deletes it when that was seen."""
    return await run_in_threadpool(_delete, request, await fields(request))


def _delete(request: Request, form: FormData) -> Response:
    client: Client = request.app.state.client
    groups = [_marks(str(text)) for text in form.getlist("group")]
    kept = {str(mark) for mark in form.getlist("keep")}
    of_tables = tables(client)
    deleted: list[ItemInfo] = []
    left: list[tuple[str, str]] = []
    there = _there(client, [mark for group in groups for mark in group])
    for group in groups:
        if kept.isdisjoint(group):  # of which nothing is kept nothing is deleted
            continue
        doomed = [mark for mark in group if mark not in kept]
        gone, why = _doomed(
            client,
            [there[mark] for mark in group if mark in kept & there.keys()],
            [there[mark] for mark in doomed if mark in there],
            of_tables,
            "sure" in form,
        )
        deleted += gone
        left += [(json.loads(mark)[1], why) for mark in doomed if there.get(mark) not in gone]
    return render(
        request,
        "deletions.html",
        form=[(name, str(value)) for name, value in form.multi_items() if name != "sure"],
        is_done="sure" in form,
        wanted=Wanted.from_params(form),
        deleted=[(item, "" if "sure" in form else _begin(client, item)) for item in deleted],
        left=left,
    )


def _doomed(
    client: Client,
    kept: list[ItemInfo],
    others: list[ItemInfo],
    of_tables: dict[str, str],
    is_sure: bool,
) -> tuple[list[ItemInfo], str]:
    """Of a group what goes, or would go, and why the others stay."""
    if not kept:
        return [], "what was to be kept is gone or has changed"
    free = [item for item in others if item.collection not in of_tables]
    if is_sure:
        gone = set(client.delete_duplicates(kept, free))
        free = [item for item in free if (item.collection, item.key) in gone]
    if len(free) < len(others) and {item.collection for item in others} & of_tables.keys():
        return free, "it is a row's, which has to be deleted in its table"
    return free, "it is gone or has changed"


def _members(client: Client, groups: Sequence[Sequence[Duplicate]]) -> list[list[Member]]:
    """Groups of which at least two are still there, with what tells which one to keep."""
    found = []
    sizes = client.content_sizes(each.item_id for group in groups for each in group)
    items = items_named(client, ((each.collection, each.key) for group in groups for each in group))
    for group in groups:
        there = [each for each in group if (each.collection, each.key) in items]
        if len(there) < 2:
            continue
        best = max(there, key=lambda each: _worth(items[each.collection, each.key],
                                                  sizes.get(each.item_id)))  # fmt: skip
        found.append([
            Member(each, item, _begin(client, item), sizes.get(each.item_id), each is best,
                   _mark(item))
            for each in there
            for item in [items[each.collection, each.key]]
        ])  # fmt: skip
    return found


def _begin(client: Client, item: ItemInfo) -> str:
    """How a text begins; its key where it is not kept."""
    text = text_of(client, item.key, item.collection) if item.kind == "text" else None
    return item.key if text is None else text[:_SHOWN_CHARACTERS]


def _worth(item: ItemInfo, size: int | None) -> tuple[Any, ...]:
    """Kept is proposed of what has metadata, then of what has most bytes, then of the oldest."""
    return bool(item.metadata), size or 0, -item.created_at.timestamp()


def _mark(item: ItemInfo) -> str:
    """An item and what it is now."""
    return json.dumps([item.collection, item.key, item.updated_at.isoformat()])


def _marks(text: str) -> list[str]:
    """Of a group. Raises InvalidItem."""
    marks = json_of(text, "a group")
    for mark in marks if isinstance(marks, list) else [None]:
        named = json_of(mark, "an item") if isinstance(mark, str) else None
        if not isinstance(named, list) or [*map(type, named)] != [str, str, str]:
            raise InvalidItem("a group is a list of items")
    return list(marks)


def _there(client: Client, marks: Sequence[str]) -> dict[str, ItemInfo]:
    """Of these, those that are as they were when somebody saw them."""
    items = items_named(client, (tuple(json.loads(mark)[:2]) for mark in marks))
    as_they_are = {_mark(item): item for item in items.values()}
    return {mark: as_they_are[mark] for mark in marks if mark in as_they_are}


def _whole(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 10 else 0
