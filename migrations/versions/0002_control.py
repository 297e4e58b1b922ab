"""Listing and control, submissions as arrays, contents that are dropped once they are encoded.

Functions of the foundation that change are replaced as a whole.
"""

from pathlib import Path

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

SQL = Path(__file__).parents[1] / "sql" / revision
FILES = ["contents", "submit", "views", "control"]


def upgrade() -> None:
    for name in FILES:
        sql = (SQL / f"{name}.sql").read_text(encoding="utf-8")
        op.get_bind().exec_driver_sql(sql.replace("%", "%%"))


def downgrade() -> None:
    """Only on the way to base, where 0001 drops the rest: dropped contents can't come back."""
    op.execute("DROP VIEW pgclip.collections, pgclip.models")
    op.execute("DROP FUNCTION pgclip.list_items, pgclip._matching")
