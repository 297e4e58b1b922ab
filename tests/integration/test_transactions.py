"""The caller's own transaction, whatever it is made with: rolled back means never submitted."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
import psycopg
import psycopg2
import pytest
import sqlalchemy
from psycopg.rows import dict_row
from psycopg2.extras import RealDictCursor
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from support.pictures import jpeg
from support.processes import eventually

from pgclip import Client, ConfigurationError, InvalidItem, NotCommitted, NotFound
from pgclip.local import LocalServices
from pgclip.submitting.tickets import TicketOffice

Sql = Callable[..., list[Any]]


class Caller:
    """A connection of the caller's, and how it commits and rolls back."""

    def __init__(self, connection: Any, transaction: Any = None) -> None:
        self.connection = connection
        self.commit = (transaction or connection).commit
        self.rollback = (transaction or connection).rollback


@contextmanager
def with_psycopg2(url: str) -> Iterator[Caller]:
    connection = psycopg2.connect(url)
    yield Caller(connection)
    connection.close()


@contextmanager
def with_psycopg(url: str) -> Iterator[Caller]:
    with psycopg.connect(url) as connection:
        yield Caller(connection)


@contextmanager
def with_rows_of_another_kind(url: str) -> Iterator[Caller]:
    with psycopg.connect(url, row_factory=dict_row) as connection:
        yield Caller(connection)


@contextmanager
def with_real_dict_cursors(url: str) -> Iterator[Caller]:
    connection = psycopg2.connect(url, cursor_factory=RealDictCursor)
    yield Caller(connection)
    connection.close()


@contextmanager
def with_sqlalchemy_connection(url: str) -> Iterator[Caller]:
    engine = sqlalchemy.create_engine(url.replace("postgresql://", "postgresql+psycopg2://"))
    with engine.connect() as connection:
        yield Caller(connection)
    engine.dispose()


@contextmanager
def with_session(url: str, driver: str = "psycopg") -> Iterator[Caller]:
    engine = sqlalchemy.create_engine(url.replace("postgresql://", f"postgresql+{driver}://"))
    with Session(engine) as session:
        yield Caller(session)
    engine.dispose()


@contextmanager
def with_scoped_session(url: str) -> Iterator[Caller]:
    engine = sqlalchemy.create_engine(url.replace("postgresql://", "postgresql+psycopg2://"))
    scoped = scoped_session(sessionmaker(engine))
    yield Caller(scoped)
    scoped.remove()
    engine.dispose()


@contextmanager
def with_django(url: str) -> Iterator[Caller]:
    import django
    from django.conf import settings as django_settings
    from django.db import connections, transaction

    parts = sqlalchemy.make_url(url)
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.database,
        "USER": parts.username,
        "PASSWORD": parts.password,
        "HOST": parts.host,
        "PORT": parts.port,
    }
    if not django_settings.configured:
        django_settings.configure(DATABASES={"default": database})
        django.setup()
    connections["default"].close()
    connections.databases["default"].update(database)
    connections["default"].settings_dict.update(database)
    block = transaction.atomic()
    block.__enter__()
    caller = Caller(connections["default"], connections["default"])
    caller.commit = lambda: block.__exit__(None, None, None)
    caller.rollback = lambda: block.__exit__(Exception, Exception(), None)
    yield caller
    connections["default"].close()


CALLERS = [
    with_psycopg2,
    with_psycopg,
    with_rows_of_another_kind,
    with_real_dict_cursors,
    with_sqlalchemy_connection,
    with_session,
    with_scoped_session,
    with_django,
]
# Those that tell when they have committed.
TELLING = {with_session, with_scoped_session, with_django}


