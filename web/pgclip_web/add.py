"""Adding pictures and texts: each is submitted as it comes."""

import threading
from pathlib import PurePosixPath
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from pgclip import Client, InvalidItem, PgclipError
from pgclip_web.asked import Asked
from pgclip_web.pages import render, status_of, tables
from pgclip_web.pictures import name_of_content
from pgclip_web.uploads import body, files

_TEXTS = {".txt", ".md"}
_FILE_BYTES = 64 * 2**20
_MOST_FILES, _MOST_BYTES = 1000, 2**30  # of a form
_adding = threading.Lock()


def page(request: Request) -> Response:
    """Where files are chosen, or dropped."""
    return _page(request, request.query_params.get("collection", "default"), [])


def _page(request: Request, collection: str, refused: list[str]) -> Response:
    client: Client = request.app.state.client
    return render(
        request,
        "add.html",
        400 if refused else 200,
        collections=client.collections(),
        collection=collection,
        refused=refused,
    )


async def add(request: Request) -> Response:
    """Takes one file as it is, named in the address; or a form of many, of who has no scripts."""
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        return await _add_form(request)
    try:
        data = await body(request, _FILE_BYTES)
        params = request.query_params
        names = (params.get("name", ""), params.get("collection", ""))
        key = await run_in_threadpool(_submit, request, *names, data)
    except PgclipError as error:
        return JSONResponse({"error": str(error)}, status_of(error))
    return JSONResponse({"key": key})


async def _add_form(request: Request) -> Response:
    """Each file for itself; leads to what was added, or says what was not."""
    refused: list[str] = []
    async with files(request, _MOST_BYTES, _MOST_FILES) as form:
        collection = str(form.get("collection", "")) or "default"
        for file in form.getlist("file"):
            if not isinstance(file, UploadFile) or not file.filename:
                continue
            try:
                if (file.size or 0) > _FILE_BYTES:
                    raise InvalidItem(f"a file may have {_FILE_BYTES} bytes")
                data = await file.read()
                await run_in_threadpool(_submit, request, file.filename, collection, data)
            except PgclipError as error:
                refused.append(f"{file.filename}: {error}")
    if refused:
        return await run_in_threadpool(_page, request, collection, refused)
    return RedirectResponse("." + Asked(collection=collection).address(), 303)


def _submit(request: Request, name: str, collection: str, data: bytes) -> str:
    """Submits a file by its name; if something else has that name, by one that tells its content:
    nothing is replaced. Returns the key. Raises InvalidItem, QueueFull."""
    client: Client = request.app.state.client
    collection = collection or "default"
    if not data:
        raise InvalidItem(f"{name!r:.100} is empty")
    path = PurePosixPath(name.strip("/"))
    if not path.name or ".." in path.parts:
        raise InvalidItem(f"{name!r:.100} is no name of a file")
    if table := tables(client).get(collection):
        raise InvalidItem(f"{collection!r:.100} is kept by table {table}: add a row there")
    content = name_of_content(data)
    with _adding:  # of two of the same name that come at once the second sees the first
        key = str(path)
        for item in client.items(collection=collection, keys=[key]):
            if item.content_hash is None or item.content_hash.hex() != content:
                key = str(path.with_name(f"{path.stem}-{content[:12]}{path.suffix}"))
        _submit_as(client, key, collection, path.suffix.lower() in _TEXTS, data)
    return key


def _submit_as(client: Client, key: str, collection: str, is_text: bool, data: bytes) -> None:
    where: dict[str, Any] = {"key": key, "collection": collection, "merge_metadata": True}
    if is_text:
        try:
            client.submit_text(data.decode(), **where)
        except UnicodeDecodeError as error:
            raise InvalidItem(f"{key!r:.100} is no text in UTF-8") from error
    else:
        client.submit_image(data, **where)
