"""Alembic environment: one connection, handed over by `pgclip.migrate`, one transaction."""

from alembic import context
from sqlalchemy import text

connection = context.config.attributes["connection"]
connection.execute(text("CREATE SCHEMA IF NOT EXISTS pgclip"))
context.configure(
    connection=connection,
    target_metadata=None,
    version_table="schema_version",
    version_table_schema="pgclip",
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
