"""index_table_sql in the migrations of an application of its own, run by Alembic."""

from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from support.databases import run_sql
from support.tables import followed, state

ENVIRONMENT = """
from alembic import context
from sqlalchemy import engine_from_config

config = context.config
engine = engine_from_config(config.get_section("alembic"))
with engine.connect() as connection:
    context.configure(connection=connection, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
"""
CREATED = """
from alembic import op

revision, down_revision = "1", None

def upgrade():
    op.execute("CREATE TABLE note (id int PRIMARY KEY, body text, stars int)")
    op.execute("INSERT INTO note VALUES (1, 'a:text', 3)")

def downgrade():
    op.execute("DROP TABLE note")
"""
INDEXED = """
from alembic import op
from pgclip import index_table_sql

revision, down_revision = "2", "1"
STATEMENTS = index_table_sql("note", text="body || ':\\\\n100%'", metadata=["stars"])

def upgrade():
    op.execute(STATEMENTS.forwards)

def downgrade():
    op.execute(STATEMENTS.backwards)
"""
RENAMED = """
from alembic import op

revision, down_revision = "3", "2"

def upgrade():
    op.alter_column("note", "body", new_column_name="words")
    op.rename_table("note", "remark")
    op.execute("INSERT INTO remark VALUES (2, 'later', 5)")

def downgrade():
    op.rename_table("remark", "note")
    op.alter_column("note", "words", new_column_name="body")
"""


@pytest.fixture
def config(tmp_path: Path, database_url: str) -> Config:
    (tmp_path / "env.py").write_text(ENVIRONMENT)
    versions = tmp_path / "versions"
    versions.mkdir()
    for number, migration in enumerate((CREATED, INDEXED, RENAMED), 1):
        (versions / f"{number}.py").write_text(migration)
    config = Config()
    config.set_main_option("script_location", str(tmp_path))
    config.set_main_option("sqlalchemy.url", database_url)
    return config


def test_forwards_and_back(config: Config, database_url: str) -> None:
    def sql(statement: str, *arguments: object) -> list[object]:
        return run_sql(database_url, statement, *arguments)

    command.upgrade(config, "head")
    followed(sql)
    assert state(sql, "relation", "items") == ("remark", 2)
    held = sql("""SELECT key, metadata, convert_from(data, 'UTF8') FROM pgclip.item
                  JOIN pgclip.content c ON c.hash = content_hash ORDER BY key""")
    assert held == [
        ("1", {"stars": 3}, r"a:text:\n100%"), ("2", {"stars": 5}, r"later:\n100%")
    ]  # fmt: skip
    command.downgrade(config, "1")
    followed(sql)
    assert sql("SELECT * FROM pgclip.tables") == []
    assert sql("SELECT key FROM pgclip.item") == []
    command.downgrade(config, "base")
    command.upgrade(config, "head")
    followed(sql)
    assert state(sql, "items") == 1 + 1
