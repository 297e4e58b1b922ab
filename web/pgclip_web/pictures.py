"""Pictures: small ones, originals, and those that somebody searches with."""

import hashlib
import threading
from collections import OrderedDict
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from pgclip import Client, InvalidItem, NotFound
from pgclip_web.pages import item_named, name_of
from pgclip_web.uploads import body

_MOST_BYTES = 64 * 2**20  # of one, and of all that are kept,
_MOST = 1000  # which are so many
_NO_PICTURE = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 4 3"><path d="M0 0h4v3H0z" fill="#8884"/>'
    "</svg>"
)
# What browsers show, by how it begins. Others, such as TIFF, are shown small, and downloaded.
_SHOWN = {
    b"\xff\xd8\xff": "image/jpeg",
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"GIF8": "image/gif",
    b"BM": "image/bmp",
}


class Dropped:
    """Pictures that were dropped onto a page, by SHA-256 in hex: the latest, in memory.

    Whoever opens an address whose picture is gone is asked to drop it again. Thread-safe.
    """

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def keep(self, data: bytes) -> str:
        """Keeps one, and lets go of those that were used least lately."""
        name = name_of_content(data)
        with self._lock:
            self._bytes += len(data) - len(self._kept.get(name, b""))
            self._kept[name] = data
            self._kept.move_to_end(name)
            while self._bytes > self._most_bytes or len(self._kept) > _MOST:
                self._bytes -= len(self._kept.popitem(last=False)[1])
        return name

    def get(self, name: str) -> bytes:
        """Raises InvalidItem."""
        with self._lock:
            if name not in self._kept:
                raise InvalidItem("the picture to search with is not here any more: drop it again")
            self._kept.move_to_end(name)
            return self._kept[name]


def thumbnail(request: Request) -> Response:
    """A JPEG, or something grey where there is none."""
    data = _thumbnail(request)
    if data is None:
        return Response(_NO_PICTURE, media_type="image/svg+xml")
    tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type="image/jpeg", headers=headers)


def _thumbnail(request: Request) -> bytes | None:
    """Of an item by its id, or by its key."""
    client: Client = request.app.state.client
    given = request.query_params.get("id", "")
    if given:
        number = int(given) if given.isdecimal() and len(given) < 19 else 0
        return client.thumbnails([number]).get(number)
    key, collection = item_named(request)
    try:
        return client.thumbnail(key, collection=collection)
    except NotFound:
        return None


def original(request: Request) -> Response:
    """What was submitted: shown if a browser does that to a picture, else to be downloaded."""
    client: Client = request.app.state.client
    key, collection = item_named(request)
    data = client.content(key, collection=collection)
    kind = client.get(key, collection=collection).kind
    shown = _type_of(data) if kind == "image" else None
    name = quote(name_of(key).encode("utf-8", "replace"), safe="")
    how = "inline" if shown else "attachment"
    return Response(
        data,
        media_type=shown or "application/octet-stream",
        headers={
            "Content-Disposition": f"{how}; filename*=UTF-8''{name}",
            "Content-Security-Policy": "sandbox; default-src 'none'",
        },
    )


async def take(request: Request) -> Response:
    """Takes a picture to search with; tells its name."""
    data = await body(request, _MOST_BYTES)
    if not data:
        return PlainTextResponse("There is no picture in it.", 400)
    return JSONResponse({"picture": request.app.state.dropped.keep(data)})


def name_of_content(data: bytes) -> str:
    """Its SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def _type_of(data: bytes) -> str | None:
    """The type of a picture that browsers show."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data[4:12] == b"ftypavif":
        return "image/avif"
    return next((type_ for begin, type_ in _SHOWN.items() if data.startswith(begin)), None)
