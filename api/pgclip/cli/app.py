"""The commands, in the order in which a person meets them.

Only the one that is called is imported, so that each begins at once.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import Annotated

import typer

from pgclip.cli.errors import reported

# By panel of the help: commands, each with its function, which stands in a module of this package.
_GROUPS: dict[str, dict[str, str]] = {
    "Run": {
        "up": "services.up",
        "migrate": "services.migrate",
        "worker": "services.worker",
        "health": "health.health",
        "doctor": "doctor.doctor",
        "settings": "look.settings",
    },
    "Index and search": {
        "index": "index.index",
        "search": "search.search",
        "browse": "browse.browse",
        "ask": "ask.ask",
        "duplicates": "duplicates.duplicates",
        "calibrate": "duplicates.calibrate",
        "show": "look.show",
        "export": "export.export",
        "labels": "labels.app",
    },
    "Look and control": {
        "status": "status.status",
        "models": "models.app",
        "segments": "segments.segments",
        "list": "look.list_items",
        "missing": "missing.missing",
        "retry": "control.retry",
        "cancel": "control.cancel",
        "delete": "control.delete",
    },
}


def app_for(arguments: Sequence[str]) -> typer.Typer:
    """The command that is called; all of them if it is not clear which one is."""
    called = arguments[0] if arguments else ""
    known = any(called in commands for commands in _GROUPS.values())
    app = typer.Typer(
        name="pgclip",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"]},
        help="Images and texts, searchable in your Postgres.",
        epilog="Settings are PGCLIP_* variables; pgclip settings lists them. Without "
        "PGCLIP_DATABASE_URL, commands talk to what pgclip up started.",
    )
    app.callback()(_options)
    if called == "--version":
        return app
    for panel, commands in _GROUPS.items():
        for name, place in commands.items():
            if name == called or not known:
                _add(app, name, place, panel)
    return app


def _add(app: typer.Typer, name: str, place: str, panel: str) -> None:
    module, _, attribute = place.partition(".")
    command = getattr(import_module(f"pgclip.cli.{module}"), attribute)
    if isinstance(command, typer.Typer):
        app.add_typer(command, name=name, rich_help_panel=panel)
    else:
        app.command(name, rich_help_panel=panel)(reported(command))


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"pgclip {version('pgclip')}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    """Images and texts, searchable in your Postgres."""
