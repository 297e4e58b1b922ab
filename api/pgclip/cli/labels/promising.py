"""`pgclip labels promise|withdraw|decisions`: what labels are relied on for."""

from collections.abc import Sequence
from itertools import islice
from typing import Annotated

import typer

from pgclip.cli.errors import reported
from pgclip.cli.labels.app import Name, app
from pgclip.cli.options import AsJson, Collection, DatabaseUrl, RedisUrl, client_for, one_of
from pgclip.cli.output import print_json, print_table, shown_key
from pgclip.labelling.promising import Promise


@app.command()
@reported
def promise(
    name: Annotated[str | None, typer.Argument(help="The set's name. Default: all.")] = None,
    label: Annotated[str | None, typer.Argument(help="The label. Default: all.")] = None,
    precision: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Of what is called so, at least this share is."),
    ] = None,
    recall: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Of what is so, at least this share isn't denied."),
    ] = None,
    confidence: Annotated[float, typer.Option(help="In this share of all promises.")] = 0.95,
    opinions: Annotated[int, typer.Option(help="People who judge each draw.")] = 1,
    judgements: Annotated[
        int | None, typer.Option(help="After how many one looks first. Default: the fewest.")
    ] = None,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
    as_json: AsJson = False,
) -> None:
    """Have a label keep a promise; or show what is promised and how far it is.

    Example: pgclip labels promise moderation weapon --precision 0.95
    """
    asks = precision is not None or recall is not None
    if asks and (name is None or label is None):
        raise typer.BadParameter("a promise is asked of a set and a label")
    with client_for(database_url, redis_url) as client:
        if name is not None and label is not None:
            found = client.promise(
                name, label, precision=precision, recall=recall, confidence=confidence,
                opinions=opinions, judgements=judgements,
            )  # fmt: skip
        else:
            found = client.promises(name)
    if as_json:
        print_json(found)
        return
    _print_promises(found)


def _print_promises(found: Sequence[Promise]) -> None:
    if not found:
        typer.echo("Nothing is promised. See pgclip labels promise --help")
        return
    print_table(
        ("set", "label", "promise", "state", "shown", "right", "threshold", "decides"),
        (
            (
                *(one.set, one.label, f"{one.what} {one.share:g} at {one.confidence:g}"),
                *(one.state, "" if one.bound is None else f"{one.bound:.3f}"),
                "" if one.judged is None else f"{one.right} of {one.judged}",
                "" if one.threshold is None else f"{one.threshold:.3f}",
                "" if one.coverage is None else f"{one.decides:,} ({one.coverage:.1%})",
            )
            for one in found
        ),
    )
    for one in found:
        typer.echo(f"{one.set}, {one.label}: {next_step(one)}")


def next_step(one: Promise) -> str:
    """What a promise needs now, in words."""
    if one.state == "waiting":
        return "items get scores first, from a worker; and a first look takes enough of them"
    if one.lacking is None:
        return (
            "kept, and decides as much as this head can"
            if one.state == "kept"
            else "this head does not keep it: teach the label, or promise less"
        )
    more = f"{one.lacking} more judgements: pgclip labels review {one.set}"
    return f"kept; to decide more, {more}" if one.state == "kept" else f"it takes {more}"


@app.command()
@reported
def withdraw(
    name: Name,
    label: Annotated[str, typer.Argument(help="The label.")],
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
) -> None:
    """Take a label's promises back: only people decide."""
    with client_for(database_url, redis_url) as client:
        client.withdraw_promise(name, label)
    typer.echo(f"nothing is promised of {label} any more")


@app.command()
@reported
def decisions(
    name: Name,
    label: Annotated[str | None, typer.Argument(help="The label. Default: all.")] = None,
    decision: Annotated[
        str | None, typer.Option("--only", metavar="yes|no|review", help="Default: all.")
    ] = None,
    collection: Collection = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="0: all of them.")] = 50,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show what is decided of items, by people or a promise, and what is to be reviewed."""
    wanted = None if decision is None else one_of(decision, "--only", "yes", "no", "review")
    with client_for(database_url, redis_url) as client:
        every = client.decisions(name, label=label, decision=wanted, collection=collection)
        found = list(islice(every, limit or None))
    if as_json:
        print_json(found)
        return
    print_table(
        ("decision", "label", "score", "rests on", "collection", "key"),
        (
            (
                *(one.decision, one.label, "" if one.score is None else f"{one.score:.3f}"),
                *(_rests_on(one.rests_on, one.share), one.collection, shown_key(one.key)),
            )
            for one in found
        ),
    )
    if limit and len(found) == limit:
        typer.echo(f"The first {limit}; --limit 0 shows all.", err=True)


def _rests_on(what: str | None, share: float | None) -> str:
    if what is None:
        return ""
    return "people" if what == "judgement" else f"{what} {share:g}"
