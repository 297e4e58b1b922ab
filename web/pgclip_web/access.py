"""Who may look, and what a browser may do with a page: before any page is asked."""

import hmac
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_COOKIE = "pgclip_token"
_READING = {"GET", "HEAD", "OPTIONS"}
# Nothing from elsewhere, nothing inline, in nobody's frame.
_PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with less, browsers don't say that a form is from here
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who may look, and whether they may change anything.

    `token`: whoever has it; it comes once in the address (?token=…) and then in a cookie.
    `user_header`: whoever a reverse proxy names in it, which must let nobody else set it. With
    both, both are asked for; with neither, whoever can connect may look: then something in front
    has to ask. `read_only`: nothing can be changed.
    """

    token: str | None = None
    user_header: str | None = None
    read_only: bool = False


class Gate:
    """Refuses who may not look, requests that another site has a browser make, and changes where
    there are to be none; and sets what a browser may do with the answer."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application in front of another."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _PAGE_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await (self._refusal(scope) or self._app)(scope, receive, sent)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if self._access.user_header and not headers.get(self._access.user_header):
            return PlainTextResponse("The proxy in front does not say who you are.", 403)
        if self._access.token is not None and not self._is_token(_cookie(headers)):
            return self._admission(scope)
        if scope["method"] not in _READING:
            if not _is_from_here(headers):
                return PlainTextResponse("This was asked for by another site.", 403)
            if self._access.read_only and not _only_asks(scope):
                return PlainTextResponse("Nothing can be changed here.", 403)
        return None

    def _admission(self, scope: Scope) -> Response:
        """The token in the address goes into a cookie, and out of the address."""
        pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if scope["method"] == "GET" and self._is_token(dict(pairs).get("token", "")):
            rest = urlencode([(name, value) for name, value in pairs if name != "token"])
            page = scope["path"].rpartition("/")[2] or "."
            admitted = RedirectResponse(f"{page}?{rest}" if rest else page, 303)
            admitted.set_cookie(
                _COOKIE,
                self._access.token or "",
                path=scope.get("root_path", "") + "/",
                httponly=True,
                samesite="strict",
                secure=scope["scheme"] == "https",
            )
            return admitted
        return PlainTextResponse(
            "Open the address that pgclip browse printed, token included.", 401
        )

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), (self._access.token or "").encode())


def _cookie(headers: Headers) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(_COOKIE)
    except CookieError:
        return ""
    return "" if found is None else found.value


def _is_from_here(headers: Headers) -> bool:
    """Whether a page of ours asks. Of what may change something browsers say where it is from."""
    if headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return False
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc == headers.get("host")


def _only_asks(scope: Scope) -> bool:
    """A picture to search with is posted, and changes nothing."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "")) == "/pictures"
