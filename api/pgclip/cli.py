"""The command `pgclip`: `migrate` and `worker`."""

import argparse
import sys
from collections.abc import Sequence

from pgclip.errors import PgclipError
from pgclip.settings import Settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command. Exit status: 0 done, 1 it failed, 2 it was called wrongly."""
    options = _parser().parse_args(arguments)
    try:
        settings = Settings.load(database_url=options.database_url, redis_url=options.redis_url)
        return int(options.run(settings, options))
    except PgclipError as error:
        print(f"pgclip: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--database-url", help="default: PGCLIP_DATABASE_URL")
    shared.add_argument("--redis-url", help="default: PGCLIP_REDIS_URL")
    parser = argparse.ArgumentParser(
        prog="pgclip", description="Images and texts, searchable in your Postgres."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    migrate = commands.add_parser(
        "migrate", parents=[shared], help="create or upgrade schema pgclip in the database"
    )
    migrate.add_argument(
        "--revision", default="head", help="a version, or base to remove the schema and its data"
    )
    migrate.set_defaults(run=_migrate)
    worker = commands.add_parser(
        "worker", parents=[shared], help="encode and store what was submitted, until stopped"
    )
    worker.set_defaults(run=_worker)
    return parser


def _migrate(settings: Settings, options: argparse.Namespace) -> int:
    from pgclip.migrate import migrate

    migrate(settings.required("database_url"), options.revision)
    print(f"schema pgclip is at {options.revision}")
    return 0


def _worker(settings: Settings, options: argparse.Namespace) -> int:
    settings.required("database_url")
    settings.required("redis_url")
    try:
        # The worker is another package, behind an extra; the client works without it.
        from importlib import import_module

        run = import_module("pgclip_workers.main").run
    except ModuleNotFoundError as error:
        raise PgclipError(
            f"the worker needs {error.name}; install it with: pip install 'pgclip[worker]'"
        ) from error
    return int(run(settings))
