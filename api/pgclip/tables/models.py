"""Models of SQLAlchemy and Django: which table they mean, and instances of its rows."""

from collections.abc import Mapping, Sequence
from typing import Any

from pgclip.errors import InvalidItem


def table_name(table: Any) -> str:
    """A table as SQL has it, quoted where needed; a name is taken as it is written in SQL.

    Raises InvalidItem for what is neither a name, nor a model or table of SQLAlchemy, nor a model
    of Django.
    """
    if isinstance(table, str):
        return table
    if hasattr(table, "_meta") and hasattr(table._meta, "db_table"):  # Django's
        name = table._meta.db_table
        return name if name.startswith('"') else _quoted(name)
    mapped = getattr(table, "__table__", table)
    if hasattr(mapped, "schema") and hasattr(mapped, "name"):  # SQLAlchemy's
        return ".".join(_quoted(part) for part in (mapped.schema, mapped.name) if part)
    raise InvalidItem(
        "a table is its name, or a model or table of SQLAlchemy, or a model of Django, not "
        f"{type(table).__name__}"
    )


def is_model(table: Any) -> bool:
    """Whether rows of it have instances."""
    return not isinstance(table, str) and (hasattr(table, "_meta") or hasattr(table, "__mapper__"))


def instances(model: Any, rows: Sequence[Mapping[str, Any]], session: Any) -> list[Any | None]:
    """For each row, by its columns, the model's instance; None where the session sees none.

    A model of SQLAlchemy needs a session; Django's reads by its default manager, in the database
    that `session`, an alias, names. Raises InvalidItem without a session.
    """
    if hasattr(model, "_meta"):
        return _of_django(model, rows, session)
    if session is None:
        raise InvalidItem(f"give session=…, in which instances of {model.__name__} are read")
    return _of_sqlalchemy(model, rows, session)


def _of_django(model: Any, rows: Sequence[Mapping[str, Any]], alias: str | None) -> list[Any]:
    key = model._meta.pk.column
    manager = model._default_manager
    found = (manager if alias is None else manager.using(alias)).in_bulk([row[key] for row in rows])
    return [found.get(model._meta.pk.to_python(row[key])) for row in rows]


def _of_sqlalchemy(model: Any, rows: Sequence[Mapping[str, Any]], session: Any) -> list[Any]:
    from sqlalchemy import inspect, select, tuple_

    mapper = inspect(model)
    columns = mapper.primary_key
    keys = [tuple(row[column.name] for column in columns) for row in rows]
    read = session.scalars(select(model).where(tuple_(*columns).in_(keys)))
    found = {tuple(mapper.primary_key_from_instance(each)): each for each in read.unique()}
    return [found.get(key) for key in keys]


def _quoted(name: str) -> str:
    return '"{}"'.format(name.replace('"', '""'))
