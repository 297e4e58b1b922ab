"""The commands, in the order in which a person meets them."""

from collections.abc import Callable
from typing import Annotated

import typer

from pgclip.cli import (
    control,
    doctor,
    duplicates,
    export,
    health,
    index,
    labels,
    look,
    missing,
    search,
    segments,
    services,
    status,
)
from pgclip.cli.errors import reported

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

_GROUPS: dict[str, dict[str, Callable[..., None]]] = {
    "Run": {
        "up": services.up,
        "migrate": services.migrate,
        "worker": services.worker,
        "health": health.health,
        "doctor": doctor.doctor,
        "settings": look.settings,
    },
    "Index and search": {
        "index": index.index,
        "search": search.search,
        "duplicates": duplicates.duplicates,
        "calibrate": duplicates.calibrate,
        "show": look.show,
        "export": export.export,
    },
    "Look and control": {
        "status": status.status,
        "segments": segments.segments,
        "list": look.list_items,
        "missing": missing.missing,
        "retry": control.retry,
        "cancel": control.cancel,
        "delete": control.delete,
    },
}
for panel, commands in _GROUPS.items():
    for name, command in commands.items():
        app.command(name, rich_help_panel=panel)(reported(command))
app.add_typer(labels.app, name="labels", rich_help_panel="Index and search")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"pgclip {version('pgclip')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    """Images and texts, searchable in your Postgres."""
