"""`pgclip show`, `list` and `settings`."""

import os
from dataclasses import fields
from typing import Annotated, Any

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
from pgclip.cli.output import (
    print_json,
    print_table,
    shown_key,
    shown_labels,
    shown_metadata,
)
from pgclip.settings import Settings, masked


def show(
    key: Annotated[str, typer.Argument(help="The item's key.")],
    collection: Annotated[str, typer.Option("--collection", "-c")] = "default",
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show an item: its state, metadata, labels, and how many vectors it has."""
    with client_for(database_url, redis_url) as client:
        item = client.get(key, collection=collection)
    if as_json:
        print_json(item)
        return
    about = {
        "key": item.key,
        "collection": item.collection,
        "kind": item.kind,
        "state": item.state,
        "reason": item.reason,
        "error": item.error,
        "source": item.source,
        "metadata": shown_metadata(item.metadata, width=1000),
        "labels": shown_labels(item.labels, 100),
        "vectors": " × ".join(map(str, item.vectors.shape)) if len(item.vectors) else "none yet",
        "sha256": item.content_hash and item.content_hash.hex(),
        "bytes kept": "yes" if item.kept else "no",
        "submitted": f"{item.created_at:%Y-%m-%d %H:%M:%S %Z}",
        "updated": f"{item.updated_at:%Y-%m-%d %H:%M:%S %Z}",
    }
    for name, value in about.items():
        if value:
            typer.echo(f"{name:>10}  {value}")


def list_items(
    collection: Collection = None,
    kind: KindOption = None,
    state: StateOption = None,
    reason: Reason = None,
    where: Where = None,
    limit: Annotated[int, typer.Option("--limit", "-n", help="0: all of them.")] = 50,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
    as_json: AsJson = False,
) -> None:
    """List items, oldest first: all of them, or those that match."""
    with client_for(database_url, redis_url) as client:
        found = client.items(
            collection=collection,
            kind=kind_of(kind),
            state=state_of(state),
            reason=reason,
            metadata=metadata_from(where),
        )
        items = [item for _, item in zip(range(limit or 2**62), found, strict=False)]
    if as_json:
        print_json(items)
        return
    print_table(
        ("state", "kind", "collection", "key", "why, or metadata"),
        (
            (
                *(item.state, item.kind, item.collection, shown_key(item.key)),
                item.error or shown_metadata(item.metadata),
            )
            for item in items
        ),
        wide=2,
    )
    if limit and len(items) == limit:
        typer.echo(f"The first {limit}; --limit 0 shows all.", err=True)


def settings(as_json: AsJson = False) -> None:
    """Show every setting: its value, where that comes from, and what it is for."""
    loaded = Settings.load()
    rows: list[dict[str, Any]] = []
    for field in fields(Settings):
        variable = f"PGCLIP_{field.name.upper()}"
        value = getattr(loaded, field.name)
        if isinstance(value, tuple):
            between = os.pathsep if field.name == "roots" else ","
            value = between.join(map(str, value))
        if isinstance(value, str):
            value = masked(value)
        rows.append(
            {
                "setting": variable,
                "value": value,
                "from": "environment" if os.environ.get(variable) else "default",
                "what": field.metadata["description"],
            }
        )
    if as_json:
        print_json(rows)
    else:
        print_table(("setting", "value", "from", "what"), (row.values() for row in rows), wide=3)
