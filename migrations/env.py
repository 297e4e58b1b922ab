"""Alembic environment: one connection, handed over by pgclip, within its transaction."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=None,
    version_table="schema_version",
    version_table_schema="pgclip",
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
