"""`pgclip labels`: sets of zero-shot labels."""

from typing import Annotated

import typer

from pgclip.cli.errors import reported
from pgclip.cli.options import AsJson, DatabaseUrl, RedisUrl, client_for, one_of
from pgclip.cli.output import print_json, print_table

app = typer.Typer(help="Sets of zero-shot labels.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The set's name.")]


@app.command("list")
@reported
def list_sets(
    database_url: DatabaseUrl = None, redis_url: RedisUrl = None, as_json: AsJson = False
) -> None:
    """Show the label sets."""
    with client_for(database_url, redis_url) as client:
        sets = client.label_sets()
    if as_json:
        print_json(sets)
        return
    print_table(
        ("set", "version", "top", "threshold", "for", "active", "labels"),
        (
            (
                *(s.name, s.version, s.top_k, f"{s.threshold:.2f}", s.applies_to),
                *("yes" if s.active else "no", ", ".join(s.labels)),
            )
            for s in sets
        ),
    )


@app.command()
@reported
def define(
    name: Name,
    labels: Annotated[list[str], typer.Argument(help="Two labels or more.")],
    template: Annotated[
        list[str] | None,
        typer.Option(help="A sentence with {} for the label; repeatable. Default: a photo of a {}"),
    ] = None,
    top_k: Annotated[int, typer.Option(help="Most labels of this set that an item gets.")] = 3,
    threshold: Annotated[float, typer.Option(help="Least probability.")] = 0.1,
    applies_to: Annotated[str, typer.Option(metavar="image|text|both")] = "both",
    active: Annotated[bool, typer.Option(help="Whether workers use it.")] = True,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
) -> None:
    """Create a label set, or replace it, for what is encoded from now on.

    Example: pgclip labels define weather sunny rainy snowy --template "a {} day"
    """
    with client_for(database_url, redis_url) as client:
        client.define_label_set(
            name,
            labels,
            templates=template,
            top_k=top_k,
            threshold=threshold,
            applies_to=one_of(applies_to, "--applies-to", "image", "text", "both"),
            active=active,
        )
    typer.echo(f"label set {name} has {len(labels)} labels")


@app.command()
@reported
def drop(name: Name, database_url: DatabaseUrl = None, redis_url: RedisUrl = None) -> None:
    """Delete a label set, and its labels on all items."""
    with client_for(database_url, redis_url) as client:
        client.drop_label_set(name)
    typer.echo(f"label set {name} is gone")
