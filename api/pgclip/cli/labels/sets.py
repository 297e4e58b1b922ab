"""`pgclip labels`: sets of labels."""

from typing import Annotated

import typer

from pgclip.cli.errors import reported
from pgclip.cli.labels.app import Name, app
from pgclip.cli.options import AsJson, DatabaseUrl, RedisUrl, client_for, one_of
from pgclip.cli.output import print_json, print_table
from pgclip.items import LabelSet


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
        ("set", "version", "top", "threshold", "for", "active", "taught", "labels"),
        (
            (
                *(s.name, s.version, s.top_k, f"{s.threshold:.2f}", s.applies_to),
                *("yes" if s.active else "no", s.taught or "", _shown(s)),
            )
            for s in sets
        ),
    )


def _shown(label_set: LabelSet) -> str:
    labels = ", ".join(label_set.labels)
    how = "" if label_set.exclusive else "each alone: "
    return f"{how}{labels}{' (to be reviewed)' if label_set.decide else ''}"


@app.command()
@reported
def define(
    name: Name,
    labels: Annotated[
        list[str], typer.Argument(help="Labels; other words for one follow it: sofa=couch=settee.")
    ],
    template: Annotated[
        list[str] | None,
        typer.Option(
            help="A sentence with {} for the label, repeatable; or one, seven or eighty. "
            "Default: a photo of a {}"
        ),
    ] = None,
    top_k: Annotated[int, typer.Option(help="Most labels of this set that an item gets.")] = 3,
    threshold: Annotated[float, typer.Option(help="Least probability.")] = 0.1,
    applies_to: Annotated[str, typer.Option(metavar="image|text|both")] = "both",
    active: Annotated[bool, typer.Option(help="Whether workers use it.")] = True,
    exclusive: Annotated[
        bool, typer.Option(help="Whether labels exclude each other, or each stands alone.")
    ] = True,
    background: Annotated[
        list[str] | None,
        typer.Option(help="A word that takes part and is never given; repeatable; or common."),
    ] = None,
    collection: Annotated[
        list[str] | None, typer.Option(help="Whose items are labelled; repeatable. Default: all.")
    ] = None,
    relabel: Annotated[bool, typer.Option(help="Whether items are labelled anew.")] = True,
    decide: Annotated[
        bool, typer.Option(help="Whether labels are to be reviewed until somebody decides.")
    ] = False,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
) -> None:
    """Create a label set, or replace it; items are labelled anew by workers.

    Example: pgclip labels define weather sunny rainy snowy --template "a {} day"
    """
    given = [word.split("=") for word in labels]
    words = {label: more for label, *more in given}
    if len(words) < len(given):
        raise typer.BadParameter("the same label is there twice")
    with client_for(database_url, redis_url) as client:
        client.define_label_set(
            name,
            words,
            templates=_by_name(template, "one", "seven", "eighty"),
            top_k=top_k,
            threshold=threshold,
            applies_to=one_of(applies_to, "--applies-to", "image", "text", "both"),
            active=active,
            exclusive=exclusive,
            background=_by_name(background, "common") or (),
            collections=collection,
            relabel=relabel,
            decide=decide,
        )
    typer.echo(f"label set {name} has {len(labels)} labels")


def _by_name(given: list[str] | None, *names: str) -> list[str] | str | None:
    """What is one of these names alone stands for itself."""
    return given[0] if given and len(given) == 1 and given[0] in names else given


@app.command()
@reported
def relabel(
    name: Name,
    stop: Annotated[
        bool, typer.Option("--stop", help="Label none anew, now and when the set changes.")
    ] = False,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
) -> None:
    """Have all items labelled as the set says now; pgclip status shows how far it is."""
    with client_for(database_url, redis_url) as client:
        client.relabel(name, stop=stop)
    typer.echo(f"items {'stay as they are' if stop else 'are labelled anew'}")


@app.command()
@reported
def drop(name: Name, database_url: DatabaseUrl = None, redis_url: RedisUrl = None) -> None:
    """Delete a label set, its labels on all items, and what people said of them."""
    with client_for(database_url, redis_url) as client:
        client.drop_label_set(name)
    typer.echo(f"label set {name} is gone")
