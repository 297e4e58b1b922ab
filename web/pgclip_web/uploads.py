"""What is sent to a page: only so much, a few at a time, and not for ever."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message

_SILENCE_SECONDS = 30.0  # between two pieces
_FIELD_BYTES = 16 * 2**20  # of a field of a form that is no file


async def body(request: Request, most: int) -> bytes:
    """All that is sent. Refuses what is too large or too slow."""
    data = bytearray()
    async with _bounded(request, most) as bounded:
        async for chunk in bounded.stream():
            data += chunk
    return bytes(data)


@asynccontextmanager
async def files(request: Request, most: int, count: int) -> AsyncIterator[FormData]:
    """A form with files in it, which are on disk where they are large."""
    async with _bounded(request, most) as bounded:
        form = await bounded.form(max_files=count)
    try:
        yield form
    finally:
        await form.close()


async def fields(request: Request) -> FormData:
    """A form of names and marks, of which there may be very many."""
    return await request.form(max_fields=100_000, max_part_size=_FIELD_BYTES)


@asynccontextmanager
async def _bounded(request: Request, most: int) -> AsyncIterator[Request]:
    """A request whose bytes are counted, whatever its header says, and awaited only so long."""
    size = 0

    async def receive() -> Message:
        nonlocal size
        try:
            message = await asyncio.wait_for(request.receive(), _SILENCE_SECONDS)
        except TimeoutError:
            raise HTTPException(408, "Nothing came for too long. Send it again.") from None
        size += len(message.get("body", b""))
        if size > most:
            raise HTTPException(413, f"At once {most} bytes can be sent.")
        return message

    async with request.app.state.uploads:
        yield Request(request.scope, receive)
