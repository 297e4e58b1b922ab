"""`pgclip duplicates` and `calibrate`."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from pgclip.cli.options import (
    AsJson,
    Collection,
    DatabaseUrl,
    KindOption,
    RedisUrl,
    client_for,
    kind_of,
)
from pgclip.cli.output import print_json, print_table, shown_key
from pgclip.items import Calibration, Duplicate


def duplicates(
    key: Annotated[
        str | None, typer.Argument(help="An item's key; none: groups of all items.")
    ] = None,
    collection: Collection = None,
    kind: KindOption = None,
    min_score: Annotated[
        float | None,
        typer.Option(help="Least cosine. Default: 0.95, of a key 0.9."),
    ] = None,
    near: Annotated[
        float | None, typer.Option(help="Cosine from which they are near. Default: 0.97.")
    ] = None,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
    as_json: AsJson = False,
) -> None:
    """Find near-duplicates: groups of them, or those of one item.

    Tiers: identical (the same bytes), near, similar. A KEY is looked up in --collection, or in
    default.
    """
    if key is not None and kind is not None:
        raise typer.BadParameter("the kind is that of the item", param_hint="--kind")
    tiers: dict[str, Any] = {
        name: value
        for name, value in (("min_score", min_score), ("near", near))
        if value is not None
    }
    with client_for(database_url, redis_url) as client:
        if key is None:
            groups = client.duplicate_groups(collection=collection, kind=kind_of(kind), **tiers)
            _show_groups(groups, as_json)
        else:
            where = "default" if collection is None else collection
            found = client.duplicates_of(key, collection=where, within=collection, **tiers)
            _show(found, as_json)


def calibrate(
    sample: Annotated[int, typer.Option(help="Most items of a kind to measure, 30 to 2000.")] = 300,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
    as_json: AsJson = False,
) -> None:
    """Measure how unrelated items score, so that hits have a relevance.

    Again after the data have changed a lot.
    """
    with client_for(database_url, redis_url) as client:
        count = client.calibrate(sample=sample)
        found = client.calibrations()
    if as_json:
        print_json(found)
    elif found:
        _show_calibrations(found)
    if not count:
        typer.echo("too few items: nothing was measured", err=True)


def _show_groups(groups: Sequence[Sequence[Duplicate]], as_json: bool) -> None:
    if as_json:
        print_json(groups)
    elif not groups:
        typer.echo("no duplicates found", err=True)
    else:
        print_table(
            ("group", "tier", "score", "kind", "collection", "key"),
            ((number, *_cells(item)) for number, group in enumerate(groups, 1) for item in group),
        )


def _show(found: Sequence[Duplicate], as_json: bool) -> None:
    if as_json:
        print_json(found)
    elif not found:
        typer.echo("no duplicates found", err=True)
    else:
        print_table(("tier", "score", "kind", "collection", "key"), map(_cells, found))


def _cells(item: Duplicate) -> tuple[str, ...]:
    return (item.tier, f"{item.score:.3f}", item.kind, item.collection, shown_key(item.key))


def _show_calibrations(found: Sequence[Calibration]) -> None:
    print_table(
        ("from", "to", "midpoint", "slope", "mean", "deviation", "model"),
        (
            (
                *(scale.query_kind, scale.item_kind, f"{scale.midpoint:.3f}", f"{scale.slope:.1f}"),
                *("" if part is None else f"{part:.3f}" for part in (scale.mean, scale.deviation)),
                scale.model,
            )
            for scale in found
        ),
    )
