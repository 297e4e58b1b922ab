"""A shelf of vectors: submits texts and stores their vectors, as a client and a worker would."""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import numpy as np
import psycopg2
import pytest

from pgclip.database import Database
from pgclip.searching.segments import Maintenance, maintenance_connections
from pgclip.settings import Settings

Sql = Callable[..., list[Any]]
DIMENSION = 8


def vector_of(text: str) -> str:
    """A unit vector made of a text, as Postgres reads it. Those of "a ~ 1" and "a ~ 2" are near."""
    base, _, variant = text.partition(" ~ ")
    values = np.random.default_rng(list(base.encode())).standard_normal(DIMENSION)
    values /= np.linalg.norm(values)
    if variant:
        noise = np.random.default_rng(list(variant.encode())).standard_normal(DIMENSION)
        values += 0.02 * noise / np.linalg.norm(noise)
    return str((values / np.linalg.norm(values)).tolist())


class Shelf:
    """Submits texts and stores their vectors, as a client and a worker would."""

    def __init__(self, url: str) -> None:
        self.connection = psycopg2.connect(url)
        self.connection.autocommit = True
        self.sql("SET lock_timeout = '20s'")
        (self.worker,) = self.sql(
            "SELECT pgclip.sign_on(1::smallint, 'h', 1, 'cpu', 'f', 64, 600)"
        )[0]

    def sql(self, statement: str, *arguments: Any) -> list[Any]:
        with self.connection.cursor() as cursor:
            cursor.execute(statement, arguments or None)
            return cursor.fetchall() if cursor.description else []

    def put(self, texts: dict[str, str]) -> None:
        """Texts by key; a key that is there is replaced."""
        for key, text in texts.items():
            self.sql("SELECT pgclip.submit_text(%s, key => %s)", text, key)
        lease = str(uuid4())
        jobs = self.sql("SELECT * FROM pgclip.claim(%s, %s, 5000, 1000000000)", self.worker, lease)
        ids, hashes = [job[0] for job in jobs], [bytes(job[5]) for job in jobs]
        vectors = [vector_of(texts[job[3]]) for job in jobs]
        self.sql("SELECT pgclip.open_results()")
        self.sql(
            "BEGIN; INSERT INTO pg_temp.staged_vector SELECT unnest(%s), unnest(%s)::halfvec;"
            "SELECT pgclip.store(%s, (SELECT epoch FROM pgclip.label_epoch), %s, %s, '[]'); COMMIT",
            *(ids, vectors, lease, ids, hashes),
        )

    def delete(self, *keys: str) -> None:
        for key in keys:
            self.sql("SELECT pgclip.delete(%s)", key)

    def nearest(self, text: str, **options: Any) -> str:
        """The key nearest to a text's vector."""
        extra = "".join(f", {name} => {value}" for name, value in options.items())
        (row,) = self.sql(
            f"SELECT key FROM pgclip.search_vector(%s::halfvec, k => 1{extra})", vector_of(text)
        )
        return str(row[0])

    def states(self) -> dict[int, str]:
        return dict(self.sql("SELECT number, state FROM pgclip.segment ORDER BY number"))


def found(shelf: Shelf, asked: str, **options: Any) -> list[tuple[str, float]]:
    """Keys and scores of a search for a text's vector; options as SQL."""
    extra = "".join(f", {name} => {value}" for name, value in options.items())
    return shelf.sql(
        f"SELECT key, score FROM pgclip.search_vector(%s::halfvec{extra})", vector_of(asked)
    )


def assert_as_exact(shelf: Shelf, asked: str, **options: Any) -> None:
    assert found(shelf, asked, **options) == found(shelf, asked, **options, exact="true")


def texts(first: int, last: int) -> dict[str, str]:
    return {f"k{n}": f"text {n}" for n in range(first, last)}


@pytest.fixture
def new_shelf(database_url: str, sql: Sql) -> Iterator[Callable[[], Shelf]]:
    sql("SELECT pgclip.register_model('m', 8, 10, '{\"fatal\": {}}')")
    made: list[Shelf] = []

    def make() -> Shelf:
        made.append(Shelf(database_url))
        return made[-1]

    yield make
    for shelf in made:
        shelf.connection.close()


@pytest.fixture
def shelf(new_shelf: Callable[[], Shelf]) -> Shelf:
    return new_shelf()


@pytest.fixture
def connections(database_url: str) -> Iterator[Database]:
    database = maintenance_connections(Settings.load(database_url=database_url))
    yield database
    database.close()


@pytest.fixture
def maintenance(database_url: str, connections: Database) -> Maintenance:
    """Of the model; a segment is full with 100 vectors."""
    settings = Settings.load(database_url=database_url, segment_rows=100, max_segments=4)
    return Maintenance(settings, connections, 1)