@pytest.fixture(params=CALLERS, ids=lambda kind: kind.__name__[5:])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The queues that got a ticket."""
    queues: list[str] = []
    monkeypatch.setattr(TicketOffice, "announce", lambda _, names: queues.extend(names))
    return queues


@pytest.fixture(autouse=True)
def model(sql: Sql) -> None:
    sql("SELECT pgclip.register_model('m', 4, 10, '{\"fatal\": {}}')")


def test_committed(
    kind: Any, client: Client, database_url: str, sql: Sql, published: list[str]
) -> None:
    with kind(database_url) as caller:
        text = client.submit_text(
            "a text", key="t", metadata={"n": 1}, connection=caller.connection
        )
        image = client.submit_image(jpeg(1), keep_source=False, connection=caller.connection)
        assert sql("SELECT count(*) FROM pgclip.items") == [(0,)]
        for job in (text, image):
            with pytest.raises(NotCommitted, match="commit it first"):
                job.wait(1)
        assert published == []
        caller.commit()
        assert (len(published) > 0) == (kind in TELLING)
        assert text.status().state == image.status().state == "queued"
        assert client.get("t").metadata == {"n": 1}
        assert image.key.startswith("sha256:")


def test_rolled_back(
    kind: Any, client: Client, database_url: str, sql: Sql, published: list[str]
) -> None:
    client.submit_text("before", key="replaced")
    published.clear()
    with kind(database_url) as caller:
        connection = caller.connection
        new = client.submit_text("a text", connection=connection)
        replaced = client.submit_text("after", key="replaced", connection=connection)
        batch = client.submit_many([{"text": "b"}], connection=connection)
        caller.rollback()
        for waited in (new.wait, replaced.wait, batch.wait, batch.counts):
            with pytest.raises(NotCommitted, match="rolled back"):
                waited()
    assert sql("SELECT key, generation FROM pgclip.items") == [("replaced", 1)]
    assert sql("SELECT count(*) FROM pgclip.job") == [(1,)]
    assert published == []


def test_many_and_an_invalid_one_leave_the_transaction_usable(
    kind: Any, client: Client, database_url: str, sql: Sql
) -> None:
    with kind(database_url) as caller:
        with pytest.raises(InvalidItem, match="1 to 1024 bytes"):
            client.submit_text("x", key="", connection=caller.connection)
        items = [
            {"text": "a", "key": "a"},
            {"text": " ", "key": "b"},
            {"image": jpeg(1), "key": "c"},
        ]
        batch = client.submit_many([*items, {"picture": 1}], connection=caller.connection)
        assert [failure.position for failure in batch.refused] == [1, 3]
        with pytest.raises(NotCommitted, match="commit it first"):
            batch.counts()
        caller.commit()
        assert batch.counts() == {"queued": 2, "leased": 0, "done": 0, "failed": 2}
    assert sorted(sql("SELECT key FROM pgclip.items")) == [("a",), ("c",)]


def test_a_connection_in_autocommit(
    client: Client, database_url: str, published: list[str]
) -> None:
    old = psycopg2.connect(database_url)
    old.autocommit = True
    with psycopg.connect(database_url, autocommit=True) as new:
        for connection in (old, new):
            published.clear()
            job = client.submit_text("text", connection=connection)
            assert job.status().state == "queued"
            assert published
        with new.transaction():
            published.clear()
            job = client.submit_text("within a block", connection=new)
            with pytest.raises(NotCommitted):
                job.status()
        assert job.status().state == "queued"
        assert published == []  # psycopg does not tell; idle workers find it
    old.close()


def test_deleting_within_a_transaction(
    kind: Any, client: Client, database_url: str, sql: Sql
) -> None:
    client.submit_text("a text", key="a")
    for end in ("rollback", "commit"):
        with kind(database_url) as caller:
            client.delete("a", connection=caller.connection)
            with pytest.raises(NotFound):
                client.delete("a", connection=caller.connection)
            getattr(caller, end)()
        assert sql("SELECT count(*) FROM pgclip.items") == [(int(end == "rollback"),)]


def test_a_savepoint_that_is_rolled_back(client: Client, database_url: str) -> None:
    with with_session(database_url) as caller:
        session = caller.connection
        kept = client.submit_text("kept", connection=session)
        savepoint = session.begin_nested()
        lost = client.submit_text("lost", connection=session)
        savepoint.rollback()
        caller.commit()
    assert kept.status().state == "queued"
    with pytest.raises(NotFound, match="savepoint"):
        lost.status()


def test_a_generation_that_another_submission_took(client: Client, database_url: str) -> None:
    client.submit_text("before", key="a")
    with with_session(database_url) as caller:
        lost = client.submit_text("never", key="a", connection=caller.connection)
        caller.rollback()
    assert client.submit_text("after", key="a").generation == lost.generation
    with pytest.raises(NotCommitted, match="rolled back"):
        lost.wait(1)


def test_a_session_that_is_used_again_announces_only_its_own(
    client: Client, database_url: str, published: list[str]
) -> None:
    with with_session(database_url) as caller:
        client.submit_text("rolled back", connection=caller.connection)
        caller.rollback()
        caller.connection.execute(sqlalchemy.text("SELECT 1"))
        caller.commit()
        assert published == []
        client.submit_text("committed", connection=caller.connection)
        caller.commit()
        assert published


def test_the_ticket_follows_the_commit(client: Client, database_url: str) -> None:
    """For real: the message is in Redis once the session has committed."""
    from redis import Redis

    redis = Redis.from_url(client.settings.redis_url)
    with with_session(database_url) as caller:
        client.submit_text("text", connection=caller.connection)
        (queue,) = caller.connection.scalar(sqlalchemy.text("SELECT pgclip.ticket_queues()"))
        assert redis.llen(f"pgclip:{queue}") == 0
        caller.commit()
        eventually(lambda: redis.llen(f"pgclip:{queue}") == 1)


@pytest.mark.parametrize("thing", ["postgresql://x", 5, object()])
def test_what_is_no_connection(client: Client, thing: object) -> None:
    with pytest.raises(ConfigurationError, match="connection= takes"):
        client.submit_text("x", connection=thing)


def test_asynchronous_drivers_are_told_what_to_do(client: Client, database_url: str) -> None:
    async def submit() -> None:
        async with await psycopg.AsyncConnection.connect(database_url) as connection:
            with pytest.raises(ConfigurationError, match="call the SQL functions"):
                client.submit_text("x", connection=connection)
        other = await asyncpg.connect(database_url)
        with pytest.raises(ConfigurationError, match="call the SQL functions"):
            client.submit_text("x", connection=other)
        await other.close()

    asyncio.run(submit())


def test_errors_of_the_callers_driver_stay_as_they_are(
    client: Client, database_url: str, services: LocalServices
) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("SET search_path = nowhere")
        client.submit_text("fine", connection=connection)
        with pytest.raises(psycopg.errors.UndefinedTable):
            connection.execute("SELECT * FROM nothing")
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            client.submit_text("x", connection=connection)
