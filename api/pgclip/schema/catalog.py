"""What the catalogs say of schema pgclip. Reads, and changes nothing.

Every query is to be run with search_path pg_catalog (`qualified`), so that names are qualified.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

# Functions, views, types of answers and triggers of ours, and whatever may be in our schema
# besides. "address" is what ALTER and DROP take. A trigger has its table's owner.
_FOUND = """
    SELECT 'function ' || p.proname, 'pg_proc'::regclass::oid, p.oid, p.proowner::regrole::text,
           format('ROUTINE %s', p.oid::regprocedure), md5(pg_get_functiondef(p.oid))
    FROM pg_proc p WHERE p.pronamespace = 'pgclip'::regnamespace AND p.prokind IN ('f', 'p')
    UNION ALL
    SELECT 'view ' || c.relname, 'pg_class'::regclass, c.oid, c.relowner::regrole::text,
           format('VIEW %s', c.oid::regclass),
           md5(pg_get_viewdef(c.oid) || coalesce(c.reloptions::text, ''))
    FROM pg_class c WHERE c.relnamespace = 'pgclip'::regnamespace AND c.relkind = 'v'
    UNION ALL
    SELECT 'type ' || t.typname, 'pg_type'::regclass, t.oid, t.typowner::regrole::text,
           format('TYPE %s', t.oid::regtype),
           md5((SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', '
                                  ORDER BY attnum)
                FROM pg_attribute WHERE attrelid = c.oid AND NOT attisdropped))
    FROM pg_type t JOIN pg_class c ON c.oid = t.typrelid AND c.relkind = 'c'
    WHERE t.typnamespace = 'pgclip'::regnamespace
    UNION ALL
    SELECT 'trigger ' || g.tgname, 'pg_trigger'::regclass, g.oid, NULL,
           format('TRIGGER %I ON %s', g.tgname, c.oid::regclass),
           md5(pg_get_triggerdef(g.oid) || g.tgenabled::text)
    FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid
    WHERE NOT g.tgisinternal AND c.relnamespace = 'pgclip'::regnamespace
"""
# A view's rule depends for it; its row type, a type, and the arrays of both are depended on, too.
_DEPENDANTS = """
    WITH referred(class, oid) AS (
        SELECT %(class)s::oid, %(oid)s::oid
        UNION ALL
        SELECT 'pg_type'::regclass, u.oid
        FROM pg_type t CROSS JOIN LATERAL (VALUES (t.oid), (t.typarray)) u(oid)
        WHERE t.oid = %(oid)s OR t.typrelid = %(oid)s
    )
    SELECT DISTINCT a.class, a.oid, pg_describe_object(a.class, a.oid, 0)
    FROM pg_depend d
    JOIN referred f ON f.class = d.refclassid AND f.oid = d.refobjid
    LEFT JOIN pg_rewrite w ON d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid
    CROSS JOIN LATERAL (SELECT CASE WHEN w.oid IS NULL THEN d.classid ELSE 'pg_class'::regclass END,
                               coalesce(w.ev_class, d.objid)) a(class, oid)
    WHERE d.deptype = 'n' AND (a.class, a.oid) NOT IN (SELECT class, oid FROM referred)
"""
_INDEXES = """
    SELECT d.objid::regclass::text FROM pg_depend d
    JOIN pg_index i ON i.indexrelid = d.objid
    WHERE d.refclassid = 'pg_proc'::regclass AND d.refobjid = %s
      AND d.classid = 'pg_class'::regclass
"""
# Of what holds data: who owns it. The owner of all is the one of the installation's row.
_OWNER = """
    SELECT relowner::regrole::text, pg_has_role(relowner, 'SET') FROM pg_class
    WHERE oid = to_regclass('pgclip.installation')
"""
_DISOWNED = """
    SELECT format('%%s %%s', CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, oid::regclass),
           relowner::regrole::text
    FROM pg_class c WHERE relnamespace = 'pgclip'::regnamespace AND relkind IN ('r', 'S', 'p')
      AND relowner::regrole::text <> %s
      AND (relname = ANY(%s) OR relname ~ '^embedding_[0-9]+_[0-9]+$')
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype IN ('a', 'i'))
"""


# What changes how the catalogs show a definition.
_SHOWN = {
    "search_path": "pg_catalog",
    "quote_all_identifiers": "off",
    "IntervalStyle": "postgres",
}


@dataclass(frozen=True)
class Found:
    """An object of the schema as it is there. `digest` is a hash of how the catalogs show it."""

    name: str
    class_oid: int
    oid: int
    owner: str | None
    address: str
    digest: str


@contextmanager
def qualified(cursor: "Cursor") -> Iterator[None]:
    """The catalogs show things in one way, whatever is the database's default: names qualified.

    Ends what it set, but for an error of Postgres.
    """
    names = ", ".join(f"current_setting('{name}')" for name in _SHOWN)
    cursor.execute(f"SELECT {names}")
    before = cursor.fetchone() or tuple(_SHOWN.values())
    setting = "SELECT " + ", ".join(f"set_config('{name}', %s, true)" for name in _SHOWN)
    cursor.execute(setting, tuple(_SHOWN.values()))
    yield
    cursor.execute(setting, before)


def exists(cursor: "Cursor") -> bool:
    """Whether there is a schema pgclip that a migration has made."""
    cursor.execute("SELECT to_regclass('pgclip.schema_version') IS NOT NULL")
    return bool((cursor.fetchone() or (False,))[0])


def found(cursor: "Cursor") -> list[Found]:
    """Every function, view, type of answers and trigger in the schema."""
    cursor.execute(_FOUND)
    return [Found(*row) for row in cursor.fetchall()]


def signatures(cursor: "Cursor", function: str) -> int:
    """How many functions of the schema have that name."""
    cursor.execute(
        "SELECT count(*) FROM pg_proc WHERE pronamespace = 'pgclip'::regnamespace AND proname = %s",
        (function,),
    )
    return int((cursor.fetchone() or (0,))[0])


def recorded(cursor: "Cursor") -> dict[str, tuple[str, str]]:
    """What was laid, by name: the hash of its statement, and its digest right after."""
    cursor.execute("SELECT name, source, found FROM pgclip.definition")
    return {name: (source, digest) for name, source, digest in cursor.fetchall()}


def dependants(cursor: "Cursor", of: Found) -> list[tuple[int, int, str]]:
    """What depends on an object directly: class, oid, and a description for people."""
    cursor.execute(_DEPENDANTS, {"class": of.class_oid, "oid": of.oid})
    return list(cursor.fetchall())


def indexes(cursor: "Cursor", of: Found) -> list[str]:
    """Indexes in whose expressions a function stands."""
    cursor.execute(_INDEXES, (of.oid,))
    return [name for (name,) in cursor.fetchall()]


def owner(cursor: "Cursor") -> tuple[str, bool]:
    """Who owns the schema's tables, quoted, and whether the current role may become it."""
    cursor.execute(_OWNER)
    name, is_member = cursor.fetchone() or ("", False)
    return name, is_member


def disowned(cursor: "Cursor", owner: str, names: list[str]) -> list[tuple[str, str]]:
    """Of these tables and sequences, and segments', what another owns: addresses and owners."""
    cursor.execute(_DISOWNED, (owner, names))
    return list(cursor.fetchall())


def vector_schema(cursor: "Cursor") -> str:
    """The schema that holds the vector extension, quoted; empty if it is not installed."""
    cursor.execute(
        "SELECT quote_ident(n.nspname) FROM pg_extension e"
        " JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'"
    )
    (name,) = cursor.fetchone() or ("",)
    return str(name)
