"""The page of the state: what waits, what failed and why, collections, models."""

from collections import Counter
from itertools import islice

from starlette.requests import Request
from starlette.responses import Response

from pgclip import Client
from pgclip_web.pages import render

_FAILED = 1000  # that are looked at; of more it is said that there are


def page(request: Request) -> Response:
    """All of it, or with ?part what changes, for a page that is open."""
    client: Client = request.app.state.client
    failed = list(islice(client.items(state="failed"), _FAILED))
    return render(
        request,
        "state.part.html" if "part" in request.query_params else "state.html",
        counts=client.count(),
        collections=client.collections(),
        models=client.models(),
        failed=failed[:50],
        is_more=len(failed) == _FAILED,
        reasons=Counter(item.reason for item in failed).most_common(),
    )
