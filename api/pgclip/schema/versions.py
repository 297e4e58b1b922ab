"""The numbered migrations, which change what holds data: run with Alembic."""

import re
from typing import TYPE_CHECKING

from pgclip.schema.places import migrations

if TYPE_CHECKING:
    from alembic.config import Config
    from psycopg2.extensions import cursor as Cursor
    from sqlalchemy import Connection


def pending(cursor: "Cursor", is_there: bool) -> list[tuple[str, str]]:
    """Migrations that have not run: number and what it is for, in their order."""
    from alembic.script import ScriptDirectory

    version = None
    if is_there:
        cursor.execute("SELECT max(version_num) FROM pgclip.schema_version")
        (version,) = cursor.fetchone() or (None,)
    scripts = ScriptDirectory.from_config(_config()).iterate_revisions("head", version or "base")
    return [(script.revision, script.doc) for script in reversed(list(scripts))]


def tables() -> list[str]:
    """Names of the tables and sequences that they make."""
    files = sorted((migrations() / "sql").glob("*.sql"))
    made = re.compile(r"^CREATE (?:UNLOGGED )?(?:TABLE|SEQUENCE) pgclip\.(\w+)", re.MULTILINE)
    return ["schema_version", *(name for file in files for name in made.findall(file.read_text()))]


def run(connection: "Connection") -> None:
    """Runs those that have not run, within the connection's transaction."""
    from alembic import command

    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _config() -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
