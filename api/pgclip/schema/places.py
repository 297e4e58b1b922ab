"""Where the migrations lie: inside an installed package, or beside it in a checkout."""

from pathlib import Path

from pgclip.errors import PgclipError

_PLACES = (Path(__file__).parents[1] / "migrations", Path(__file__).parents[3] / "migrations")


def migrations() -> Path:
    """The folder of the migrations. Raises PgclipError if this installation lacks it."""
    for place in _PLACES:
        if (place / "env.py").is_file():
            return place
    raise PgclipError("the migrations are missing from this installation; reinstall pgclip")
