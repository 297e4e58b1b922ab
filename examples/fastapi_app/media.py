"""What is accepted over HTTP: how much, and which kinds of pictures."""

import re

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SIGNATURES = {
    rb"\xff\xd8\xff": "image/jpeg",
    rb"\x89PNG\r\n\x1a\n": "image/png",
    rb"GIF8[79]a": "image/gif",
    rb"RIFF....WEBP": "image/webp",
    rb"....ftypavi[fs]": "image/avif",
}


def media_type(data: bytes) -> str | None:
    """The type of a picture by its first bytes, since names and headers are whatever was sent."""
    for signature, name in _SIGNATURES.items():
        if re.match(signature, data, re.DOTALL):
            return name
    return None


class LimitBody:
    """Refuses requests whose body has more than `limit` bytes, while they arrive."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request with its bytes counted; Content-Length may be missing or a lie."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self.limit:
                raise HTTPException(413, f"at most {self.limit >> 20} MiB")
            return message

        await self.app(scope, counted, send)
