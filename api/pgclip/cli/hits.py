"""Hits for people: a table, small pictures in terminals that can, or a page of them."""

import html
import tempfile
from base64 import b64encode
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pgclip.cli.output import out, shown_key, shown_labels, shown_metadata, shown_snippet
from pgclip.client import Client
from pgclip.errors import NotFound
from pgclip.items import Hit, ItemInfo

_PREVIEW = (24, 16)  # columns, and half lines


def print_hits(hits: Sequence[Hit], client: Client, preview: bool | None) -> None:
    """Prints a table; preview: with small pictures, None: in terminals with true colour."""
    if preview is None:
        preview = can_preview()
    out.print(_table(hits, client, preview))


def _table(hits: Sequence[Hit], client: Client, preview: bool) -> Table:
    """In a terminal a line for each hit, or as many as a picture takes."""
    in_lines = out.is_terminal
    table = Table(box=None, pad_edge=False, header_style="bold", expand=in_lines)
    numbers = [(name, shown) for name, shown in _NUMBERS if any(map(shown, hits))]
    for name, _ in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    if preview:
        table.add_column("picture", width=_PREVIEW[0])
    texts = [
        (name, shown) for name, shown in _TEXTS
        if any(map(shown, hits)) or (not in_lines and name not in _RARE)
    ]  # fmt: skip
    taken = sum(len(name) + 2 for name, _ in numbers) + preview * (_PREVIEW[0] + 2)
    width = max(12, (out.width - taken) * _KEY_SHARE // 100)
    longest = max(len(shown_key(hit.key)) for hit in hits)
    table.add_column("key", no_wrap=in_lines, overflow="fold",
                     width=min(width, max(3, longest)) if in_lines else None)  # fmt: skip
    for name, _ in texts:
        table.add_column(name, no_wrap=in_lines, overflow="ellipsis" if in_lines else "fold",
                         ratio=1 if in_lines else None)  # fmt: skip
    for hit in hits:
        cells: list[RenderableType] = [shown(hit) for _, shown in numbers]
        if preview:
            cells.append(preview_of(hit, client) if hit.kind == "image" else "")
        cells.append(Text(shown_key(hit.key, width)))
        table.add_row(*cells, *(Text(shown(hit)) for _, shown in texts))
    return table


def _decimal(number: float | None, digits: int) -> str:
    return "" if number is None else f"{number:.{digits}f}"


_KEY_SHARE = 45  # %, at most, of what numbers and pictures leave
_RARE = ("text", "failed since")
# The columns of numbers, which are left out where no hit has one, and those of texts.
_NUMBERS: tuple[tuple[str, Callable[[Hit], str]], ...] = (
    ("score", lambda hit: _decimal(hit.score, 3)),
    ("relevance", lambda hit: _decimal(hit.relevance, 2)),
    ("fused", lambda hit: _decimal(hit.fused, 4)),
    ("by vectors", lambda hit: _decimal(hit.vector_rank, 0)),
    ("by words", lambda hit: _decimal(hit.text_rank, 0)),
)
_TEXTS: tuple[tuple[str, Callable[[Hit], str]], ...] = (
    ("text", lambda hit: shown_snippet(hit.snippet)),
    ("labels", lambda hit: shown_labels(hit.labels)),
    ("metadata", lambda hit: shown_metadata(hit.metadata, hit.key)),
    ("failed since", lambda hit: hit.failed or ""),
)


def can_preview() -> bool:
    """Whether the terminal shows pictures."""
    return out.is_terminal and out.color_system == "truecolor"


def preview_of(hit: Hit | ItemInfo, client: Client) -> RenderableType:
    """A picture in the terminal, or why there is none."""
    try:
        from rich_pixels import Pixels
    except ModuleNotFoundError:
        return Text("pip install 'pgclip[preview]'", style="dim")
    try:
        data = _thumbnail_or_original(hit, client)
    except (NotFound, OSError):
        return Text("not at hand", style="dim")
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        try:
            return Group(Pixels.from_image_path(file.name, resize=_PREVIEW), "")
        except Exception:  # whatever Pillow says of a picture that it does not read
            return Text("can't be shown", style="dim")


def _thumbnail_or_original(hit: Hit | ItemInfo, client: Client) -> bytes:
    """Raises NotFound, OSError."""
    try:
        return client.thumbnail(hit.key, collection=hit.collection)
    except NotFound:
        return _bytes_of(hit, client)


def _bytes_of(hit: Hit | ItemInfo, client: Client) -> bytes:
    """A hit's picture: a file of this machine, or what is kept. Raises NotFound, OSError."""
    if hit.source and hit.source.startswith("file://"):
        return Path(unquote(urlsplit(hit.source).path)).read_bytes()
    return client.content(hit.key, collection=hit.collection)


def write_page(query: str, hits: Sequence[Hit], client: Client) -> Path:
    """A page with the hits, in a file that stays for the browser."""
    small = client.thumbnails(hits)
    figures = "".join(_figure(hit, client, small.get(hit.item_id)) for hit in hits)
    with tempfile.NamedTemporaryFile(
        "w", prefix="pgclip-", suffix=".html", delete=False, encoding="utf-8"
    ) as file:
        file.write(_PAGE.format(query=html.escape(query), figures=figures))
    return Path(file.name)


def _figure(hit: Hit, client: Client, small: bytes | None) -> str:
    if hit.kind == "text":
        shown = f"<blockquote>{html.escape(hit.snippet or hit.key)}</blockquote>"
    else:
        shown = _picture(hit, client, small)
    caption = f"<b>{hit.score:.3f}</b> {html.escape(shown_key(hit.key))}"
    about = html.escape(shown_labels(hit.labels))
    if hit.failed:
        about += f" <em>has been replaced, which failed: {html.escape(hit.failed)}</em>"
    return f"<figure>{shown}<figcaption>{caption}<br><small>{about}</small></figcaption></figure>"


def _picture(hit: Hit, client: Client, small: bytes | None) -> str:
    if small is None and hit.source and hit.source.startswith("https://"):
        return f'<img src="{html.escape(hit.source)}" alt="">'
    try:
        data = b64encode(small or _bytes_of(hit, client)).decode()
    except (NotFound, OSError) as error:
        return f"<blockquote>not at hand: {html.escape(str(error))}</blockquote>"
    return f'<img src="data:image;base64,{data}" alt="">'


_PAGE = """<!doctype html><meta charset="utf-8"><title>{query}</title>
<style>
body {{ font: 15px system-ui, sans-serif; margin: 2rem; color: #222; background: #fafafa }}
main {{ display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(14rem, 1fr)) }}
figure {{ margin: 0; padding: .75rem; background: #fff; border: 1px solid #ddd }}
img {{ width: 100%; height: 12rem; object-fit: contain }}
blockquote {{ margin: 0; height: 12rem; overflow: auto }}
figcaption {{ margin-top: .5rem; overflow-wrap: anywhere }}
small {{ color: #666 }}
</style>
<h1>{query}</h1><main>{figures}</main>
"""
