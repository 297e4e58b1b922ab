"""References to other machines: https:// and http:// by ourselves, everything else by fsspec.

Whoever submits decides what is fetched, so nothing is unless a prefix in PGCLIP_URLS allows it, at
every redirect again. A web address must be public, whatever its name resolves to, and the address
that was looked at is the one that is dialled: no second look-up could lead elsewhere. Proxies and
credentials of the environment are not used for it.
"""

import re
import time
from collections.abc import Iterable
from email.utils import parsedate_to_datetime
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit, urlunsplit

import httpcore

from pgclip.settings import masked
from pgclip_workers.pictures.guarded import Guarded
from pgclip_workers.pictures.refused import Refused

_WEB = {"https": 443, "http": 80}
_REDIRECTS = 5
_TIMEOUTS = {"connect": 5.0, "read": 10.0, "write": 5.0, "pool": 5.0}
# For all of it, whatever a site does: less than a decoding process has (PGCLIP_DECODE_TIMEOUT).
_SECONDS = 25.0
# What passes by itself mostly does within this; what does not is for the queue to try again.
_PAUSE_SECONDS = 0.5
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
# A site may ask for as much as it likes: no more than a day is heard.
_LONGEST_SECONDS = 86_400.0
# Made once: it reads all the certificates.
_SSL = httpcore.default_ssl_context()


