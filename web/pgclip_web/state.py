"""The page of the state: what waits, what failed and why, collections, models, their segments."""

from collections import defaultdict
from itertools import islice
from typing import NamedTuple
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from pgclip import Client, Segment
from pgclip_web.pages import render

_FAILED = 100  # items that are shown of a reason


class Segments(NamedTuple):
    """Those of a model that are in one state."""

    model: str
    state: str
    segments: int
    vectors: int
    size: int


def page(request: Request) -> Response:
    """All of it, or with ?part what changes, for a page that is open; with ?reason what failed for
    that reason. Nothing of it counts items: it is asked for again every two seconds."""
    client: Client = request.app.state.client
    reason = request.query_params.get("reason")
    if reason is not None:
        failed = list(islice(client.items(state="failed", reason=reason), _FAILED))
        return render(request, "failures.html", reason=reason, failed=failed, most=_FAILED)
    return render(
        request,
        "state.part.html" if "part" in request.query_params else "state.html",
        counts=client.count(),
        failures=client.failures(),
        collections=client.collections(),
        models=client.models(),
        segments=_by_state(client.segments()),
        retried=request.query_params.get("retried"),
    )


def counts(request: Request) -> Response:
    """How many items of a collection are in which state, for who waits for what was added."""
    client: Client = request.app.state.client
    return JSONResponse(client.count(collection=request.query_params.get("collection")))


async def retry(request: Request) -> Response:
    """Queues again what failed for a reason."""
    reason = str((await request.form()).get("reason", ""))
    client: Client = request.app.state.client
    count = await run_in_threadpool(client.retry, reason=reason)
    return RedirectResponse(f"state?{urlencode({'retried': count})}", 303)


def _by_state(segments: list[Segment]) -> list[Segments]:
    alike = defaultdict[tuple[str, str], list[Segment]](list)
    for each in segments:
        alike[each.model, each.state].append(each)
    return [
        Segments(
            *names,
            len(some),
            sum(each.vectors for each in some),
            sum(each.table_bytes + each.index_bytes for each in some),
        )
        for names, some in sorted(alike.items())
    ]
