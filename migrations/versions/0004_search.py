"""Segments with indexes, filters, hybrid search, near-duplicates, calibration, roles.

Functions of earlier versions that change are replaced as a whole.
"""

from pathlib import Path

from alembic import op
from sqlalchemy import text

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

SQL = Path(__file__).parents[1] / "sql" / revision
FILES = [
    "segments",
    "store",
    "filter",
    "query",
    "embed",
    "calibration",
    "search",
    "text",
    "duplicates",
    "access",
]

VECTOR_SCHEMA = """
    SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
    WHERE e.extname = 'vector'
"""


def upgrade() -> None:
    connection = op.get_bind()
    schema = connection.execute(text(VECTOR_SCHEMA)).scalar_one()
    # Settings of functions, such as hnsw.ef_search, are checked by the extension's library.
    connection.execute(text(f"SELECT '[1]'::{schema}.halfvec"))
    for name in FILES:
        sql = (SQL / f"{name}.sql").read_text(encoding="utf-8")
        connection.exec_driver_sql(sql.replace("@vector@", schema).replace("%", "%%"))


def downgrade() -> None:
    """Only on the way to base, where 0001 drops everything that is not a type of a later version.

    With the types go the functions that take or return them.
    """
    op.execute(
        "DROP TYPE pgclip.nearest, pgclip.narrowing, pgclip.hybrid_hit, pgclip.duplicate CASCADE"
    )
    op.execute("DROP TABLE pgclip.calibration CASCADE")