class _Transient(Exception):
    """A failure that may pass by itself, in so many seconds, if the site says so."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


def read_url(url: str, prefixes: tuple[str, ...], private: bool, max_bytes: int) -> bytes:
    """The bytes behind a URL that one of the prefixes allows. Raises Refused."""
    require_allowed(url, prefixes)
    if urlsplit(url).scheme.lower() not in _WEB:
        return _read_by_fsspec(url, max_bytes)
    url = _in_ascii(url)
    backend = Guarded(private, time.monotonic() + _SECONDS)
    for is_last in (False, True):
        try:
            return _get(url, prefixes, backend, max_bytes)
        except (httpcore.TimeoutException, httpcore.NetworkError, _Transient) as error:
            retry_after = getattr(error, "retry_after", 0.0)
            if is_last or retry_after or isinstance(error, httpcore.TimeoutException):
                name = str(error) or type(error).__name__
                message = f"{masked(url)}: {name}"
                raise Refused("fetch_failed", message, retry_after) from error
            time.sleep(_PAUSE_SECONDS)
        except (httpcore.ProtocolError, httpcore.UnsupportedProtocol, ValueError) as error:
            raise Refused("fetch_failed", f"{masked(url)}: {error}") from error
    raise AssertionError("unreachable")


def _in_ascii(url: str) -> str:
    """As it travels: what is not ASCII escaped, the host in IDNA. Raises Refused."""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna").decode()
        netloc = f"[{host}]" if ":" in host else host
        if parts.port is not None:
            netloc += f":{parts.port}"
        path, query = (quote(part, safe="/%:@!$&'()*+,;=?~-._") for part in parts[2:4])
        return urlunsplit((parts.scheme, netloc, path or "/", query, ""))
    except ValueError as error:
        raise Refused("forbidden_url", f"{masked(url)} is not a URL: {error}") from error


def require_allowed(url: str, prefixes: Iterable[str]) -> None:
    """Raises Refused unless a prefix allows the URL: same scheme, host and port, path below it."""
    try:
        parts = urlsplit(url)
        # fsspec would take what follows a "::" for the place of an archive.
        plain = parts.username is None and (parts.scheme.lower() in _WEB or "::" not in url)
        if plain and any(_is_below(parts, urlsplit(prefix)) for prefix in prefixes):
            return
    except ValueError as error:  # a port that is no number, a bracket that is not closed
        raise Refused("forbidden_url", "it is not a URL, or leads to what is none") from error
    raise Refused(
        "forbidden_url",
        f"{masked(url)} is not below a URL that this worker may fetch; the operator allows "
        "prefixes with PGCLIP_URLS",
    )


def _is_below(url: SplitResult, prefix: SplitResult) -> bool:
    if url.scheme.lower() != prefix.scheme.lower() or not url.hostname:
        return False
    if not prefix.netloc:  # "https://" alone is any host; "https:host/" is a mistake
        return not prefix.path
    port = _WEB.get(url.scheme.lower())
    if (url.hostname, url.port or port) != (prefix.hostname, prefix.port or port):
        return False
    # What follows a "#" is part of a path for some storages, and for none of the web's servers.
    path, folder = unquote(url.path + url.fragment) or "/", unquote(prefix.path) or "/"
    if any(part.startswith("..") for part in re.split(r"[/\\]", path)):
        return False
    return path.startswith(folder if folder.endswith("/") else folder + "/") or path == folder


def _get(url: str, prefixes: tuple[str, ...], backend: Guarded, max_bytes: int) -> bytes:
    headers = [("Accept", "image/*"), ("Accept-Encoding", "identity"), ("User-Agent", "pgclip")]
    with httpcore.ConnectionPool(_SSL, network_backend=backend) as pool:
        for _ in range(_REDIRECTS + 1):
            extensions = {"timeout": _TIMEOUTS}
            with pool.stream("GET", url, headers=headers, extensions=extensions) as response:
                header = {name.lower(): value for name, value in response.headers}
                if response.status in (301, 302, 303, 307, 308) and b"location" in header:
                    url = _in_ascii(urljoin(url, header[b"location"].decode("latin-1")))
                    require_allowed(url, prefixes)
                    continue
                _require_picture(url, response.status, header, max_bytes)
                return _body(url, response.iter_stream(), max_bytes)
    raise Refused("fetch_failed", f"{masked(url)}: more than {_REDIRECTS} redirects")


def _require_picture(url: str, status: int, header: dict[bytes, bytes], max_bytes: int) -> None:
    if status in (404, 410):
        raise Refused("missing_file", f"{masked(url)}: HTTP status {status}")
    if status in _TRANSIENT:
        raise _Transient(f"HTTP status {status}", _retry_after(header.get(b"retry-after", b"")))
    if status != 200:
        raise Refused("fetch_failed", f"{masked(url)}: HTTP status {status}")
    if header.get(b"content-encoding", b"identity") not in (b"identity", b""):
        raise Refused("fetch_failed", f"{masked(url)} is compressed, which was not asked for")
    if int(header.get(b"content-length", b"0")) > max_bytes:
        raise _too_large(url, max_bytes)


def _retry_after(value: bytes) -> float:
    """Seconds, or a date (RFC 9110, 10.2.3); 0 if it says neither."""
    text = value.decode("latin-1").strip()
    try:
        if text.isdecimal():
            seconds = float(text)
        else:
            seconds = parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, OverflowError):
        return 0.0
    return min(max(0.0, seconds), _LONGEST_SECONDS)


def _body(url: str, parts: Iterable[bytes], max_bytes: int) -> bytes:
    body = bytearray()
    for part in parts:
        body += part
        if len(body) > max_bytes:
            raise _too_large(url, max_bytes)
    return bytes(body)


def _too_large(url: str, max_bytes: int) -> Refused:
    limit = f"the limit is {max_bytes} (PGCLIP_MAX_IMAGE_BYTES)"
    return Refused("too_large", f"{masked(url)} has too many bytes; {limit}")


def _read_by_fsspec(url: str, max_bytes: int) -> bytes:
    import fsspec

    scheme = url.split(":", 1)[0]
    try:
        filesystem, path = fsspec.core.url_to_fs(url)
        if any(part.startswith("..") for part in re.split(r"[/\\]", unquote(path))):
            raise Refused("forbidden_url", f"{masked(url)} leads out of its folder")
        if (filesystem.size(path) or 0) > max_bytes:
            raise _too_large(url, max_bytes)
        data: bytes = filesystem.cat_file(path, end=max_bytes + 1)
    except FileNotFoundError as error:
        raise Refused("missing_file", f"{masked(url)} is not there") from error
    except PermissionError as error:
        raise Refused("fetch_failed", f"{masked(url)}: it may not be read: {error}") from error
    except (ImportError, ValueError) as error:
        message = f"{masked(url)}: this worker can't read {scheme}:// ({error})"
        raise Refused("unknown_scheme", message) from error
    except Refused:
        raise
    except Exception as error:  # every storage has its own
        query = url.partition("?")[2]
        text = str(error).replace(query, "***") if query else str(error)
        message = f"{masked(url)}: {type(error).__name__}: {text}"
        raise Refused("fetch_failed", message, 0.0) from error
    if len(data) > max_bytes:
        raise _too_large(url, max_bytes)
    return data
