"""What differs between the schema as it should be and as it is. Reads, and changes nothing."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pgclip.schema import catalog, versions
from pgclip.schema.catalog import Found
from pgclip.schema.definitions import Definition, definitions

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor


@dataclass(frozen=True)
class Plan:
    """What `pgclip migrate` would do, in its order. Falsy if there is nothing to do.

    `definitions` are all that there should be, `found` what is there. `changed` names definitions
    that are missing or differ, each with the reason; `gone` are objects that were laid once and
    are in no file any more.
    """

    creates_schema: bool
    versions: list[tuple[str, str]]
    disowned: list[tuple[str, str]]
    owner: str
    is_member: bool
    definitions: list[Definition]
    found: list[Found]
    gone: list[Found] = field(default_factory=list)
    changed: dict[str, str] = field(default_factory=dict)
    grants: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.steps())

    def steps(self) -> list[str]:
        """A line for each step, for people."""
        if self.creates_schema:
            return [f"create schema pgclip, at version {self.versions[-1][0]}"]
        return [
            *(f"change what holds data, {number}: {about}" for number, about in self.versions),
            *(
                f"give {address} to {self.owner}; it is {owner}'s"
                for address, owner in self.disowned
            ),
            *(f"drop {found.name}, which is no longer part of pgclip" for found in self.gone),
            *(f"lay {name}: {why}" for name, why in self.changed.items()),
            *self.grants,
        ]


def make_plan(cursor: "Cursor") -> Plan:
    """Compares the catalogs with the files, in the cursor's transaction."""
    with catalog.qualified(cursor):
        is_there = catalog.exists(cursor)
        wanted = definitions(catalog.vector_schema(cursor))
        pending = versions.pending(cursor, is_there)
        if not is_there:
            missing = {definition.name: "it is new" for definition in wanted}
            return Plan(True, pending, [], "", True, wanted, [], changed=missing)
        owner, is_member = catalog.owner(cursor)
        found = catalog.found(cursor)
        recorded = catalog.recorded(cursor)
        names = {definition.name for definition in wanted}
        disowned = [(each.address, each.owner) for each in found
                    if each.name in names and each.owner not in (None, owner)]  # fmt: skip
        changed = _changed(wanted, found, recorded)
        return Plan(
            False,
            pending,
            [*catalog.disowned(cursor, owner, versions.tables()), *disowned],
            owner,
            is_member,
            wanted,
            found,
            [each for each in found if each.name in recorded and each.name not in names],
            changed,
            [] if changed or pending else lacking_grants(cursor),
        )


def lacking_grants(cursor: "Cursor") -> list[str]:
    """Statements that give clients and workers what they lack."""
    cursor.execute("SELECT * FROM pgclip._lacking_grants()")
    return [statement for (statement,) in cursor.fetchall()]


def _changed(
    wanted: list[Definition], found: list[Found], recorded: dict[str, tuple[str, str]]
) -> dict[str, str]:
    """Names of definitions that have to be laid, with the reason for each."""
    digests: dict[str, list[str]] = {}
    for each in found:
        digests.setdefault(each.name, []).append(each.digest)
    reasons = {}
    for definition in wanted:
        source, digest = recorded.get(definition.name, ("", ""))
        there = digests.get(definition.name, [])
        if not there:
            reasons[definition.name] = "it is missing"
        elif source != definition.source:
            reasons[definition.name] = "it is another one now"
        elif there != [digest]:
            reasons[definition.name] = "it has been changed by hand"
    return reasons
