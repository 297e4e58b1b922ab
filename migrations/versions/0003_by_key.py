"""Storing and looking up by key however tables have grown; a content's hash computed once."""

from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

SQL = Path(__file__).parents[1] / "sql" / revision
FILES = ["claim", "store", "submit"]


def upgrade() -> None:
    # A model with vectors has a segment, which keeps it from being deleted. The ledger need not
    # look for it once more, for every item that is stored.
    op.execute("ALTER TABLE pgclip.embedding_set DROP CONSTRAINT embedding_set_model_id_fkey")
    # Every column that known_embeddings asks by: without statistics the planner takes a primary
    # key that ends in model_id for the better one, and reads all of it.
    op.execute("DROP INDEX pgclip.embedding_set_content")
    op.execute(
        "CREATE INDEX embedding_set_content"
        " ON pgclip.embedding_set (content_hash, model_id, item_id)"
    )
    for name in FILES:
        sql = (SQL / f"{name}.sql").read_text(encoding="utf-8")
        op.get_bind().exec_driver_sql(sql.replace("%", "%%"))


def downgrade() -> None:
    """Only on the way to base, where 0001 drops everything."""
