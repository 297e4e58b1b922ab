"""Who may look, and what a browser may do with a page: before any page is asked."""

import hmac
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_READING = {"GET", "HEAD", "OPTIONS"}
_ASKING = {"/pictures", "/evaluate", "/duplicates", "/models"}
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
        # Cookies go to every port of a host: to other servers on it, who learn no token by that,
        # and whose own, of the same kind, has another name.
        token = (access.token or "").encode()
        self._pass = hmac.new(token, b"pgclip pages", "sha256").hexdigest()
        self._cookie = f"pgclip_{hmac.new(token, b'name', 'sha256').hexdigest()[:16]}"

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
        if self._access.token is not None and not self._is_admitted(headers):
            return self._admission(scope)
        if "token" in QueryParams(scope["query_string"]):
            return RedirectResponse(_address_without_token(scope), 303)
        if scope["method"] not in _READING:
            if not _is_from_here(headers):
                return PlainTextResponse("This was asked for by another site.", 403)
            if self._access.read_only and not _only_asks(scope):
                return PlainTextResponse("Nothing can be changed here.", 403)
        return None

    def _admission(self, scope: Scope) -> Response:
        """The token in the address goes into a cookie, and out of the address."""
        given = QueryParams(scope["query_string"]).get("token", "")
        if scope["method"] == "GET" and _are_equal(given, self._access.token or ""):
            admitted = RedirectResponse(_address_without_token(scope), 303)
            admitted.set_cookie(
                self._cookie,
                self._pass,
                path=scope.get("root_path", "") + "/",
                httponly=True,
                samesite="lax",  # a link from elsewhere opens; nothing is posted from elsewhere
                secure=scope["scheme"] == "https",
            )
            return admitted
        return PlainTextResponse(
            "Open the address that pgclip browse printed, token included.", 401
        )

    def _is_admitted(self, headers: Headers) -> bool:
        cookies = cookie_parser("; ".join(headers.getlist("cookie")))
        return _are_equal(cookies.get(self._cookie, ""), self._pass)


def _are_equal(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())


def _address_without_token(scope: Scope) -> str:
    """Relative to the page, whatever stands before it."""
    pairs = QueryParams(scope["query_string"]).multi_items()
    rest = urlencode([(name, value) for name, value in pairs if name != "token"])
    page = scope["path"].rpartition("/")[2]
    return f"./{page}?{rest}" if rest else f"./{page}"  # else https:elsewhere would lead there


def _is_from_here(headers: Headers) -> bool:
    """Whether a page of ours asks. Of what may change something browsers say where it is from."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    try:  # a browser that is older, or a page without TLS
        netloc = urlsplit(headers.get("origin", "")).netloc
    except ValueError:
        return False
    return bool(netloc) and netloc == headers.get("host")


def _only_asks(scope: Scope) -> bool:
    """Some things are posted and change nothing: a picture to search with, what takes a while."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "")) in _ASKING
