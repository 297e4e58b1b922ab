"""Models that are changed while everything runs."""

from pathlib import Path

from alembic import op
from sqlalchemy import text

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

SQL = Path(__file__).parents[1] / "sql" / f"{revision}.sql"
VECTOR_SCHEMA = """
    SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
    WHERE e.extname = 'vector'
"""


def upgrade() -> None:
    schema = op.get_bind().execute(text(VECTOR_SCHEMA)).scalar_one()
    sql = SQL.read_text(encoding="utf-8").replace("@vector@", schema)
    op.get_bind().exec_driver_sql(sql.replace("%", "%%"))
