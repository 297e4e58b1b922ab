"""A database whose owner is no superuser, with the extension in a schema of its own."""

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

import pytest
from support.databases import run_sql, with_database

from pgclip.local import LocalServices
from pgclip.migrate import migrate


def as_role(url: str, role: str) -> str:
    """The URL for another role, whose password is "secret"."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{role}:secret@{parts.netloc.split('@')[1]}"))


@dataclass(frozen=True)
class Roles:
    """Names of login roles; `url` is a superuser's."""

    url: str
    owner: str
    client: str
    worker: str

    def of(self, access: str) -> str:
        """The database's URL for the owner, the client or the worker."""
        return as_role(self.url, getattr(self, access))


@pytest.fixture
def ordinary(services: LocalServices) -> Iterator[Roles]:
    """Schema pgclip in such a database, and roles that were granted access."""
    (suffix,) = run_sql(services.database_url, "SELECT left(md5(random()::text), 8)")[0]
    database = f"ordinary_{suffix}"
    run_sql(services.database_url, f"CREATE DATABASE {database}")
    url = with_database(services.database_url, database)
    roles = Roles(url, *(f"{access}_{suffix}" for access in ("owner", "client", "worker")))
    for name in (roles.owner, roles.client, roles.worker):
        run_sql(url, f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
    run_sql(url, "CREATE SCHEMA extensions; CREATE EXTENSION vector SCHEMA extensions")
    run_sql(url, f"GRANT USAGE ON SCHEMA extensions TO {roles.owner}")
    run_sql(url, f"GRANT CREATE ON DATABASE {database} TO {roles.owner}")
    migrate(roles.of("owner"))
    for access in ("client", "worker"):
        run_sql(roles.of("owner"), f"SELECT pgclip.grant_access('{access}_{suffix}', '{access}')")
    yield roles
    run_sql(services.database_url, f"DROP DATABASE {database} WITH (FORCE)")
    for name in (roles.client, roles.worker, roles.owner):
        run_sql(services.database_url, f"DROP ROLE {name}")
