"""`pgclip missing`: what lacks a current vector or label, and healing it."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Annotated

import typer

from pgclip.cli.options import AsJson, Collection, DatabaseUrl, RedisUrl, client_for
from pgclip.cli.output import print_json, print_table, shown_key
from pgclip.client import Client
from pgclip.items import Missing
from pgclip.tables.calls import MissingRow


def missing(
    heal: Annotated[
        bool,
        typer.Option(
            "--heal",
            help="Queue what is not queued; have outdated labels and lacking thumbnails made.",
        ),
    ] = False,
    table: Annotated[
        str | None,
        typer.Option(
            "--table", metavar="NAME", help="Compare the rows of an indexed table with its items."
        ),
    ] = None,
    collection: Collection = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1)] = 1000,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
    as_json: AsJson = False,
) -> None:
    """List what lacks a current vector or label, and why.

    What is queued or leased will come. What was never queued, or has labels older than its label
    set, comes with --heal, which looks at every collection. What failed: pgclip retry. With
    --table: rows of your table whose items lack, are outdated or left over.
    """
    with client_for(database_url, redis_url) as client:
        if heal:
            healed = client.heal()
            if as_json:
                print_json(asdict(healed))
            else:
                typer.echo(f"queued: {healed.jobs}; to be labelled anew: {healed.relabeled}")
            return
        heading, rows, found = (
            _of_items(client, collection, limit)
            if table is None
            else _of_rows(client, table, collection, limit)
        )
    if as_json:
        print_json(found)
        return
    if not found:
        typer.echo("Nothing is missing.")
        return
    print_table(heading, rows)
    if len(found) == limit:
        typer.echo(f"The first {limit}; --limit shows more.", err=True)


Listed = tuple[Sequence[str], Iterable[Sequence[str]], Sequence[Missing] | Sequence[MissingRow]]


def _of_items(client: Client, collection: str | None, limit: int) -> Listed:
    """The heading of a table, its rows, and what they tell."""
    found = client.missing(collection=collection, limit=limit)
    rows = (
        (
            *(one.collection, shown_key(one.key), one.model),
            "its vectors" if one.label_set is None else f"labels of {one.label_set}",
            one.reason if one.error is None else f"{one.reason}: {one.error}",
        )
        for one in found
    )
    return ("collection", "key", "model", "lacks", "why"), rows, found


def _of_rows(client: Client, table: str, collection: str | None, limit: int) -> Listed:
    found = client.missing_rows(table, collection=collection, limit=limit)
    rows = ((one.collection, shown_key(one.key), one.part, one.reason) for one in found)
    return ("collection", "row", "column", "why"), rows, found
