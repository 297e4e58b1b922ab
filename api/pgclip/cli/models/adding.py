"""`pgclip models add|cancel|pause|resume|pace`: a model beside the live one."""

from collections.abc import Sequence
from typing import Annotated

import typer

from pgclip.changing.models import ModelPlan
from pgclip.cli.errors import reported
from pgclip.cli.models.app import Name, Yes, app, shown_duration
from pgclip.cli.models.disk import free_disk
from pgclip.cli.options import DatabaseUrl, RedisUrl, client_for
from pgclip.cli.output import shown_bytes


@app.command()
@reported
def add(
    name: Name,
    pace: Annotated[
        float | None, typer.Option(metavar="ITEMS", help="At most so many a second.")
    ] = None,
    dimension: Annotated[
        int | None, typer.Option(help="Numbers of a vector, for the size. Default: the live one's.")
    ] = None,
    map_sample: Annotated[
        int, typer.Option(help="Contents of each kind that early answers are learnt from; 0: none.")
    ] = 20_000,
    map_bound: Annotated[
        float, typer.Option(help="Share of the ten nearest that early answers have to find.")
    ] = 0.9,
    yes: Yes = False,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
) -> None:
    """Add a model beside the live one, after saying what that will cost.

    Then start workers: PGCLIP_MODEL=NAME pgclip worker
    """
    with client_for(database_url, redis_url) as client:
        plan = client.plan_model(dimension)
        for line in _told(plan, free_disk(client)):
            typer.echo(line)
        if not yes:
            typer.confirm(f"Add {name}?", abort=True)
        client.add_model(name, pace=pace, map_sample=map_sample, map_bound=map_bound)
    typer.echo(f"{name} is added. Its workers fill it: PGCLIP_MODEL={name} pgclip worker")


@app.command()
@reported
def cancel(
    name: Name, yes: Yes = False, database_url: DatabaseUrl = None, redis_url: RedisUrl = None
) -> None:
    """Take a model back that was added, with all it has."""
    with client_for(database_url, redis_url) as client:
        if not yes:
            typer.confirm(f"Give up {name} and what it has encoded?", abort=True)
        client.cancel_model(name)
    typer.echo(f"{name} is taken back")


@app.command()
@reported
def pause(name: Name, database_url: DatabaseUrl = None, redis_url: RedisUrl = None) -> None:
    """Let nobody work for a model that is not live, until it is resumed."""
    with client_for(database_url, redis_url) as client:
        client.pause_model(name)
    typer.echo(f"{name} is paused")


@app.command()
@reported
def resume(name: Name, database_url: DatabaseUrl = None, redis_url: RedisUrl = None) -> None:
    """Let work for a model go on."""
    with client_for(database_url, redis_url) as client:
        client.resume_model(name)
    typer.echo(f"{name} goes on")


@app.command()
@reported
def pace(
    name: Name,
    items: Annotated[float, typer.Argument(help="A second, at most; 0: as many as workers take.")],
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
) -> None:
    """Limit how fast a model is filled."""
    with client_for(database_url, redis_url) as client:
        client.pace_model(name, items or None)
    typer.echo(f"{name} is filled by {f'{items:g} a second' if items else 'all its workers can'}")


def _told(plan: ModelPlan, free: int | None) -> Sequence[str]:
    lines = [f"{plan.items:,} items: {plan.images:,} images, {plan.texts:,} texts"]
    if plan.not_kept:
        lines.append(f"{plan.not_kept:,} of them can't be encoded: their bytes were not kept")
    lines.append(f"disk: about {shown_bytes(plan.size)}, up to twice that while indexes are built")
    if free is None:
        lines.append("how much is free there can't be seen from here")
    elif free < 2 * plan.size:
        lines.append(f"WARNING: {shown_bytes(free)} are free there, which may not hold both models")
    if plan.seconds is None:
        lines.append("how long it takes shows once a worker of it is at work: pgclip models")
    else:
        lines.append(
            f"time: {shown_duration(plan.seconds)}, if its workers store {plan.rate:.0f} a second, "
            "as the live model's have at best"
        )
    return lines
