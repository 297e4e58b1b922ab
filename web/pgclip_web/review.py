"""The page of a review: what a person is to look at, and what they say of it."""

from contextlib import suppress
from typing import Any, Literal, NamedTuple
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, QueryParams
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from pgclip import Client, Draw, InvalidItem, PgclipError
from pgclip_web.labels import named
from pgclip_web.pages import has_original, items_named, render, status_of, text_of

_AT_ONCE = 20
_LONGEST_NAME = 200
_ANSWERS = {"yes": True, "no": False, "back": None}


class Sitting(NamedTuple):
    """What is reviewed, and who looks; `label` and `by` may be empty: all, and the role."""

    set: str
    label: str
    purpose: Literal["promise", "learn"] | None
    by: str


class Shown(NamedTuple):
    """A draw as one sees it; `text` of a text that is kept, `is_large` of a picture that is."""

    draw: Draw
    text: str | None
    is_large: bool


def page(request: Request) -> Response:
    """Where one begins: nothing is drawn for who only looks."""
    return _page(request, _sitting(request, request.query_params), None)


async def draw(request: Request) -> Response:
    """Draws; before that takes the answer, if there is one (of a browser without scripts)."""
    return await run_in_threadpool(_draw, request, await request.form())


async def judge(request: Request) -> Response:
    """Takes an answer, or takes it back."""
    return await run_in_threadpool(_judge, request, await request.form())


def _draw(request: Request, form: FormData) -> Response:
    client: Client = request.app.state.client
    sitting = _sitting(request, form)
    trouble = None
    if "answer" in form:
        try:
            _say(client, sitting, form)
        except PgclipError as error:
            trouble = error
    draws = client.review(
        sitting.set,
        _AT_ONCE,
        label=sitting.label or None,
        by=sitting.by or None,
        purpose=sitting.purpose,
    )
    return _page(request, sitting, _shown(client, draws), trouble)


def _judge(request: Request, form: FormData) -> Response:
    client: Client = request.app.state.client
    if "page" in form:  # of an item, to which it leads back
        _say(client, _sitting(request, form), form)
        item = {name: str(form.get(name, "")) for name in ("collection", "key")}
        return RedirectResponse(f"item?{urlencode(item)}", 303)
    try:
        _say(client, _sitting(request, form), form)
    except PgclipError as error:
        return JSONResponse({"error": str(error)}, status_of(error))
    return JSONResponse({})


def _page(
    request: Request,
    sitting: Sitting,
    draws: list[Shown] | None,
    trouble: PgclipError | None = None,
) -> Response:
    client: Client = request.app.state.client
    return render(
        request,
        "review.html",
        status_of(trouble),
        sitting=sitting,
        labels=named(client.label_sets(), sitting.set).labels,
        promises=client.promises(sitting.set),
        is_named=bool(request.app.state.access.user_header),
        draws=draws,
        trouble=str(trouble or ""),
    )


def who(request: Request, asked: QueryParams | FormData) -> str:
    """Who the proxy in front says it is, if there is one, and else who they say they are. Raises
    InvalidItem."""
    header = request.app.state.access.user_header
    name = request.headers[header] if header else str(asked.get("by", "")).strip()
    with suppress(UnicodeError):  # bytes of a header come as Latin-1, whatever they are
        name = name.encode("latin-1").decode() if header else name
    if len(name) > _LONGEST_NAME:
        raise InvalidItem(f"a name has at most {_LONGEST_NAME} characters")
    return name


def _sitting(request: Request, asked: QueryParams | FormData) -> Sitting:
    purposes: tuple[Literal["promise", "learn"], ...] = ("promise", "learn")
    purpose = next((each for each in purposes if each == asked.get("purpose")), None)
    label_set, label = (str(asked.get(name, "")) for name in ("set", "label"))
    return Sitting(label_set, label, purpose, who(request, asked))


def _say(client: Client, sitting: Sitting, form: FormData) -> None:
    """Raises PgclipError."""
    answer, label = (str(form.get(name, "")) for name in ("answer", "of"))
    where: dict[str, Any] = {
        "key": str(form.get("key", "")),
        "by": sitting.by or None,
        "collection": str(form.get("collection", "")),
        "content_hash": _hash(str(form.get("content", ""))),
    }
    if answer == "unsure":
        client.leave_unsure(sitting.set, label, **where)
    elif answer in _ANSWERS:
        client.judge(sitting.set, label, value=_ANSWERS[answer], **where)
    else:
        raise InvalidItem(f"an answer is yes, no, unsure or back, not {answer!r:.100}")


def _hash(text: str) -> bytes | None:
    """Of the content that one saw. Raises InvalidItem."""
    try:
        return bytes.fromhex(text) or None
    except ValueError as error:
        raise InvalidItem(f"a content is its SHA-256 in hex, not {text!r:.100}") from error


def _shown(client: Client, draws: list[Draw]) -> list[Shown]:
    """Without those that have been deleted meanwhile."""
    there = items_named(client, ((each.collection, each.key) for each in draws))
    return [
        Shown(each, text_of(client, each.key, each.collection) if each.kind == "text" else None,
              has_original(there[each.collection, each.key]))
        for each in draws
        if (each.collection, each.key) in there
    ]  # fmt: skip
