"""Errors as a Unix tool reports them: one line on stderr, and an exit status."""

import functools
import os
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import typer

from pgclip.errors import PgclipError

P = ParamSpec("P")
R = TypeVar("R")


def reported(command: Callable[P, R]) -> Callable[P, R]:
    """The command, with its errors reported: status 1, or 130 if it was interrupted."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except PgclipError as error:
            print(f"pgclip: {error}", file=sys.stderr)
            raise typer.Exit(1) from error
        except BrokenPipeError as error:  # whoever read us has seen enough, as with head
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(141) from error
        except KeyboardInterrupt as error:
            raise typer.Exit(130) from error

    return run
