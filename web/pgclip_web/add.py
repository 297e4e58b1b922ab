"""Adding pictures and texts: each is submitted as it comes."""

from pathlib import PurePosixPath
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from pgclip import Client, InvalidItem, PgclipError
from pgclip_web.asked import Asked
from pgclip_web.pages import render, status_of
from pgclip_web.pictures import body, name_of_content

_TEXTS = {".txt", ".md"}
_MOST_FILES, _MOST_BYTES = 1000, 2**30  # of a form


def page(request: Request) -> Response:
    """Where files are chosen, or dropped."""
    client: Client = request.app.state.client
    return render(
        request,
        "add.html",
        collections=client.collections(),
        collection=request.query_params.get("collection", "default"),
    )


async def add(request: Request) -> Response:
    """Takes one file as it is, named in the address; or a form of many, of who has no scripts."""
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        return await _add_form(request)
    try:
        data = await body(request)
        params = request.query_params
        names = (params.get("name", ""), params.get("collection", ""))
        key = await run_in_threadpool(_submit, request, *names, data)
    except PgclipError as error:
        return JSONResponse({"error": str(error)}, status_of(error))
    return JSONResponse({"key": key})


async def _add_form(request: Request) -> Response:
    if int(request.headers.get("content-length", "0")) > _MOST_BYTES:
        raise HTTPException(413, f"At once {_MOST_BYTES} bytes can be added.")
    async with request.app.state.uploads:
        form = await request.form(max_files=_MOST_FILES)
        collection = str(form.get("collection", ""))
        for file in form.getlist("file"):
            if isinstance(file, UploadFile) and file.filename:
                data = await file.read()
                await run_in_threadpool(_submit, request, file.filename, collection, data)
    return RedirectResponse("." + Asked(collection=collection or "default").address(), 303)


def _submit(request: Request, name: str, collection: str, data: bytes) -> str:
    """Submits a file by its name; if something else has that name, by one that tells its content:
    nothing is replaced. Returns the key. Raises InvalidItem, QueueFull."""
    client: Client = request.app.state.client
    collection = collection.strip() or "default"
    if not data:
        raise InvalidItem(f"{name!r:.100} is empty")
    path = PurePosixPath(name.strip("/"))
    content = name_of_content(data)
    key = str(path)
    for item in client.items(collection=collection, keys=[key]):
        if item.content_hash is None or item.content_hash.hex() != content:
            key = str(path.with_name(f"{path.stem}-{content[:12]}{path.suffix}"))
    where: dict[str, Any] = {"key": key, "collection": collection, "merge_metadata": True}
    if path.suffix.lower() in _TEXTS:
        try:
            client.submit_text(data.decode(), **where)
        except UnicodeDecodeError as error:
            raise InvalidItem(f"{name!r:.100} is no text in UTF-8") from error
    else:
        client.submit_image(data, **where)
    return key
