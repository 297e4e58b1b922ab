"""The application: which address leads to which page."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from anyio import CapacityLimiter
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from pgclip import Client, ConfigurationError, PgclipError
from pgclip_web import (
    add,
    duplicates,
    facets,
    item,
    labels,
    looking,
    models,
    pictures,
    review,
    search,
    state,
)
from pgclip_web.access import Access, Gate
from pgclip_web.pages import render, status_of

_WAITING = 4  # who wait for a worker to teach, to evaluate, to compare
_UPLOADS = 4  # at a time, since each is in memory
_FOLDER = Path(__file__).parent
_ON, _OFF = {"1", "on", "true", "yes"}, {"", "0", "off", "false", "no"}

_ROUTES = [
    Route("/", search.page),
    Route("/hits", search.hits),
    Route("/facets", facets.page),
    Route("/item", item.page, methods=["GET"]),
    Route("/item", item.change, methods=["POST"]),
    Route("/delete", item.delete, methods=["POST"]),
    Route("/counts", state.counts),
    Route("/thumbnail", pictures.thumbnail),
    Route("/original", pictures.original),
    Route("/pictures", pictures.take, methods=["POST"]),
    Route("/labels", labels.page, methods=["GET"]),
    Route("/labels", labels.define, methods=["POST"]),
    Route("/promise", labels.promise, methods=["POST"]),
    Route("/teach", labels.teach, methods=["POST"]),
    Route("/evaluate", labels.evaluate, methods=["POST"]),
    Route("/review", review.page, methods=["GET"]),
    Route("/review", review.draw, methods=["POST"]),
    Route("/judge", review.judge, methods=["POST"]),
    Route("/duplicates", duplicates.page, methods=["GET"]),
    Route("/duplicates", duplicates.look, methods=["POST"]),
    Route("/deletions", duplicates.delete, methods=["POST"]),
    Route("/models", models.page, methods=["GET"]),
    Route("/models", models.compare, methods=["POST"]),
    Route("/trial", models.trial, methods=["GET"]),
    Route("/trial", models.prefer, methods=["POST"]),
    Route("/add", add.page, methods=["GET"]),
    Route("/add", add.add, methods=["POST"]),
    Route("/state", state.page),
    Route("/retry", state.retry, methods=["POST"]),
    Mount("/static", StaticFiles(directory=_FOLDER / "static")),
]


def create_app(client: Client | None = None, *, access: Access | None = None) -> Starlette:
    """An ASGI application of the pages, to be served or mounted.

    Without a client it makes one of the environment (PGCLIP_*), and closes it at the end. Without
    `access` the environment says who may look: PGCLIP_BROWSE_TOKEN, PGCLIP_BROWSE_USER_HEADER,
    PGCLIP_BROWSE_READ_ONLY.
    """
    access = access or _access_of(os.environ)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        if client is None:
            app.state.client.close()

    app = Starlette(
        routes=_ROUTES,
        middleware=[Middleware(Gate, access=access)],
        exception_handlers={PgclipError: _failed},
        lifespan=lifespan,
    )
    app.state.client = client or Client()
    app.state.access = access
    app.state.dropped = pictures.Dropped()
    app.state.waiting = CapacityLimiter(_WAITING)
    app.state.uploads = asyncio.Semaphore(_UPLOADS)
    app.state.trials = models.Trials()
    app.state.looks = looking.Looks()
    return app


def _access_of(environ: Mapping[str, str]) -> Access:
    read_only = environ.get("PGCLIP_BROWSE_READ_ONLY", "off").strip().lower()
    if read_only not in _ON | _OFF:
        raise ConfigurationError(f"PGCLIP_BROWSE_READ_ONLY is on or off, not {read_only!r:.100}")
    return Access(
        token=environ.get("PGCLIP_BROWSE_TOKEN") or None,
        user_header=environ.get("PGCLIP_BROWSE_USER_HEADER") or None,
        read_only=read_only in _ON,
    )


def _failed(request: Request, error: Exception) -> Response:
    """What happened and what to do, as the client says it."""
    return render(request, "failed.html", status_of(error), error=str(error))
