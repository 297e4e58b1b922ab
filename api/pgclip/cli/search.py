"""`pgclip search`."""

import math
import webbrowser
from pathlib import Path
from typing import Annotated, Any

import typer

from pgclip.cli.hits import print_hits, write_page
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
from pgclip.cli.output import print_json
from pgclip.searching.queries import Like, Query

_NO_LIMITS = {
    "min_score": None,
    "min_relevance": None,
    "exact": False,
    "recall": None,
    "model": None,
}


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
    recall: Annotated[
        float | None, typer.Option(help="Share of the nearest to find, on average; 0 to 1.")
    ] = None,
    hybrid: Annotated[
        bool, typer.Option("--hybrid", help="By the words of texts as well, both rankings fused.")
    ] = False,
    model: Annotated[
        str | None, typer.Option(help="Ask another model than the live one, by its name.")
    ] = None,
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
        "min_score": min_score,
        "min_relevance": min_relevance,
        "exact": exact,
        "recall": recall,
        "model": model,
    }
    if hybrid and (query is None or weighted or limits != _NO_LIMITS):
        raise typer.BadParameter(
            "takes words, and no limits, --exact, --model or --with", param_hint="--hybrid"
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
        if as_json:
            print_json(hits)
        elif hits:
            print_hits(hits, client, preview)
        else:
            typer.echo("nothing found", err=True)
        if open_ and hits:
            page = write_page(" ".join([query or str(image or like), *(also or ())]), hits, client)
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
