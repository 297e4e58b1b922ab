"""What the commands of `pgclip models` belong to."""

from typing import Annotated

import typer

app = typer.Typer(
    help="Models: add one, fill it, compare, promote, go back, all while everything runs.",
    epilog="docs/change-the-model.md is the way through it.",
)

Name = Annotated[str, typer.Argument(help="The model's name.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]
Keep = Annotated[
    float | None,
    typer.Option(metavar="DAYS", help="How long the one before stands by; 0: until retired."),
]
Anyway = Annotated[bool, typer.Option("--anyway", help="Whatever speaks against it.")]


def shown_duration(seconds: float) -> str:
    """Such as 90 s, 45 min, 7.5 hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
