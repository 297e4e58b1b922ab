"""What of a table is indexed: as arguments of the SQL function, and as statements."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from pgclip.arguments import collection_name, flag, text_list, whole_number
from pgclip.errors import InvalidItem
from pgclip.tables.models import table_name

_NAMES = ("images", "texts", "metadata", "condition", "collection", "priority", "replicated")


class TableSQL(NamedTuple):
    """What a migration runs to index a table, and to take that back."""

    forwards: str
    backwards: str


def index_table_sql(
    table: Any,
    *,
    image: str | Sequence[str] = (),
    text: str | Sequence[str] = (),
    metadata: Sequence[str] = (),
    condition: str | None = None,
    collection: str | None = None,
    priority: int = 1,
    replicated: bool = False,
) -> TableSQL:
    """Client.index_table as statements, for migrations: Django's `RunSQL(*index_table_sql(…))`,
    Alembic's `op.execute(index_table_sql(…).forwards)`.

    Arguments are those of Client.index_table. Raises InvalidItem.
    """
    values = definition(image, text, metadata, condition, collection, priority, replicated)
    name = _literal(table_name(table))
    given = (f"{key} => {_literal(each)}" for key, each in zip(_NAMES, values, strict=True))
    of_collection = "" if collection is None else f", {_literal(collection)}"
    return TableSQL(
        f"SELECT pgclip.index_table({name}, {', '.join(given)})",
        f"SELECT pgclip.unindex_table({name}{of_collection})",
    )


def definition(
    image: str | Sequence[str],
    text: str | Sequence[str],
    metadata: Sequence[str],
    condition: str | None,
    collection: str | None,
    priority: int,
    replicated: bool,
) -> tuple[Any, ...]:
    """The arguments of pgclip.index_table after the table, by name: `images`, `texts` and so on."""
    images, texts = _several(image, "image"), _several(text, "text")
    if not images and not texts:
        raise InvalidItem("name a column or an expression to index: image=…, text=…")
    if condition is not None and not isinstance(condition, str):
        raise InvalidItem(f"condition is an SQL expression, not {type(condition).__name__}")
    return (
        images,
        texts,
        text_list(metadata, "metadata"),
        condition,
        collection_name(collection),
        whole_number(priority, "priority"),
        flag(replicated, "replicated"),
    )


def _several(given: str | Sequence[str], name: str) -> list[str]:
    return [given] if isinstance(given, str) else text_list(given, name)


def _literal(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool | int):
        return str(value).lower()
    if isinstance(value, list):
        return f"ARRAY[{', '.join(map(_literal, value))}]::text[]"
    # E'' means the same whatever standard_conforming_strings is.
    escaped = value.replace("\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'" if "\\" in value else f"'{escaped}'"
