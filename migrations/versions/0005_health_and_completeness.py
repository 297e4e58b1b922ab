"""What workers say of themselves; what lacks a vector or a label, and healing it."""

from pathlib import Path

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

SQL = Path(__file__).parents[1] / "sql" / revision
FILES = ["health", "labels", "store", "missing", "access"]


def upgrade() -> None:
    for name in FILES:
        sql = (SQL / f"{name}.sql").read_text(encoding="utf-8")
        op.get_bind().exec_driver_sql(sql.replace("%", "%%"))


def downgrade() -> None:
    """Only on the way to base, where 0001 drops everything."""
