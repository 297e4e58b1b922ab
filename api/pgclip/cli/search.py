"""`pgclip search`: a table, small pictures in terminals that can, or a page of them."""

import html
import tempfile
import webbrowser
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated
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
)
from pgclip.cli.output import out, print_json, shown_key, shown_labels, shown_metadata
from pgclip.client import Client
from pgclip.errors import NotFound
from pgclip.items import Hit

_PREVIEW = (24, 16)  # columns, and half lines


def search(
    text: Annotated[list[str] | None, typer.Argument(help="What to look for, in words.")] = None,
    image: Annotated[Path | None, typer.Option(help="Look for pictures like this file.")] = None,
    like: Annotated[
        str | None, typer.Option(help="Look for what is like the item of a key.")
    ] = None,
    k: Annotated[int, typer.Option("-k", help="How many.")] = 10,
    collection: Collection = None,
    kind: KindOption = None,
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

    Examples: pgclip search a cat on a sofa; pgclip search --image cat.jpg --open
    """
    query = " ".join(text) if text else None
    if sum(given is not None for given in (query, image, like)) != 1:
        raise typer.BadParameter("search for one of: words, --image FILE, --like KEY")
    with client_for(database_url, redis_url) as client:
        hits = client.search(
            query,
            image=image,
            like=like,
            k=k,
            collection=collection,
            kind=kind_of(kind),
            timeout=timeout,
        )
        _show(hits, client, preview, as_json)
        if open_ and hits:
            page = _page(query or str(image or like), hits, client)
            typer.echo(f"{page}", err=True)
            webbrowser.open(page.as_uri())


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
    table.add_column("score", justify="right")
    if preview:
        table.add_column("picture", width=_PREVIEW[0])
    for column in ("key", "labels", "metadata"):
        table.add_column(column, overflow="fold")
    for hit in hits:
        cells: list[RenderableType] = [f"{hit.score:.3f}"]
        if preview:
            cells.append(_preview(hit, client) if hit.kind == "image" else "")
        kept = (shown_key(hit.key), shown_labels(hit.labels), shown_metadata(hit.metadata))
        table.add_row(*cells, *(Text(text) for text in kept))
    return table


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
        shown = f"<blockquote>{html.escape(_text_of(hit, client))}</blockquote>"
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


def _text_of(hit: Hit, client: Client) -> str:
    try:
        return client.content(hit.key, collection=hit.collection).decode()[:500]
    except NotFound:
        return hit.key


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
