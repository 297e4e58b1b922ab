"""The command `pgclip`. Needs the extra [cli], which [worker] and [local] bring along."""

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command. Exit status: 0 done, 1 it failed, 2 called wrongly, 130 interrupted."""
    try:
        from pgclip.cli.app import app_for
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("typer", "rich"):
            raise
        print(
            f"pgclip: the command line needs {error.name}; install it with: "
            "pip install 'pgclip[cli]'",
            file=sys.stderr,
        )
        return 1
    given = sys.argv[1:] if arguments is None else arguments
    try:
        app_for(given)(given, prog_name="pgclip")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    return 0
