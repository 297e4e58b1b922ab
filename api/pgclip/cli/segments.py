"""`pgclip segments`: the tables in which vectors live, and their indexes."""

import threading
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Annotated

import typer

from pgclip import statements
from pgclip.cli.options import AsJson, DatabaseUrl, RedisUrl, client_for
from pgclip.cli.output import print_json, print_table, shown_age, shown_bytes
from pgclip.database import Database
from pgclip.searching.segments import Maintenance, maintenance_connections
from pgclip.settings import Settings


def segments(
    build: Annotated[
        bool, typer.Option("--build", help="First do what workers do: build, merge, drop.")
    ] = False,
    database_url: DatabaseUrl = None,
    redis_url: RedisUrl = None,
    as_json: AsJson = False,
) -> None:
    """Show the segments of each model's vectors.

    New vectors go to the hot one, which has no index; sealed ones have theirs.
    """
    with client_for(database_url, redis_url) as client:
        if build:
            _build(client.settings)
        found = client.segments()
    if as_json:
        print_json(found)
        return
    print_table(
        ("model", "number", "state", "kind", "vectors", "table", "indexes", "age"),
        (
            (
                *(
                    segment.model,
                    segment.number,
                    segment.state,
                    segment.kind or "",
                    segment.vectors,
                ),
                *(shown_bytes(segment.table_bytes), shown_bytes(segment.index_bytes)),
                shown_age(segment.created_at),
            )
            for segment in found
        ),
    )


def _build(settings: Settings) -> None:
    """Does what is left to do, for every model in use. Ctrl-C ends it; nothing is left behind."""
    database = maintenance_connections(settings)
    stopping = threading.Event()
    try:
        # On a thread, because a statement on this one would not hear of Ctrl-C before its end.
        with ThreadPoolExecutor(1) as thread:
            work = thread.submit(_maintain, settings, database, stopping)
            try:
                work.result()
            except KeyboardInterrupt:
                stopping.set()
                while not work.done():
                    database.cancel()
                    wait([work], 0.2)
                raise
    finally:
        database.close()


def _maintain(settings: Settings, database: Database, stopping: threading.Event) -> None:
    with database.transaction("segments") as cursor:
        cursor.execute(statements.MODELS_WITH_SEGMENTS)
        models = [model for (model,) in cursor.fetchall()]
    for model in models:
        Maintenance(settings, database, model, waits=True).run(stopping.is_set)
