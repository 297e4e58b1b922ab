"""A URL means the same with a pool and without one."""

import pytest
from sqlalchemy import create_engine

from pgclip.connections import Single, keywords_of, make_engine
from pgclip.errors import ConfigurationError

URLS = [
    "postgresql://user:password@host:5433/database",
    "postgresql+psycopg2://user:password@host/database",
    "postgres://host/database",
    "postgresql://user@host/database",
    "postgresql:///database",
    "postgresql://user:p%40ss%2Fword%25@host/data%20base",
    "postgresql://user:ab%zz@host/database",
    "postgresql://user:a:b@host/database",
    "postgresql://user:password@[::1]:5433/database",
    "postgresql://user:password@/database?host=/run/postgresql",
    "postgresql://user:password@/database?host=/run/postgresql&port=5433",
    "postgresql://user:password@/database?host=one:5433&host=two:5434",
    "postgresql://user:password@one:5433,two:5434/database?target_session_attrs=read-write",
    "postgresql://user@host/database?sslmode=verify-full&sslrootcert=%2Fetc%2Fca.pem",
    "postgresql://host/database?options=-c+statement_timeout%3D5000",
    "postgresql://host/database?options=-c%20search_path%3Dx&application_name=mine",
]


@pytest.mark.parametrize("url", URLS)
def test_it_is_read_as_sqlalchemy_reads_it(url: str) -> None:
    engine = make_engine(url)
    _, theirs = engine.dialect.create_connect_args(engine.url)
    wanted = {name: str(value) for name, value in theirs.items() if str(value).strip(",")}
    assert keywords_of(url) == wanted


@pytest.mark.parametrize("url", ["", "host", "mysql://host/x", "postgresql://host:port/x"])
def test_what_is_no_url_of_postgres_is_refused_by_both(url: str) -> None:
    for read in (make_engine, lambda url: Single(url, {})):
        with pytest.raises(ConfigurationError, match="PGCLIP_DATABASE_URL"):
            read(url)


def test_the_engine_is_psycopg2s() -> None:
    assert make_engine("postgres://host/x").driver == create_engine("postgresql+psycopg2://").driver
