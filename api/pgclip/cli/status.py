"""`pgclip status`: what waits, what is done, what failed and why, and who works."""

import time
from dataclasses import asdict, dataclass
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pgclip import statements
from pgclip.cli.options import AsJson, DatabaseUrl, RedisUrl, settings_for
from pgclip.cli.output import out, print_json
from pgclip.database import Database


@dataclass(frozen=True)
class Status:
    """One look at the database. Ages are seconds."""

    items: dict[str, int]
    failed: dict[str, int]
    oldest_waiting: float | None
    rate: float
    models: list[dict[str, Any]]
    recall: list[dict[str, Any]]
    relabelings: list[dict[str, Any]]
    tables: list[dict[str, Any]]
    workers: list[dict[str, Any]]


def status(
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Look again and again.")] = False,
    every: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.1)] = 2.0,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show what waits, what is done, what failed and why, and the workers."""
    settings = settings_for(database_url, redis_url)
    database = Database(settings.database_url, pool_size=1)
    try:
        if watch and out.is_terminal and not as_json:
            _watch(database, every)
        while True:
            found = look(database)
            if as_json:
                print_json(asdict(found))
            else:
                out.print(shown(found))
            if not watch:
                return
            out.file.flush()
            time.sleep(every)
    finally:
        database.close()


def _watch(database: Database, every: float) -> NoReturn:
    """The same lines of a terminal, again and again."""
    with Live(shown(look(database)), console=out, auto_refresh=False) as live:
        while True:
            time.sleep(every)
            live.update(shown(look(database)), refresh=True)


def look(database: Database) -> Status:
    """Asks the database."""
    with database.transaction("status") as cursor:

        def rows(statement: str, *names: str) -> list[dict[str, Any]]:
            cursor.execute(statement)
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

        cursor.execute(statements.COUNT_ITEMS, (None,) * 6)
        items = dict(cursor.fetchall())
        queue = rows(statements.STATUS_QUEUE, "model", "state", "jobs", "oldest")
        failed = rows(statements.FAILURES, "model", "reason", "items")
        models = rows(
            statements.STATUS_MODELS,
            *("name", "state", "dimension", "items", "jobs", "failures", "rate"),
        )
        segments = rows(statements.STATUS_SEGMENTS, "name", "unindexed_vectors", "sealed_segments")
        recall = rows(
            statements.RECALL,
            *("model", "query_kind", "kind", "share", "queries", "asked", "recall", "met_nothing"),
            *("effort", "promise", "looked_at"),
        )
        relabelings = rows(statements.STATUS_RELABELINGS, "model", "labelled", "share")
        tables = rows(
            statements.STATUS_TABLES,
            *("table", "collection", "state", "rows", "items", "waiting", "changes"),
            *("oldest_change", "failed", "filled", "trouble"),
        )
        workers = rows(
            statements.STATUS_WORKERS,
            *("id", "host", "pid", "model", "device", "precision", "batch_size", "alive", "jobs"),
            *("heartbeat_age", "trouble"),
        )
    live = {row["name"]: row["rate"] for row in models if row["state"] == "live"}
    return Status(
        items={state: items[state] for state in ("queued", "leased", "done", "failed")},
        failed={row["reason"]: row["items"] for row in failed if row["model"] in live},
        oldest_waiting=max((q["oldest"] for q in queue if q["state"] == "queued"), default=None),
        rate=sum(live.values(), 0.0),
        models=[_with_segments(model, segments) for model in models],
        recall=recall,
        relabelings=relabelings,
        tables=tables,
        workers=workers,
    )


def _with_segments(model: dict[str, Any], segments: list[dict[str, Any]]) -> dict[str, Any]:
    """A model that no worker has served yet has no segments."""
    found = next((row for row in segments if row["name"] == model["name"]), {})
    return {**model, "sealed_segments": 0, "unindexed_vectors": 0, **found}


def shown(found: Status) -> RenderableType:
    """As a person sees it."""
    parts: list[RenderableType] = [
        Text("   ".join(f"{name} {count}" for name, count in found.items.items())),
        Text(f"{found.rate:.1f} items a second of late"),
    ]
    if found.oldest_waiting is not None:
        parts.append(Text(f"oldest waiting: {found.oldest_waiting:.0f} s"))
    for reason, count in found.failed.items():
        parts.append(Text(f"failed, {reason}: {count}", style="red"))
    for model in found.models:
        parts.append(
            Text(
                f"model {model['name']} ({model['state']}, {model['dimension'] or '?'} dimensions):"
                f" {model['items']} items, {model['jobs']} jobs, {model['failures']} failed"
            )
        )
        parts.append(
            Text(
                f"  {_counted(model['sealed_segments'], 'sealed segment')}, about"
                f" {_counted(model['unindexed_vectors'], 'vector')} without an index"
            )
        )
        found_of = [
            f"{row['query_kind']} → {row['kind']} {row['recall']:.3f}"
            for row in found.recall
            if row["model"] == model["name"] and row["share"] == 1
        ]
        if found_of:
            parts.append(Text(f"  of the ten nearest, searches find: {', '.join(found_of)}"))
    parts += [
        Text(f"labels by {one['model']} are made anew: {one['labelled']} items, {one['share']:.0%}")
        for one in found.relabelings
    ]
    parts += [_table_line(table) for table in found.tables]
    if not found.workers:
        parts.append(Text("no worker; start one with: pgclip worker", style="yellow"))
        return Group(*parts)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("worker", "host", "pid", "model", "device", "batch", "jobs", "heartbeat"):
        table.add_column(column)
    for worker in found.workers:
        beat = f"{worker['heartbeat_age']:.0f} s ago"
        table.add_row(
            *(str(worker[name]) for name in ("id", "host", "pid", "model")),
            f"{worker['device']} {worker['precision']}",
            *(str(worker[name]) for name in ("batch_size", "jobs")),
            beat if worker["alive"] else f"[red]{beat}, dead",
        )
    troubles = [
        Text(f"worker {worker['id']}: {worker['trouble']}", style="yellow")
        for worker in found.workers
        if worker["alive"] and worker["trouble"]
    ]
    return Group(*parts, Text(), table, *troubles)


def _table_line(table: dict[str, Any]) -> Text:
    """Of a table that is kept in step."""
    details = [f"{table['items']} items", f"{table['waiting']} waiting"]
    if table["state"] == "filling":
        details.insert(0, f"{table['filled']:.0%} of about {table['rows']} rows gone through")
    if table["changes"]:
        details.append(f"{table['changes']} changes since {table['oldest_change']:.0f} s")
    details += [f"{count} failed, {reason}" for reason, count in table["failed"].items()]
    if table["trouble"]:
        details.append(table["trouble"])
    line = f"table {table['table']} in {table['collection']} ({table['state']}): "
    style = "yellow" if table["trouble"] else ""
    return Text(line + ", ".join(details), style=style)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
