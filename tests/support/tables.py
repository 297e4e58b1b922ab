"""Indexed tables, followed by hand."""

from collections.abc import Callable
from typing import Any

import pytest
from support.hand import Hand

Sql = Callable[..., list[Any]]
Follow = Callable[[], None]

INDEX_PRODUCT = """SELECT pgclip.index_table('shop.product', image => 'photo',
    text => 'upper(title)', metadata => '{price}', condition => 'published',
    collection => 'products')"""


@pytest.fixture
def follow(sql: Sql) -> Follow:
    return lambda: followed(sql)


def followed(sql: Sql) -> None:
    """As a worker does, until there is nothing more to do; tables are looked at anew."""
    sql("UPDATE pgclip.indexed_table SET looked_at = '-infinity'")
    while sql("SELECT did FROM pgclip.follow_tables()") == [(True,)]:
        pass


@pytest.fixture
def product(sql: Sql) -> None:
    sql("""CREATE SCHEMA shop;
        CREATE TABLE shop.product (id int PRIMARY KEY, photo text, title text, price numeric,
                                   published boolean NOT NULL DEFAULT true, stock int);
        INSERT INTO shop.product SELECT n, '/photos/' || n || '.jpg', 'title ' || n, n, n <> 3, n
        FROM generate_series(1, 5) n""")


def texts(sql: Sql, collection: str = "products") -> dict[str, str]:
    """Of each text of a collection what it says, by its key."""
    return dict(
        sql(
            """SELECT i.key, convert_from(c.data, 'UTF8') FROM pgclip.item i
               JOIN pgclip.collection l ON l.id = i.collection_id
               JOIN pgclip.content c ON c.kind = i.kind AND c.hash = i.content_hash
               WHERE l.name = %s AND i.kind = 'text' ORDER BY i.id""",
            collection,
        )
    )


def noted(sql: Sql) -> list[str | None]:
    """The keys of rows that have changed; None for any row."""
    notes = sql("SELECT row_keys FROM pgclip.row_change ORDER BY id")
    return [key for (keys,) in notes for key in ([None] if keys is None else keys)]


def state(sql: Sql, *columns: str) -> Any:
    """Of the one table that is indexed."""
    ((*found,),) = sql(f"SELECT {', '.join(columns)} FROM pgclip.tables")
    return found[0] if len(columns) == 1 else tuple(found)


def plain_table(sql: Sql, columns: str, **arguments: str) -> None:
    """Table "t", whose "body" is indexed."""
    sql(f"CREATE TABLE t ({columns})")
    more = "".join(f", {name} => {value}" for name, value in arguments.items())
    sql(f"SELECT pgclip.index_table('t', text => 'body'{more})")


def work_off(worker: Hand) -> None:
    while (claimed := worker.claim())[1]:
        worker.store(*claimed)


def follow_once(sql: Sql) -> None:
    sql("UPDATE pgclip.indexed_table SET looked_at = '-infinity'")
    sql("SELECT pgclip.follow_tables()")
