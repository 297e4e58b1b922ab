"""A picture gallery on FastAPI: upload, status, and a search page; and pgclip's own pages.

Uploads answer 202 as soon as they are committed; a worker encodes them a moment later.
"""

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

from fastapi import (
    Depends,
    FastAPI,
    File,
    Form,
    HTTPException,
    Query,
    Request,
    Response,
    UploadFile,
)
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from fastapi.templating import Jinja2Templates
from media import LimitBody, media_type
from remarks import prepare, router
from sqlalchemy.exc import OperationalError
from starlette.concurrency import run_in_threadpool

from pgclip import (
    AsyncClient,
    ConnectionFailed,
    Hit,
    InvalidItem,
    Item,
    NotFound,
    QueryFailed,
    QueueFull,
)
from pgclip_web import create_app

log = logging.getLogger("uvicorn.error")

COLLECTION = "gallery"
UPLOAD_BYTES = 10 * 2**20
SEARCH_SECONDS = 5.0
# The first class that fits; whatever is not here is a bug, and answers 500.
STATUSES = {InvalidItem: 422, NotFound: 404, QueueFull: 503, ConnectionFailed: 503}

templates = Jinja2Templates(Path(__file__).parent / "templates")
# A key may hold anything, slashes too: the routes below take it as {key:path}.
templates.env.filters["path"] = lambda key: quote(key, safe="")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, AsyncClient]]:
    """One client for the process. It reads PGCLIP_* and connects when it is first used."""
    async with AsyncClient() as client:
        try:
            await run_in_threadpool(prepare, client.client)
        except (ConnectionFailed, OperationalError) as error:
            log.error("remarks are not prepared: %s", error)
        if os.environ.get("PGCLIP_BROWSE_TOKEN"):  # without it, whoever can connect could look
            app.mount("/browse", create_app(client.client))
        yield {"pgclip": client}


app = FastAPI(title="Gallery", lifespan=lifespan)
app.include_router(router)
app.add_middleware(LimitBody, limit=UPLOAD_BYTES + 2**16)  # the picture, and the form around it


def pgclip(request: Request) -> AsyncClient:
    """The client, for the handlers below."""
    client: AsyncClient = request.state.pgclip
    return client


Pgclip = Annotated[AsyncClient, Depends(pgclip)]
Asked = Annotated[str, Query(max_length=1024)]


@app.post("/pictures", status_code=202)
async def upload(
    request: Request,
    client: Pgclip,
    picture: Annotated[UploadFile, File()],
    caption: Annotated[str, Form(max_length=500)] = "",
) -> Response:
    """Accepts a picture. The key is made from the bytes, so the same picture is one item."""
    if media_type(await picture.read(32)) is None:
        raise HTTPException(422, "the upload is not a JPEG, PNG, GIF, WebP or AVIF picture")
    await picture.seek(0)
    metadata = {"caption": caption or picture.filename}
    # The file and not its bytes: a thread of the client reads it, so the loop goes on.
    job = await client.submit_image(picture.file, collection=COLLECTION, metadata=metadata)
    if "text/html" in request.headers.get("accept", ""):  # the form on the page
        return RedirectResponse("/", 303)
    status = str(request.base_url) + f"items/{quote(job.key, safe='')}"
    return JSONResponse({"key": job.key, "status": status}, 202, {"Location": status})


@app.get("/items/{key:path}")
async def show_item(key: str, client: Pgclip) -> dict[str, object]:
    """Where an item stands: queued, leased, done, or failed with a reason."""
    item: Item = await client.get(key, collection=COLLECTION)
    return {
        "key": item.key,
        "state": item.state,
        "reason": item.reason,
        "error": item.error,
        "metadata": item.metadata,
        "labels": [
            {"name": label.name, "score": label.score, "decision": label.decision}
            for label in item.labels
        ],
    }


@app.get("/pictures/{key:path}")
async def show_picture(key: str, client: Pgclip) -> Response:
    """The bytes as they were uploaded."""
    data = await client.content(key, collection=COLLECTION)
    # Whatever somebody uploaded, the browser is told that it is a picture and nothing to run.
    headers = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'"}
    return Response(
        data, headers=headers, media_type=media_type(data) or "application/octet-stream"
    )


@app.get("/thumbnails/{key:path}")
async def show_thumbnail(key: str, client: Pgclip) -> Response:
    """A small one, a JPEG that a worker made; until there is one, or where none are made, all."""
    try:
        data = await client.thumbnail(key, collection=COLLECTION)
    except NotFound:
        return RedirectResponse(f"/pictures/{quote(key, safe='')}")
    return Response(data, headers={"Cache-Control": "max-age=60"}, media_type="image/jpeg")


@app.get("/", response_class=HTMLResponse)
async def show_page(request: Request, client: Pgclip, q: Asked = "", like: Asked = "") -> Response:
    """The search page: a text, or more like a picture that is there."""
    q = q.strip()
    hits: list[Hit] = []
    counts = None  # what is there, by state
    status, message = 200, ""
    try:
        counts = await client.count(collection=COLLECTION)
        if q or like:
            hits = await find(client, q, like)
            message = "" if hits else "Nothing was found."
    except (InvalidItem, NotFound) as error:
        status, message = STATUSES[type(error)], str(error)
    except QueryFailed as error:
        log.warning("search: %s", error)
        status, message = 503, "No worker answers just now. Please try again in a moment."
    except ConnectionFailed as error:
        log.error("search: %s", error)
        status, message = 503, "The database can't be reached. Please try again in a moment."
    found = {"q": q, "like": like, "hits": hits, "counts": counts, "message": message}
    return templates.TemplateResponse(request, "search.html", found, status)


async def find(client: AsyncClient, q: str, like: str) -> list[Hit]:
    """The pictures nearest to a text or to a picture."""
    if like:
        return await client.search(like=like, k=24, collection=COLLECTION)
    try:
        return await client.search(q, k=24, collection=COLLECTION, timeout=SEARCH_SECONDS)
    except NotFound:  # the collection is made by the first upload
        return []


async def refusal(request: Request, error: Exception) -> JSONResponse:
    """What pgclip raised, as an answer."""
    status = next(code for kind, code in STATUSES.items() if isinstance(error, kind))
    detail, headers = str(error), {}
    if status == 503:
        log.error("%s %s: %s", request.method, request.url.path, error)
        detail = "please try again later"  # the message is for whoever runs this
        headers = {"Retry-After": "10"}
    return JSONResponse({"detail": detail}, status, headers)


for kind in STATUSES:
    app.add_exception_handler(kind, refusal)
