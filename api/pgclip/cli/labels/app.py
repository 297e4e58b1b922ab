"""What the commands of `pgclip labels` belong to."""

from typing import Annotated

import typer

app = typer.Typer(
    help="Sets of labels: define, teach, check and rely on them.",
    epilog="A label is a model's guess unless something is promised of it. Such models are biased "
    "about people, and weak at fine kinds, at counting, at places and at what is rare.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(help="The set's name.")]
