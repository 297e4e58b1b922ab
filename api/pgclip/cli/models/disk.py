"""What is free where Postgres keeps its data."""

import shutil
from pathlib import Path

from pgclip import statements
from pgclip.cli.options import urls_file
from pgclip.client import Client
from pgclip.database import Database
from pgclip.settings import Settings


def free_disk(client: Client) -> int | None:
    """Bytes free where Postgres keeps its data; None if that is not on this machine."""
    folder = _data_folder(client.settings)
    try:
        return None if folder is None else shutil.disk_usage(folder).free
    except OSError:
        return None


def _data_folder(settings: Settings) -> Path | None:
    database = Database(settings.required("database_url"), pool_size=1)
    try:
        with database.transaction("disk") as cursor:
            cursor.execute(statements.DATA_FOLDER)
            (folder,) = cursor.fetchone() or (None,)
    finally:
        database.close()
    if folder is None or not folder.startswith("/proc/"):
        return folder and Path(folder)
    # An embedded server knows its folder by a number of its own; that of pgclip up is known here.
    return urls_file(settings).parent if urls_file(settings).exists() else None
