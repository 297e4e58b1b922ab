"""Lays definitions: drops what is gone, creates what is missing, replaces what differs.

All within the caller's transaction. Never CASCADE: what depends on an object that has to be dropped
is dropped and laid anew if it is ours, and else named in an error.
"""

from contextlib import contextmanager
from typing import TYPE_CHECKING

from pgclip.errors import SchemaError
from pgclip.schema import catalog
from pgclip.schema.catalog import Found
from pgclip.schema.definitions import Definition
from pgclip.schema.plan import Plan, lacking_grants

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg2.extensions import cursor as Cursor

# Postgres can't replace it in place: other arguments' names, another result, other columns,
# another kind of object.
_NEEDS_DROP = {"42P13", "42P16", "42809"}
_RECORD = """
    INSERT INTO pgclip.definition (name, source, found) VALUES (%s, %s, %s)
    ON CONFLICT (name) DO UPDATE SET source = excluded.source, found = excluded.found
    WHERE (definition.source, definition.found) <> (excluded.source, excluded.found)
"""


def lay(cursor: "Cursor", plan: Plan) -> None:
    """Does what the plan says of definitions and grants. The role is the owner.

    Raises SchemaError if something that isn't ours depends on what has to be dropped.
    """
    with catalog.qualified(cursor):
        # They may call what comes after them.
        cursor.execute("SET LOCAL check_function_bodies = off")
        layer = _Layer(cursor, plan)
        for found in plan.gone:
            layer.drop(found)
        for definition in plan.definitions:
            if layer.is_due(definition):
                layer.lay(definition)
        _record(cursor, plan.definitions)
        for statement in lacking_grants(cursor):
            cursor.execute(statement)


def drop_views(cursor: "Cursor") -> None:
    """Drops our views, where they are in the way of a change of tables; they are laid anew."""
    with catalog.qualified(cursor):
        recorded = catalog.recorded(cursor)
        ours = [each for each in catalog.found(cursor) if each.name in recorded]
        dropping = _Dropping(cursor, ours)
        for each in ours:
            if each.name.startswith("view "):
                dropping.drop(each)


class _Dropping:
    """Drops what is ours, and first what of ours depends on it."""

    def __init__(self, cursor: "Cursor", ours: list[Found]) -> None:
        self._cursor = cursor
        self._ours = {each.oid: each for each in ours}
        self.dropped: dict[int, Found] = {}

    def drop(self, found: Found) -> None:
        """Does nothing if it is gone already, or not ours."""
        if found.oid in self.dropped or found.oid not in self._ours:
            return
        for _, oid, description in catalog.dependants(self._cursor, found):
            if oid not in self._ours:
                raise SchemaError(
                    f"{description} depends on {found.name} of schema pgclip, which has to be "
                    "made anew. Drop it, run pgclip migrate, and create it again"
                )
            if oid != found.oid:
                self.drop(self._ours[oid])
        self.dropped[found.oid] = found
        self._cursor.execute(f"DROP {found.address}")


class _Layer:
    """Lays definitions in their order: those that have changed, and what was dropped on the way."""

    def __init__(self, cursor: "Cursor", plan: Plan) -> None:
        names = {definition.name for definition in plan.definitions}
        self._cursor = cursor
        self._changed = set(plan.changed)
        self._before = [each for each in plan.found if each.name in names]
        self._dropping = _Dropping(cursor, [*self._before, *plan.gone])

    def drop(self, found: Found) -> None:
        self._dropping.drop(found)

    def is_due(self, definition: Definition) -> bool:
        dropped = (found.name for found in self._dropping.dropped.values())
        return definition.name in self._changed or definition.name in dropped

    def lay(self, definition: Definition) -> None:
        before = [
            each
            for each in self._before
            if each.name == definition.name and each.oid not in self._dropping.dropped
        ]
        is_alone = len(before) < 2 and not definition.name.startswith("type ")
        if not is_alone or not self._replace(definition):
            for each in before:
                self.drop(each)
            self._cursor.execute(definition.replacing)
        elif definition.name.startswith("function "):
            self._drop_other_signatures(definition, before)
        if definition.name in self._changed:
            for each in before:
                for index in catalog.indexes(self._cursor, each):
                    self._cursor.execute(f"REINDEX INDEX {index}")

    def _replace(self, definition: Definition) -> bool:
        import psycopg2

        try:
            with _savepoint(self._cursor):
                self._cursor.execute(definition.replacing)
        except psycopg2.Error as error:
            if error.pgcode not in _NEEDS_DROP:
                raise
            return False
        return True

    def _drop_other_signatures(self, definition: Definition, before: list[Found]) -> None:
        """Those of earlier versions, which Postgres takes for other functions."""
        if catalog.signatures(self._cursor, definition.name.removeprefix("function ")) > 1:
            for each in before:
                self.drop(each)


def _record(cursor: "Cursor", wanted: list[Definition]) -> None:
    """Notes what was laid from what, and how the catalogs show it."""
    digests = {each.name: each.digest for each in catalog.found(cursor)}
    for definition in wanted:
        cursor.execute(_RECORD, (definition.name, definition.source, digests[definition.name]))
    names = [definition.name for definition in wanted]
    cursor.execute("DELETE FROM pgclip.definition WHERE name <> ALL(%s)", (names,))


@contextmanager
def _savepoint(cursor: "Cursor") -> "Iterator[None]":
    cursor.execute("SAVEPOINT laying")
    try:
        yield
    except BaseException:
        cursor.execute("ROLLBACK TO SAVEPOINT laying")
        raise
    cursor.execute("RELEASE SAVEPOINT laying")
