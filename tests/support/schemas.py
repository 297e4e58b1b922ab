"""Databases with a schema of before, and what the catalogs say of one."""

from typing import Any

import pytest
from support.databases import run_sql, with_database

from pgclip.local import LocalServices

# All that a migration may have made, as Postgres shows it; tables of segments and indexes that
# users made are left out.
CATALOGS = {
    "functions": """
        SELECT pg_get_functiondef(oid), proowner::regrole::text,
               ARRAY(SELECT a::text FROM unnest(proacl) a ORDER BY 1)
        FROM pg_proc WHERE pronamespace = 'pgclip'::regnamespace ORDER BY 1""",
    "views": """
        SELECT relname, pg_get_viewdef(oid), ARRAY(SELECT a::text FROM unnest(relacl) a ORDER BY 1)
        FROM pg_class WHERE relkind = 'v' AND relnamespace = 'pgclip'::regnamespace ORDER BY 1""",
    "columns": """
        SELECT c.relname, attname, format_type(atttypid, atttypmod), attnotnull, attstorage,
               attidentity, pg_get_expr(adbin, adrelid), c.relreplident, c.reloptions
        FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
        LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
        WHERE relnamespace = 'pgclip'::regnamespace AND attnum > 0 AND NOT attisdropped
          AND relkind IN ('r', 'c', 'v') AND c.relname !~ '^embedding_\\d' ORDER BY 1, 2""",
    "indexes": """
        SELECT indexname, indexdef FROM pg_indexes
        WHERE schemaname = 'pgclip' AND tablename !~ '^embedding_\\d'
          AND indexname NOT LIKE 'item_metadata_%%' ORDER BY 1""",
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'pgclip'::regnamespace
          AND conrelid::regclass::text !~ 'embedding_\\d' ORDER BY 1, 2""",
    "triggers": """
        SELECT pg_get_triggerdef(oid), tgenabled FROM pg_trigger
        WHERE NOT tgisinternal ORDER BY 1""",
}


def catalogs(url: str) -> dict[str, list[Any]]:
    return {what: run_sql(url, query.replace("%%", "%")) for what, query in CATALOGS.items()}


@pytest.fixture
def empty(services: LocalServices, request: pytest.FixtureRequest) -> str:
    """A database of its own with the extension and nothing else."""
    (name,) = run_sql(services.database_url, "SELECT 'empty_' || left(md5(random()::text), 8)")[0]
    run_sql(services.database_url, f"CREATE DATABASE {name}")
    url = with_database(services.database_url, name)
    run_sql(url, "CREATE EXTENSION vector")
    return url
