"""What a client offers for tables that are kept in step. SQL functions of schema pgclip do the
work."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pgclip import statements
from pgclip.arguments import collection_name, flag, number, whole_number
from pgclip.errors import NotFound
from pgclip.items import Kind
from pgclip.searching.queries import Picture, search_for, search_options, text_or_picture
from pgclip.searching.search import Searching, asked_again
from pgclip.submitting.transactions import transaction_of
from pgclip.tables.definition import definition
from pgclip.tables.models import instances, is_model, table_name


@dataclass(frozen=True, slots=True)
class IndexedTable:
    """A table that is kept in step, or what of it is in one collection.

    `state`: filling (rows that were there are still gone through), followed, troubled, or leaving.
    `rows`: as many as Postgres reckons. `items`: of these `waiting` have no vectors yet; `failed`
    says by reason how many rows or items have failed. `changes`: rows that have changed and have
    not been looked at, since `oldest_change`. `filled`: the share of the rows gone through.
    """

    table: str
    collection: str
    columns: tuple[str, ...]
    state: str
    rows: int
    items: int
    waiting: int
    changes: int
    oldest_change: datetime | None
    failed: Mapping[str, int]
    filled: float
    trouble: str | None


@dataclass(frozen=True, slots=True)
class MissingRow:
    """Where a table and its items differ. `reason`: noted, which will come; lacking, outdated or
    left_over, which heal() mends; or why the row can't be an item."""

    collection: str
    key: str
    part: str
    reason: str


@dataclass(frozen=True, slots=True)
class RowHit:
    """A row that a search found: its columns by name, or the model's instance.

    `part` is the column, or the expression, that fitted best; `key` the primary key as text, of
    several columns a JSON array.
    """

    row: Any
    score: float
    relevance: float | None
    part: str
    key: str


class Tables(Searching):
    """The part of Client that keeps tables in step, and searches their rows."""

    def index_table(
        self,
        table: Any,
        *,
        image: str | Sequence[str] = (),
        text: str | Sequence[str] = (),
        metadata: Sequence[str] = (),
        condition: str | None = None,
        collection: str | None = None,
        priority: int = 1,
        replicated: bool = False,
        connection: Any = None,
    ) -> str:
        """Keeps a table in step: each of its rows has an item for each of the columns or SQL
        expressions in `image` and `text`, with the columns in `metadata`, as long as it meets the
        `condition`, an SQL expression. Returns the collection, by default the table's name.

        `table`: its name, or a model of SQLAlchemy or Django. A picture is bytes, an absolute path
        or a URL. Called again it changes what is indexed; only what is new is encoded. Rows that
        are there are filled in behind other work. `replicated`: what logical replication applies
        is followed, too. With connection= it is part of the caller's transaction (see
        submit_image). Raises InvalidItem if the table can't be followed.
        """
        values = definition(image, text, metadata, condition, collection, priority, replicated)
        name = table_name(table)
        if connection is not None:
            return _index(transaction_of(connection).execute, name, values)
        with self._database.transaction(f"table {name}") as cursor:
            return _index(_executing(cursor), name, values)

    def unindex_table(
        self, table: Any, *, collection: str | None = None, keep: bool = False
    ) -> None:
        """Follows a table no more. Its items are deleted, page by page, unless they are kept: then
        they are taken on when it is indexed again. Raises NotFound if it is not indexed."""
        name = table_name(table)
        more = (collection_name(collection), flag(keep, "keep"))
        with self._database.transaction(f"table {name}") as cursor:
            quoted = _found(_executing(cursor), name)
            cursor.execute(statements.UNINDEX_TABLE, (quoted, *more))

    def tables(self) -> list[IndexedTable]:
        """What is indexed, and how far it is."""
        with self._database.transaction("tables") as cursor:
            cursor.execute(statements.TABLES)
            return [
                IndexedTable(name, collection, tuple(columns), *rest)
                for name, collection, columns, *rest in cursor.fetchall()
            ]

    def missing_rows(
        self, table: Any, *, collection: str | None = None, limit: int = 1000
    ) -> list[MissingRow]:
        """Where a table and its items differ, at most `limit` places. Reads all of the table, in
        transactions of 20,000 rows."""
        name, most = table_name(table), whole_number(limit, "limit")
        with self._database.transaction(f"table {name}") as cursor:
            quoted = _found(_executing(cursor), name)
        missing: list[MissingRow] = []
        place = None
        while len(missing) < most:
            with self._database.transaction(f"table {name}") as cursor:
                asked = (quoted, collection_name(collection), place)
                cursor.execute(statements.MISSING_ROWS, asked)
                *rows, last = cursor.fetchall()
            missing += [MissingRow(*row[:-1]) for row in rows]
            place = last[-1]
            if place is None:
                break
        return missing[:most]

    @asked_again
    def search_rows(
        self,
        table: Any,
        query: str | None = None,
        *,
        image: Picture | None = None,
        k: int = 10,
        collection: str | None = None,
        kind: Kind | None = None,
        filter: Mapping[str, Any] | None = None,
        min_score: float | None = None,
        min_relevance: float | None = None,
        recall: float | None = None,
        session: Any = None,
        timeout: float = 10.0,
    ) -> list[RowHit]:
        """The k rows of an indexed table that fit a text or a picture best, each once.

        Rows are mappings of columns. Of a model they are instances, read in `session`: one of
        SQLAlchemy, or the alias of a database of Django, by default the manager's; what that does
        not see is left out. Rows that this role may not read are not among them. Otherwise as in
        search. Raises NotFound if the table is not indexed.
        """
        options = search_options(
            k, collection, kind, filter, min_score, min_relevance, False, recall, None, None
        )
        asked = (*options[:6], number(recall, "recall"))
        given = self._embed(text_or_picture(query, image, "search for"), timeout)
        name = table_name(table)
        with self._database.transaction(search_for(given)) as cursor:
            quoted = _found(_executing(cursor), name)
            given_as = "query" if image is None else "image"
            cursor.execute(
                statements.SEARCH_ROWS.format(table=quoted, given=given_as), (given, *asked)
            )
            names = [column.name for column in cursor.description or ()][:-4]
            found = cursor.fetchall()
        rows: list[Any] = [dict(zip(names, row, strict=False)) for row in found]
        if is_model(table):
            rows = instances(table, rows, session)
        return [
            RowHit(row, *values[-4:])
            for row, values in zip(rows, found, strict=True)
            if row is not None
        ]


_Execute = Callable[[str, Sequence[Any]], list[Any]]


def _executing(cursor: Any) -> _Execute:
    def execute(statement: str, arguments: Sequence[Any]) -> list[Any]:
        cursor.execute(statement, arguments)
        return list(cursor.fetchall())

    return execute


def _found(execute: _Execute, name: str) -> str:
    """The table as Postgres quotes it. Raises NotFound."""
    ((quoted,),) = execute(statements.TABLE_NAMED, (name,))
    if quoted is None:
        raise NotFound(f"there is no table {name}")
    return str(quoted)


def _index(execute: _Execute, name: str, values: Sequence[Any]) -> str:
    ((collection,),) = execute(statements.INDEX_TABLE, (_found(execute, name), *values))
    return str(collection)
