"""Decides items that are there when a promise is kept, or kept no more."""

from pgclip.database import Database
from pgclip_workers import statements

_AT_ONCE = 2000


class Decider:
    """Goes through items page by page, of all workers one at a time; tells who follows changes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def step(self) -> int:
        """How many rows were dealt with in one transaction; 0 if there is nothing to do."""
        with self._database.transaction("decisions") as cursor:
            cursor.execute(statements.DECIDE_ITEMS, (_AT_ONCE,))
            (count,) = cursor.fetchone() or (0,)
        return int(count)
