"""This code as the version before it, for rolling upgrades: only what it says of itself differs.

    python older.py VERSION worker            the planted worker
    python older.py VERSION load NAME FILE    submits, searches and deletes until FILE exists

A load prints a JSON line for each thing that it did: what it was, the key, the text; or the error.
"""

import json
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

from support.planted_worker import PlantedEncoder

from pgclip import Client, PgclipError, database
from pgclip.settings import Settings


def load(name: str, stop: Path) -> None:
    """Keys begin with the name."""
    with Client() as client:
        for number in count():
            for what, work in _work(client, f"{name}-{number}").items():
                if stop.exists():
                    return
                told: dict[str, object] = {"what": what, "key": f"{name}-{number}"}
                try:
                    work()
                except PgclipError as error:
                    told["error"] = f"{type(error).__name__}: {error}"
                sys.stdout.write(f"{json.dumps(told)}\n")  # in one piece: others write there too
                sys.stdout.flush()


def _work(client: Client, key: str) -> dict[str, Callable[[], object]]:
    many = [{"text": f"text {key} {n}", "key": f"{key}-{n}"} for n in range(10)]
    return {
        "submit": lambda: client.submit_text(f"text {key}", key=key),
        "submit_many": lambda: client.submit_many(many),
        "replace": lambda: client.submit_text(f"text {key} anew", key=key),
        "delete": lambda: client.delete_items(keys=[f"{key}-0"]),
        "search": lambda: client.search_vector([1.0] * 16, k=3),
    }


def forget_what_is_new() -> None:
    """Statements say no more than the version before could; arguments are the same."""
    from pgclip import statements as of_clients
    from pgclip_workers import statements

    of_clients.SEARCH_VECTOR = """
        SELECT item_id, collection, key, kind, score, source, metadata, labels, relevance, snippet,
               pgclip.failure_of(item_id), %s::text IS NOT NULL
        FROM pgclip.search_vector(pgclip.as_vector(%s), k => %s::int, collection => %s, kind => %s,
            filter => %s::jsonb, min_score => %s::real, min_relevance => %s::real,
            exact => %s::boolean, recall => %s::real, after_score => %s::real, after_item => %s,
            query_kind => (ARRAY[%s, %s])[2]::pgclip.kind)
    """
    statements.PROMISED_LABELS = "SELECT 0 WHERE %s < 0"
    statements.OPEN_SCORES = "SELECT 0"
    statements.DECIDE_ITEMS = "SELECT 0 WHERE %s < 0"
    statements.HEARTBEAT = "SELECT pgclip.heartbeat(%s, %s, %s)::text[] WHERE %s >= 0"
    statements.PREPARE_MODEL = "SELECT 0 WHERE %s < 0"
    statements.MAP_DUE = "SELECT 0 WHERE %s < 0"
    statements.ADD_UP_TALLIES = "SELECT %s < 0"
    statements.NEXT_THUMBNAILS = "SELECT 0 WHERE %s < 0 AND %s"
    statements.THUMBNAILS_DUE = "SELECT '{}'::bigint[] WHERE %s IS NOT NULL AND NOT %s"


def main(version: str, what: str, *more: str) -> int:
    database.SCHEMA_VERSION = version
    forget_what_is_new()
    if what == "load":
        load(more[0], Path(more[1]))
        return 0
    from pgclip_workers.main import run

    return run(Settings.load(), PlantedEncoder)


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except PgclipError as error:
        sys.exit(f"pgclip: {error}")
