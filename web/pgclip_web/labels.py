"""The pages of labels: sets, what people said of them, what is promised; teaching, and checking."""

from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from pgclip import Client, InvalidItem, LabelSet, NotFound
from pgclip_web.pages import render, waited

_SECONDS = 120.0  # that a page waits for a worker


def page(request: Request) -> Response:
    """Every set, or with ?set=NAME one."""
    client: Client = request.app.state.client
    sets = client.label_sets()
    if "set" not in request.query_params:
        return render(request, "labels.html", sets=sets)
    label_set = named(sets, request.query_params["set"])
    said = Counter(
        (one.label, one.value)
        for one in client.judgements(label_set.name)
        if one.counts and not one.is_archived
    )
    return render(
        request,
        "label_set.html",
        set=label_set,
        words=_written(label_set),
        said=said,
        promises=client.promises(label_set.name),
    )


def named(sets: list[LabelSet], name: str) -> LabelSet:
    """Raises NotFound."""
    for each in sets:
        if each.name == name:
            return each
    raise NotFound(f"there is no label set {name!r:.100}")


async def define(request: Request) -> Response:
    """Takes a new set, or other words for one that is there."""
    return await run_in_threadpool(_define, request, await request.form())


def _define(request: Request, form: FormData) -> Response:
    client: Client = request.app.state.client
    name, words = _text(form, "set"), _words(_text(form, "words"))
    before = next((each for each in client.label_sets() if each.name == name), None)
    if "version" not in form:
        if before is not None:
            raise InvalidItem(f"there is a set {name!r:.100} already: open it to change its words")
        kind: Literal["image", "text", "both"] = "both"
        if _text(form, "applies_to") == "image":
            kind = "image"
        elif _text(form, "applies_to") == "text":
            kind = "text"
        # Of one label that excludes others there would be nothing else to choose.
        exclusive = "exclusive" in form and len(words) > 1
        client.define_label_set(
            name,
            words,
            templates="seven",
            background="common",
            threshold=0.3 if exclusive else 0.5,
            applies_to=kind,
            exclusive=exclusive,
        )
    elif before is None or str(before.version) != _text(form, "version"):
        raise InvalidItem("somebody else has changed the set meanwhile. Nothing was changed")
    else:
        _change_words(client, before, words)
    return RedirectResponse(f"labels?{urlencode({'set': name})}", 303)


def _change_words(client: Client, before: LabelSet, words: Mapping[str, list[str]]) -> None:
    """All else stays as it was."""
    client.define_label_set(
        before.name,
        words,
        templates=list(before.templates),
        top_k=before.top_k,
        threshold=before.threshold,
        applies_to=before.applies_to,
        active=before.active,
        exclusive=before.exclusive,
        background=list(before.background),
        collections=None if before.collections is None else list(before.collections),
        relabel=before.relabel,
        decide=before.decide,
    )


async def promise(request: Request) -> Response:
    """Wants a label to keep something, or takes that back."""
    return await run_in_threadpool(_promise, request, await request.form())


def _promise(request: Request, form: FormData) -> Response:
    client: Client = request.app.state.client
    names = (_text(form, "set"), _text(form, "label"))
    if "withdraw" in form:
        client.withdraw_promise(
            *names, "recall" if _text(form, "what") == "recall" else "precision"
        )
    else:
        try:
            share, opinions = float(_text(form, "share")), int(_text(form, "opinions")[:9])
        except ValueError as error:
            raise InvalidItem("a promise has a share, such as 0.95, and opinions") from error
        if _text(form, "what") == "recall":
            client.promise(*names, recall=share, opinions=opinions)
        else:
            client.promise(*names, precision=share, opinions=opinions)
    return RedirectResponse(f"labels?{urlencode({'set': names[0]})}", 303)


async def teach(request: Request) -> Response:
    """Has a worker learn what was judged; shows what came of it."""
    name = _text(await request.form(), "set")
    client: Client = request.app.state.client
    report = await waited(request, partial(client.teach, name, timeout=_SECONDS))
    return render(request, "taught.html", name=name, report=report)


async def evaluate(request: Request) -> Response:
    """How often labels are right, in plots."""
    name = _text(await request.form(), "set")
    client: Client = request.app.state.client
    report = await waited(request, partial(client.evaluate, name, timeout=_SECONDS))
    return render(request, "evaluated.html", name=name, report=report)


def _text(form: FormData, name: str) -> str:
    return str(form.get(name, "")).strip()


def _words(text: str) -> dict[str, list[str]]:
    """Labels, a line each, and after an equals sign other words for it, with commas between."""
    found = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        label, _, others = line.partition("=")
        found[label.strip()] = [word.strip() for word in others.split(",") if word.strip()]
    return found


def _written(label_set: LabelSet) -> Any:
    """As _words() reads it; None if it could not be written so."""
    lines = [
        f"{label} = {', '.join(label_set.forms[label])}" if label_set.forms.get(label) else label
        for label in label_set.labels
    ]
    wanted = {label: list(label_set.forms.get(label, ())) for label in label_set.labels}
    text = "\n".join(lines)
    return text if _words(text) == wanted else None
