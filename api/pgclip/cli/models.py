"""`pgclip models`: which there are, and changing the one that is searched."""

import shutil
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from pgclip import statements
from pgclip.changing.comparing import ComparedQuery, Comparison
from pgclip.changing.models import Model, ModelPlan
from pgclip.cli.errors import reported
from pgclip.cli.options import (
    AsJson,
    Collection,
    DatabaseUrl,
    KindOption,
    RedisUrl,
    client_for,
    kind_of,
    urls_file,
)
from pgclip.cli.output import print_json, print_table, shown_bytes, shown_key
from pgclip.client import Client
from pgclip.database import Database
from pgclip.settings import Settings

app = typer.Typer(
    help="Models: add one, fill it, compare, promote, go back, all while everything runs.",
    epilog="docs/change-the-model.md is the way through it.",
)

Name = Annotated[str, typer.Argument(help="The model's name.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]
Keep = Annotated[
    float | None,
    typer.Option(metavar="DAYS", help="How long the one before stands by; 0: until retired."),
]
Anyway = Annotated[bool, typer.Option("--anyway", help="Whatever speaks against it.")]


@app.callback(invoke_without_command=True)
@reported
def models(
    context: typer.Context,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show every model: its state, how far it is filled, and how long that takes yet."""
    if context.invoked_subcommand:
        return
    with client_for(database_url, redis_url) as client:
        found = client.models()
        maps = client.model_maps()
        filling = any(model.state == "filling" and model.lacking for model in found)
        free = _free_disk(client) if filling else None
    if as_json:
        print_json([_as_json(model) for model in found])
        return
    if not found:
        typer.echo("No model is there yet: the first worker brings one.")
        return
    print_table(
        ("model", "state", "filled", "rate", "left", "size", "workers", "recall", "answers"),
        ([*_row(model)] for model in found),
    )
    if free is not None and free < 2 * _still_to_come(found):
        typer.echo(
            f"WARNING: {shown_bytes(free)} are free on the disk, and what is still to be filled "
            f"takes about {shown_bytes(_still_to_come(found))}, twice that while indexes are built"
        )
    for one in maps:
        if one.recall is not None and one.query_kind:
            typer.echo(
                f"{one.model}, mapped from {one.source} with {one.filled:.1%} filled: "
                f"{one.query_kind} to {one.kind} finds {one.recall:.3f}, "
                f"of {one.contents:,} contents"
            )
        elif one.why:
            typer.echo(f"{one.model}: {one.why}")


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
        for line in _told(plan, _free_disk(client)):
            typer.echo(line)
        if not yes:
            typer.confirm(f"Add {name}?", abort=True)
        client.add_model(name, pace=pace, map_sample=map_sample, map_bound=map_bound)
    typer.echo(f"{name} is added. Its workers fill it: PGCLIP_MODEL={name} pgclip worker")


@app.command()
@reported
def compare(
    name: Name,
    with_model: Annotated[
        str | None, typer.Option("--with", help="The other model. Default: the live one.")
    ] = None,
    queries: Annotated[int, typer.Option(help="How many questions.")] = 100,
    k: Annotated[int, typer.Option("-k", help="How many answers to each.")] = 10,
    collection: Collection = None,
    kind: KindOption = None,
    labels: Annotated[
        bool, typer.Option(help="Evaluate label sets with judgements by both.")
    ] = True,
    show: Annotated[int, typer.Option(help="Questions to show that changed most.")] = 5,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
    as_json: AsJson = False,
) -> None:
    """Compare a model's answers with the live one's, on queries that were really asked."""
    with client_for(database_url, redis_url) as client:
        found = client.compare_models(
            name, with_model=with_model, queries=queries, k=k, collection=collection,
            kind=kind_of(kind), labels=labels,
        )  # fmt: skip
    if as_json:
        print_json(found)
        return
    if not found.queries:
        typer.echo("There is nothing yet that both have encoded.")
        raise typer.Exit(1)
    _print_comparison(found, show)


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


def _row(model: Model) -> tuple[str, ...]:
    total = model.items + model.lacking + model.failures
    state = f"{model.state}, paused" if model.paused else model.state
    if model.kept_until is not None:
        state += f" until {model.kept_until:%d %b}"
    return (
        *(model.name, state),
        f"{model.items:,} of {total:,}" if model.dimension else "no worker has brought it",
        "" if model.rate is None else f"{model.rate:.1f}/s",
        "" if model.seconds_left is None else _duration(model.seconds_left),
        *(shown_bytes(model.size), str(model.workers)),
        "" if model.recall is None else f"{model.recall:.3f}",
        _answers(model),
    )


def _still_to_come(models: Sequence[Model]) -> int:
    """Bytes that models being filled lack yet, were their vectors as long as the live one's."""
    live = next((model for model in models if model.state == "live" and model.items), None)
    lacking = sum(model.lacking for model in models if model.state == "filling")
    return 0 if live is None else live.size * lacking // live.items


def _answers(model: Model) -> str:
    """What a search of it gives now."""
    if model.state in ("retired", "dropping") or not model.dimension:
        return ""
    if not model.lacking:
        return "all"
    return {
        "answers": "all, early ones by a map",
        "waits": "what is filled; a map is being learnt",
        "refused": "what is filled; a map finds too little",
        "impossible": "what is filled",
        None: "what is filled",
    }[model.mapped]


def _as_json(model: Model) -> dict[str, Any]:
    names = model.__dataclass_fields__
    return {name: getattr(model, name) for name in (*names, "seconds_left")}


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
            f"time: {_duration(plan.seconds)}, if its workers store {plan.rate:.0f} a second, "
            "as the live model's have at best"
        )
    return lines


def _free_disk(client: Client) -> int | None:
    """Bytes free where Postgres keeps its data; None if that is not on this machine."""
    folder = _data_folder(client.settings)
    try:
        return None if folder is None else shutil.disk_usage(folder).free
    except OSError:
        return None


def _data_folder(settings: Settings) -> Path | None:
    database = Database(settings.required("database_url"), pool_size=1)
    try:
        with database.transaction("disk") as cursor:
            cursor.execute(statements.DATA_FOLDER)
            (folder,) = cursor.fetchone() or (None,)
    finally:
        database.close()
    if folder is None or not folder.startswith("/proc/"):
        return folder and Path(folder)
    # An embedded server knows its folder by a number of its own; that of pgclip up is known here.
    return urls_file(settings).parent if urls_file(settings).exists() else None


def _print_comparison(found: Comparison, show: int) -> None:
    old, new = found.old_model, found.new_model
    rest = len(found.queries) - found.asked
    typer.echo(f"{found.asked} queries that were asked, {rest} stored items asked like")
    scores, seconds = found.scores(), found.seconds()
    rows = [
        ("answers that stay", "", _shown(found.overlap)),
        ("best answer changed", "", _shown(found.best_changed)),
        ("score of the best", *map(_shown, scores)),
        ("seconds of a search", *map(_shown, seconds)),
    ]
    for name, (before, after) in found.labels.items():
        for measure in ("accuracy", "precision", "recall"):
            shares = [each.get(measure, {}).get("share") for each in (before, after)]
            rows.append((f"{name}: {measure}", *map(_shown, shares)))
    print_table(("", old, new), rows)
    for each in sorted(found.queries, key=lambda each: each.overlap)[:show]:
        _print_query(each)


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _print_query(each: ComparedQuery) -> None:
    what = each.query or "a picture"
    typer.echo(f"\n{what if each.asked == 'query' else f'like {shown_key(what)}'}: "
               f"{each.overlap:.0%} stay")  # fmt: skip
    keys = zip(each.old.keys[:5], each.new.keys[:5], strict=False)
    print_table(
        ("  before", "after"), ((f"  {shown_key(a, 40)}", shown_key(b, 40)) for a, b in keys)
    )


def _days(keep: float | None) -> timedelta | None:
    return timedelta(days=keep) if keep else None


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
