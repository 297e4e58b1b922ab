"""`pgclip retry`, `cancel` and `delete`."""

from typing import Annotated

import typer

from pgclip.cli.options import (
    AsJson,
    Collection,
    DatabaseUrl,
    KindOption,
    Reason,
    RedisUrl,
    StateOption,
    Where,
    client_for,
    kind_of,
    metadata_from,
    state_of,
)
from pgclip.cli.output import print_json

Keys = Annotated[
    list[str] | None,
    typer.Argument(help="Keys, of --collection or default; none: all that match."),
]


def retry(
    keys: Keys = None,
    collection: Collection = None,
    kind: KindOption = None,
    reason: Reason = None,
    where: Where = None,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
    as_json: AsJson = False,
) -> None:
    """Queue failed items again: all of them, or those that match."""
    with client_for(database_url, redis_url) as client:
        count = client.retry(
            collection=_where(keys, collection),
            kind=kind_of(kind),
            reason=reason,
            metadata=metadata_from(where),
            keys=keys or None,
        )
    _tell("queued again", count, as_json)


def cancel(
    keys: Keys = None,
    collection: Collection = None,
    kind: KindOption = None,
    where: Where = None,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
    as_json: AsJson = False,
) -> None:
    """Cancel what waits in the queue: all of it, or what matches.

    Cancelled items end as failed; retry queues them again.
    """
    with client_for(database_url, redis_url) as client:
        count = client.cancel(
            collection=_where(keys, collection),
            kind=kind_of(kind),
            metadata=metadata_from(where),
            keys=keys or None,
        )
    _tell("cancelled", count, as_json)


def delete(
    keys: Keys = None,
    collection: Collection = None,
    kind: KindOption = None,
    state: StateOption = None,
    reason: Reason = None,
    where: Where = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
    as_json: AsJson = False,
) -> None:
    """Delete items with their vectors and labels: those named, or all that match."""
    conditions = (keys, collection, kind, state, reason, where)
    if not any(conditions):
        raise typer.BadParameter("name keys, or what to match, such as --collection")
    with client_for(database_url, redis_url) as client:
        if not yes and not keys:
            typer.confirm("Delete all items that match?", abort=True)
        count = client.delete_items(
            collection=_where(keys, collection),
            kind=kind_of(kind),
            state=state_of(state),
            reason=reason,
            metadata=metadata_from(where),
            keys=keys or None,
        )
    _tell("deleted", count, as_json)
    if keys and not count:
        raise typer.Exit(1)


def _where(keys: list[str] | None, collection: str | None) -> str | None:
    """A key names an item within its collection, as everywhere else."""
    return "default" if keys and collection is None else collection


def _tell(done: str, count: int, as_json: bool) -> None:
    if as_json:
        print_json({"items": count})
    else:
        typer.echo(f"{count} item{'' if count == 1 else 's'} {done}")
