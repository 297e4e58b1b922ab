"""`pgclip search`: a table, small pictures in terminals that can, or a page of them."""

import html
import math
import tempfile
import webbrowser
from base64 import b64encode
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pgclip.cli.options import (
    AsJson,
    Collection,
    DatabaseUrl,
    KindOption,
    RedisUrl,
    client_for,
    kind_of,
    metadata_from,
)
from pgclip.cli.output import (
    out,
    print_json,
    shown_key,
    shown_labels,
    shown_metadata,
    shown_snippet,
)
from pgclip.client import Client
from pgclip.errors import NotFound
from pgclip.items import Hit
from pgclip.searching import Like, Query

_PREVIEW = (24, 16)  # columns, and half lines


def search(
    text: Annotated[list[str] | None, typer.Argument(help="What to look for, in words.")] = None,
    image: Annotated[Path | None, typer.Option(help="Look for pictures like this file.")] = None,
    like: Annotated[
        str | None, typer.Option(help="Look for what is like the item of a key.")
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar="QUERY=WEIGHT",
            help="One more query beside the first, which weighs 1: words=-0.5, image:FILE=0.7, "
            "like:KEY=0.3; repeatable.",
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", help="How many.")] = 10,
    collection: Collection = None,
    kind: KindOption = None,
    where: Annotated[
        str | None,
        typer.Option(
            "--filter", metavar="JSON", help='Only items that match: \'{"year": {"ge": 2024}}\'.'
        ),
    ] = None,
    min_score: Annotated[float | None, typer.Option(help="Least cosine, -1 to 1.")] = None,
    min_relevance: Annotated[
        float | None, typer.Option(help="Least relevance, 0 to 1; needs pgclip calibrate.")
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Compare every vector.")] = False,
    hybrid: Annotated[
        bool, typer.Option("--hybrid", help="By the words of texts as well, both rankings fused.")
    ] = False,
    open_: Annotated[bool, typer.Option("--open", help="Show the pictures in a browser.")] = False,
    preview: Annotated[
        bool | None,
        typer.Option(help="Small pictures in the table; default: in terminals with true colour."),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for a worker.")] = 30.0,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
    as_json: AsJson = False,
) -> None:
    """Search by words, by a picture, or for what is like an item.

    Examples: pgclip search a cat on a sofa; pgclip search --image cat.jpg --open;
    pgclip search beach --with people=-0.5
    """
    query = " ".join(text) if text else None
    if sum(given is not None for given in (query, image, like)) != 1:
        raise typer.BadParameter("search for one of: words, --image FILE, --like KEY")
    within = "default" if collection is None else collection
    weighted = [_weighted(part, within) for part in also or ()]
    limits: dict[str, Any] = {
        name: value
        for name, value in (
            ("min_score", min_score),
            ("min_relevance", min_relevance),
            ("exact", exact or None),
        )
        if value is not None
    }
    if hybrid and (query is None or weighted or limits):
        raise typer.BadParameter(
            "takes words, and no limits, --exact or --with", param_hint="--hybrid"
        )
    narrowed: dict[str, Any] = {
        "k": k,
        "collection": collection,
        "kind": kind_of(kind),
        "filter": metadata_from(where),
        "timeout": timeout,
    }
    with client_for(database_url, redis_url) as client:
        if hybrid:
            hits = client.hybrid(query or "", **narrowed)
        elif weighted:
            first: Query = query or image or Like(like or "", within)
            hits = client.search([(first, 1.0), *weighted], **limits, **narrowed)
        else:
            hits = client.search(query, image=image, like=like, **limits, **narrowed)
        _show(hits, client, preview, as_json)
        if open_ and hits:
            page = _page(" ".join([query or str(image or like), *(also or ())]), hits, client)
            typer.echo(f"{page}", err=True)
            webbrowser.open(page.as_uri())


def _weighted(text: str, collection: str) -> tuple[Query, float]:
    """A query and its weight, as --with takes them."""
    query, equals, weight = text.rpartition("=")
    try:
        number = float(weight)
    except ValueError:
        number = math.nan
    if not equals or not query or not math.isfinite(number):
        raise typer.BadParameter(f"{text!r} is not like people=-0.5", param_hint="--with")
    prefix, _, rest = query.partition(":")
    given: dict[str, Query] = {"image": Path(rest), "like": Like(rest, collection)}
    return given.get(prefix, query), number


def _show(hits: Sequence[Hit], client: Client, preview: bool | None, as_json: bool) -> None:
    if as_json:
        print_json(hits)
    elif not hits:
        typer.echo("nothing found", err=True)
    else:
        if preview is None:
            preview = out.is_terminal and out.color_system == "truecolor"
        out.print(_table(hits, client, preview))


def _table(hits: Sequence[Hit], client: Client, preview: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    numbers = [(name, shown) for name, shown in _NUMBERS if any(map(shown, hits))]
    for name, _ in numbers:
        table.add_column(name, justify="right")
    if preview:
        table.add_column("picture", width=_PREVIEW[0])
    texts = [(name, shown) for name, shown in _TEXTS if name != "text" or any(map(shown, hits))]
    for name, _ in texts:
        table.add_column(name, overflow="fold")
    for hit in hits:
        cells: list[RenderableType] = [shown(hit) for _, shown in numbers]
        if preview:
            cells.append(_preview(hit, client) if hit.kind == "image" else "")
        table.add_row(*cells, *(Text(shown(hit)) for _, shown in texts))
    return table


def _decimal(number: float | None, digits: int) -> str:
    return "" if number is None else f"{number:.{digits}f}"


# The columns of numbers, which are left out where no hit has one, and those of texts.
_NUMBERS: tuple[tuple[str, Callable[[Hit], str]], ...] = (
    ("score", lambda hit: _decimal(hit.score, 3)),
    ("relevance", lambda hit: _decimal(hit.relevance, 2)),
    ("fused", lambda hit: _decimal(hit.fused, 4)),
    ("by vectors", lambda hit: _decimal(hit.vector_rank, 0)),
    ("by words", lambda hit: _decimal(hit.text_rank, 0)),
)
_TEXTS: tuple[tuple[str, Callable[[Hit], str]], ...] = (
    ("key", lambda hit: shown_key(hit.key)),
    ("text", lambda hit: shown_snippet(hit.snippet)),
    ("labels", lambda hit: shown_labels(hit.labels)),
    ("metadata", lambda hit: shown_metadata(hit.metadata)),
)


def _preview(hit: Hit, client: Client) -> RenderableType:
    try:
        from rich_pixels import Pixels
    except ModuleNotFoundError:
        return Text("pip install 'pgclip[preview]'", style="dim")
    try:
        data = _bytes_of(hit, client)
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            return Group(Pixels.from_image_path(file.name, resize=_PREVIEW), "")
    except (NotFound, OSError):
        return Text("not at hand", style="dim")


def _bytes_of(hit: Hit, client: Client) -> bytes:
    """A hit's picture: a file of this machine, or what is kept. Raises NotFound, OSError."""
    if hit.source and hit.source.startswith("file://"):
        return Path(unquote(urlsplit(hit.source).path)).read_bytes()
    return client.content(hit.key, collection=hit.collection)


def _page(query: str, hits: Sequence[Hit], client: Client) -> Path:
    """A page with the hits, in a file that stays for the browser."""
    figures = "".join(_figure(hit, client) for hit in hits)
    with tempfile.NamedTemporaryFile(
        "w", prefix="pgclip-", suffix=".html", delete=False, encoding="utf-8"
    ) as file:
        file.write(_PAGE.format(query=html.escape(query), figures=figures))
    return Path(file.name)


def _figure(hit: Hit, client: Client) -> str:
    if hit.kind == "text":
        shown = f"<blockquote>{html.escape(hit.snippet or hit.key)}</blockquote>"
    elif hit.source and hit.source.startswith("https://"):
        shown = f'<img src="{html.escape(hit.source)}" alt="">'
    else:
        try:
            data = b64encode(_bytes_of(hit, client)).decode()
            shown = f'<img src="data:image;base64,{data}" alt="">'
        except (NotFound, OSError) as error:
            shown = f"<blockquote>not at hand: {html.escape(str(error))}</blockquote>"
    caption = f"<b>{hit.score:.3f}</b> {html.escape(shown_key(hit.key))}"
    about = html.escape(shown_labels(hit.labels))
    return f"<figure>{shown}<figcaption>{caption}<br><small>{about}</small></figcaption></figure>"


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
