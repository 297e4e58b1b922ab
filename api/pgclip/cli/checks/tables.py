"""Whether tables that are kept in step are."""

from collections.abc import Iterator

from pgclip import statements
from pgclip.cli.checks.finding import Finding
from pgclip.database import Database

_BEHIND_SECONDS = 60


def tables(database: Database) -> Iterator[Finding]:
    """A finding for each table; none if none is indexed."""
    with database.transaction("tables") as cursor:
        cursor.execute(statements.STATUS_TABLES)
        rows = cursor.fetchall()
    for name, collection, state, _, items, waiting, changes, age, _, filled, trouble in rows:
        what = f"{name} in {collection}: {items} items, {waiting} waiting, {changes} changes"
        if trouble:
            advice = "SELECT pgclip.index_table(…) says what counts now, and sets triggers again"
            yield Finding("tables", "warning", f"{name} in {collection}: {trouble}", advice)
        elif age is not None and age > _BEHIND_SECONDS:
            advice = "Workers follow tables: is one running? pgclip status tells"
            yield Finding("tables", "warning", f"{what}, the oldest since {age:.0f} s", advice)
        elif state == "filling":
            yield Finding("tables", "ok", f"{what}; {filled:.0%} of its rows gone through")
        else:
            yield Finding("tables", "ok", what)
