"""A client's calls for tables: by name, by models of SQLAlchemy and Django, in migrations."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Text, create_engine, event, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from support.commands import pgclip
from support.databases import run_sql
from support.processes import WorkerFactory, eventually
from support.tables import Sql

from pgclip import AsyncClient, Client, InvalidItem, NotFound, index_table_sql
from pgclip.local import LocalServices
from pgclip.tables.models import table_name


class Base(DeclarativeBase):
    pass


class Product(Base):
    __tablename__ = "Product"
    __table_args__ = ({"schema": "my shop"},)
    shop: Mapped[str] = mapped_column("Shop", primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str | None] = mapped_column(Text)
    score: Mapped[int | None]


QUOTED = '"my shop"."Product"'


@pytest.fixture
def client(
    database_url: str, services: LocalServices, start_worker: WorkerFactory
) -> Iterator[Client]:
    run_sql(database_url, 'CREATE SCHEMA "my shop"')
    engine = create_engine(database_url)
    Base.metadata.create_all(engine)
    engine.dispose()
    rows = f"INSERT INTO {QUOTED} SELECT 'it''s', n, 'text ' || n, n FROM generate_series(1, 5) n"
    run_sql(database_url, rows)
    start_worker(database_url)
    with Client(database_url=database_url, redis_url=services.redis_url) as client:
        yield client


def is_followed(client: Client) -> bool:
    (table,) = client.tables()
    return (table.state, table.waiting, table.changes) == ("followed", 0, 0) and table.items > 0


def test_by_name_and_by_model(client: Client, database_url: str) -> None:
    assert client.index_table(Product, text="title", metadata=["score"]) == "Product"
    eventually(lambda: is_followed(client))
    (table,) = client.tables()
    assert (table.table, table.items, table.columns) == (QUOTED, 5, ("title",))
    best = client.search_rows(QUOTED, "text 3", k=2)[0]
    assert best.row == {"Shop": "it's", "number": 3, "title": "text 3", "score": 3}
    assert (best.part, best.key) == ("title", '["it\'s", "3"]')
    engine = create_engine(database_url)
    with Session(engine) as session:
        (hit,) = client.search_rows(
            Product, "text 3", k=1, filter={"score": {"gt": 2}}, session=session
        )
        assert isinstance(hit.row, Product)
        assert hit.row is session.get(Product, ("it's", 3))
    engine.dispose()
    with pytest.raises(InvalidItem, match="give session="):
        client.search_rows(Product, "text 3")
    assert client.missing_rows(Product) == []
    client.unindex_table(Product)
    eventually(lambda: client.tables() == [])
    with pytest.raises(NotFound, match="is no table that is indexed"):
        client.search_rows(Product, "text 3")
    with pytest.raises(NotFound, match="is not indexed"):
        client.unindex_table(Product)


def test_status_and_doctor_tell(client: Client, database_url: str, services: LocalServices) -> None:
    urls = {"PGCLIP_DATABASE_URL": database_url, "PGCLIP_REDIS_URL": services.redis_url}

    def told(command: str) -> str:
        return " ".join(pgclip(command, **urls).stdout.split())

    client.index_table(Product, text="title")
    run_sql(database_url, f"INSERT INTO {QUOTED} VALUES ('s', 9, repeat('long', 100000), 9)")
    eventually(lambda: is_followed(client))
    line = f"table {QUOTED} in Product (followed): 5 items, 0 waiting, 1 failed, unacceptable"
    assert line in told("status")
    assert f"{QUOTED} in Product: 5 items, 0 waiting, 0 changes" in told("doctor")
    listed = pgclip("missing", "--table", QUOTED, "--json", **urls)
    assert [tuple(one.values()) for one in json.loads(listed.stdout)] == [
        ("Product", '["s", "9"]', "title", "the text has more than 256 KiB")
    ]
    assert 'Product ["s", "9"] title the text has more' in " ".join(
        pgclip("missing", "--table", QUOTED, **urls).stdout.split()
    )
    run_sql(
        database_url, "UPDATE pgclip.indexed_table SET trouble = 'planted', looked_at = 'infinity'"
    )
    assert "followed): 5 items" not in told("status")
    assert "(troubled): 5 items, 0 waiting, 1 failed, unacceptable, planted" in told("status")
    assert f"{QUOTED} in Product: planted" in told("doctor")


def test_more_than_a_page_is_missing(client: Client, database_url: str) -> None:
    """Of two definitions on a table of 21,000 rows, gone through with the client's time limit."""
    run_sql(database_url, "CREATE TABLE many (id int PRIMARY KEY, body text, title text)")
    client.index_table("many", text="body", collection="bodies")
    client.index_table("many", text="title", collection="titles")
    eventually(lambda: all(table.state == "followed" for table in client.tables()))
    run_sql(
        database_url,
        "SET session_replication_role = replica; INSERT INTO many (id) "
        "SELECT generate_series(1, 21000); UPDATE many SET body = 'text' WHERE id IN (1, 20999); "
        "UPDATE many SET title = 'text' WHERE id > 20997",
    )
    lacking = [(one.collection, one.key) for one in client.missing_rows("many")]
    titles = [("titles", key) for key in ("20998", "20999", "21000")]
    assert sorted(lacking) == [("bodies", "1"), ("bodies", "20999"), *titles]
    assert len(client.missing_rows("many", limit=4)) == 4
    of_titles = client.missing_rows("many", collection="titles")
    assert sorted((one.collection, one.key) for one in of_titles) == titles
    in_sql = run_sql(
        database_url, "SELECT in_collection, key FROM pgclip.missing_rows('many', \"limit\" => 4)"
    )
    assert len(in_sql) == 4
    assert set(in_sql) < set(lacking)


