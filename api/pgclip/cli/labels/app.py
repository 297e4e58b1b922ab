"""What the commands of `pgclip labels` belong to."""

from typing import Annotated

import typer

app = typer.Typer(
    help="Sets of labels: define, teach, check and rely on them.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(help="The set's name.")]
