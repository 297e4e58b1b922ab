"""`pgclip missing`: what lacks a current vector or label, and healing it."""

from dataclasses import asdict
from typing import Annotated

import typer

from pgclip.cli.options import AsJson, Collection, DatabaseUrl, RedisUrl, client_for
from pgclip.cli.output import print_json, print_table, shown_key


def missing(
    heal: Annotated[
        bool,
        typer.Option(
            "--heal", help="Queue what is not queued, and have outdated labels made anew."
        ),
    ] = False,
    collection: Collection = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1)] = 1000,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
    as_json: AsJson = False,
) -> None:
    """List what lacks a current vector or label, and why.

    What is queued or leased will come. What was never queued, or has labels older than its label
    set, comes with --heal, which looks at every collection. What failed: pgclip retry.
    """
    with client_for(database_url, redis_url) as client:
        if heal:
            healed = client.heal()
            if as_json:
                print_json(asdict(healed))
            else:
                typer.echo(f"queued: {healed.jobs}; to be labelled anew: {healed.relabeled}")
            return
        found = client.missing(collection=collection, limit=limit)
    if as_json:
        print_json(found)
        return
    if not found:
        typer.echo("Nothing is missing.")
        return
    print_table(
        ("collection", "key", "model", "lacks", "why"),
        (
            (
                *(one.collection, shown_key(one.key), one.model),
                "its vectors" if one.label_set is None else f"labels of {one.label_set}",
                one.reason if one.error is None else f"{one.reason}: {one.error}",
            )
            for one in found
        ),
    )
    if len(found) == limit:
        typer.echo(f"The first {limit}; --limit shows more.", err=True)