def test_in_the_caller_s_transaction(client: Client, database_url: str) -> None:
    engine = create_engine(database_url)
    with Session(engine) as session:
        client.index_table(Product, text="title", connection=session)
        session.rollback()
        assert client.tables() == []
        client.index_table(Product, text="title || ' and more'", connection=session)
        session.commit()
    engine.dispose()
    assert [table.columns for table in client.tables()] == [("text",)]


def test_awaited(client: Client, database_url: str, services: LocalServices) -> None:
    async def index() -> int:
        urls = {"database_url": database_url, "redis_url": services.redis_url}
        async with AsyncClient(**urls) as awaiting:
            await awaiting.index_table(Product, text="title")
            return len(await awaiting.tables())

    assert asyncio.run(index()) == 1


def test_statements_for_migrations(client: Client, database_url: str) -> None:
    statements = index_table_sql(
        Product, text=["title", "title || '\\n:x'"], metadata=["score"],
        condition="title <> 'a''b'", collection="it's", priority=2,
    )  # fmt: skip
    engine = create_engine(database_url)
    seen = []
    event.listen(engine, "before_cursor_execute", lambda *call: seen.append(call[2]))
    with engine.begin() as connection:
        connection.exec_driver_sql(statements.forwards)
    assert [table.collection for table in client.tables()] == ["it's"]
    assert client.tables()[0].columns == ("title", "text")
    with engine.begin() as connection:
        connection.execute(text(statements.backwards))
    engine.dispose()
    assert seen == [statements.forwards, statements.backwards]
    eventually(lambda: client.tables() == [])


DJANGO = """
import django
from django.conf import settings
from urllib.parse import urlsplit
url = urlsplit({url!r})
settings.configure(INSTALLED_APPS=[], USE_TZ=True, DATABASES={{"default": {{
    "ENGINE": "django.db.backends.postgresql", "NAME": url.path[1:], "USER": url.username,
    "PASSWORD": url.password, "HOST": url.hostname, "PORT": url.port}}}})
django.setup()
from django.db import connection, migrations, models
from django.db.migrations.state import ProjectState
from pgclip import Client, index_table_sql

class Article(models.Model):
    headline = models.TextField(db_column="title")
    class Meta:
        app_label = "news"

with connection.schema_editor() as editor:
    editor.create_model(Article)
operation = migrations.RunSQL(*index_table_sql(Article, text="title"))
with connection.schema_editor() as editor:
    operation.database_forwards("news", editor, ProjectState(), ProjectState())
one = Article.objects.create(headline="text 1")
Article.objects.create(headline="text 2")
with Client(database_url={url!r}, redis_url={redis!r}) as client:
    while client.tables()[0].items < 2 or client.tables()[0].waiting:
        pass
    assert client.search_rows(Article, "text 1", k=1)[0].row == one
    with connection.schema_editor() as editor:
        operation.database_backwards("news", editor, ProjectState(), ProjectState())
    assert [table.state for table in client.tables()] in ([], ["leaving"])
"""


def test_django(client: Client, database_url: str, services: LocalServices) -> None:
    program = DJANGO.format(url=database_url, redis=services.redis_url)
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.parametrize(
    ("table", "name"),
    [
        ("shop.product", "shop.product"),
        (Product, QUOTED),
        (Product.__table__, QUOTED),
        (type("M", (), {"_meta": type("O", (), {"db_table": 'a"b'})}), '"a""b"'),
        (type("M", (), {"_meta": type("O", (), {"db_table": '"s"."t"'})}), '"s"."t"'),
    ],
)
def test_names(table: Any, name: str) -> None:
    assert table_name(table) == name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"table": 5, "text": "a"}, "a table is its name, or a model"),
        ({"table": "t"}, "name a column or an expression"),
        ({"table": "t", "text": 5}, "text"),
        ({"table": "t", "text": "a", "metadata": "price"}, "metadata"),
        ({"table": "t", "text": "a", "condition": True}, "condition is an SQL expression"),
        ({"table": "t", "text": "a", "priority": "high"}, "priority"),
        ({"table": "t", "text": "a", "collection": 5}, "collection"),
        ({"table": "t", "text": "a", "replicated": "yes"}, "replicated"),
    ],
)
def test_what_means_something_else_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidItem, match=message):
        index_table_sql(**arguments)


def test_a_table_that_is_not_there(client: Client, sql: Sql) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        client.index_table("nowhere", text="a")
