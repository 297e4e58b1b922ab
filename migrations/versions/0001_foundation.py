"""The foundation: queue, leases, ledger, a table of vectors per model, labels, exact search.

Later migrations change these objects by statements of their own; the files that this one runs
stay as they are.
"""

from pathlib import Path

from alembic import op
from sqlalchemy import text

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SQL = Path(__file__).parents[1] / "sql" / revision
FILES = ["tables", "models", "submit", "queue", "store", "labels", "queries", "search", "views"]

VECTOR_SCHEMA = """
    SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
    WHERE e.extname = 'vector'
"""

DROP_EVERYTHING = """
DO $$
DECLARE
    v_statement text;
BEGIN
    FOR v_statement IN
        SELECT format('DROP VIEW pgclip.%I CASCADE', viewname)
        FROM pg_views WHERE schemaname = 'pgclip'
        UNION ALL
        SELECT format('DROP TABLE IF EXISTS pgclip.%I CASCADE', tablename)
        FROM pg_tables WHERE schemaname = 'pgclip' AND tablename <> 'schema_version'
        UNION ALL
        SELECT 'DROP ROUTINE ' || oid::regprocedure || ' CASCADE'
        FROM pg_proc WHERE pronamespace = 'pgclip'::regnamespace
        UNION ALL
        SELECT 'DROP SEQUENCE pgclip.vector_id'
        UNION ALL
        SELECT 'DROP TYPE ' || t::text
        FROM unnest(ARRAY['pgclip.hit', 'pgclip.submission', 'pgclip.kind',
                          'pgclip.model_state']) t
    LOOP
        EXECUTE v_statement;
    END LOOP;
END $$;
"""


def upgrade() -> None:
    connection = op.get_bind()
    connection.execute(text("CREATE EXTENSION IF NOT EXISTS vector"))
    schema = connection.execute(text(VECTOR_SCHEMA)).scalar_one()
    for name in FILES:
        sql = (SQL / f"{name}.sql").read_text(encoding="utf-8")
        connection.exec_driver_sql(sql.replace("@vector@", schema).replace("%", "%%"))


def downgrade() -> None:
    op.get_bind().exec_driver_sql(DROP_EVERYTHING.replace("%", "%%"))
