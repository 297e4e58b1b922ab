"""`pgclip models`, `models compare`: how far each is, and what a new one answers."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from pgclip.changing.comparing import ComparedQuery, Comparison
from pgclip.changing.models import Model
from pgclip.cli.errors import reported
from pgclip.cli.models.app import Name, app, shown_duration
from pgclip.cli.models.disk import free_disk
from pgclip.cli.options import (
    AsJson,
    Collection,
    DatabaseUrl,
    KindOption,
    RedisUrl,
    client_for,
    kind_of,
)
from pgclip.cli.output import print_json, print_table, shown_bytes, shown_key


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
        free = free_disk(client) if filling else None
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


def _row(model: Model) -> tuple[str, ...]:
    total = model.items + model.lacking + model.failures
    state = f"{model.state}, paused" if model.paused else model.state
    if model.kept_until is not None:
        state += f" until {model.kept_until:%d %b}"
    return (
        *(model.name, state),
        f"{model.items:,} of {total:,}" if model.dimension else "no worker has brought it",
        "" if model.rate is None else f"{model.rate:.1f}/s",
        "" if model.seconds_left is None else shown_duration(model.seconds_left),
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
