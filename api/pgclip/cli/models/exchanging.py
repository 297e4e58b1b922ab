"""`pgclip models promote|rollback|retire|drop`: which model is searched."""

from datetime import timedelta
from typing import Annotated

import typer

from pgclip.cli.errors import reported
from pgclip.cli.models.app import Anyway, Keep, Name, Yes, app
from pgclip.cli.options import DatabaseUrl, RedisUrl, client_for
from pgclip.cli.output import print_table


@app.command()
@reported
def promote(
    name: Name,
    share: Annotated[
        float, typer.Option(help="Of what was there when it was added and can be encoded.")
    ] = 1.0,
    keep: Keep = 7,
    anyway: Anyway = False,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
) -> None:
    """Make a model the one that is searched: search and labels change in one transaction."""
    with client_for(database_url, redis_url) as client:
        lacking = [each for each in client.model_readiness(name, share=share) if not each.is_ready]
        if lacking:
            print_table(("not ready", ""), ((each.what, each.detail) for each in lacking))
        client.promote_model(name, share=share, keep=_days(keep), anyway=anyway)
    typer.echo(f"{name} is live. Back to the one before: pgclip models rollback")


@app.command()
@reported
def rollback(
    name: Annotated[
        str | None, typer.Argument(help="Default: the one that was replaced last.")
    ] = None,
    keep: Keep = 7,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
) -> None:
    """Go back to the model before, in one transaction."""
    with client_for(database_url, redis_url) as client:
        found = client.rollback_model(name, keep=_days(keep))
    typer.echo(f"{found.model} is live again")
    if found.lacking:
        typer.echo(f"it lacks {found.lacking:,} items, which its workers encode now")


@app.command()
@reported
def retire(
    name: Name,
    anyway: Anyway = False,
    yes: Yes = False,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
) -> None:
    """Retire a model that stands by: its workers end, its vectors and labels go."""
    with client_for(database_url, redis_url) as client:
        if not yes:
            typer.confirm(f"Give up the vectors of {name}?", abort=True)
        client.retire_model(name, anyway=anyway)
    typer.echo(f"{name} is being retired")


@app.command()
@reported
def drop(
    name: Name,
    anyway: Anyway = False,
    yes: Yes = False,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
) -> None:
    """Retire a model and forget it."""
    with client_for(database_url, redis_url) as client:
        if not yes:
            typer.confirm(f"Give up {name} with its vectors?", abort=True)
        client.drop_model(name, anyway=anyway)
    typer.echo(f"{name} is being dropped")


def _days(keep: float | None) -> timedelta | None:
    return timedelta(days=keep) if keep else None
