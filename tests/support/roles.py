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
def unprivileged(services: LocalServices) -> Iterator[Roles]:
    """An empty database, and roles without rights of their own."""
    (suffix,) = run_sql(services.database_url, "SELECT left(md5(random()::text), 8)")[0]
    database = f"ordinary_{suffix}"
    run_sql(services.database_url, f"CREATE DATABASE {database}")
    url = with_database(services.database_url, database)
    roles = Roles(url, *(f"{access}_{suffix}" for access in ("owner", "client", "worker")))
    for name in (roles.owner, roles.client, roles.worker):
        run_sql(url, f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
    yield roles
    run_sql(services.database_url, f"DROP DATABASE {database} WITH (FORCE)")
    for name in (roles.client, roles.worker, roles.owner):
        run_sql(services.database_url, f"DROP ROLE {name}")


@pytest.fixture
def ordinary(unprivileged: Roles) -> Roles:
    """Schema pgclip in such a database, and roles that were granted access."""
    roles = unprivileged
    run_sql(roles.url, "CREATE SCHEMA extensions; CREATE EXTENSION vector SCHEMA extensions")
    run_sql(roles.url, f"GRANT USAGE ON SCHEMA extensions TO {roles.owner}")
    run_sql(roles.url, f"GRANT CREATE ON DATABASE {roles.url.rsplit('/', 1)[1]} TO {roles.owner}")
    migrate(roles.of("owner"))
    for access in ("client", "worker"):
        name = getattr(roles, access)
        run_sql(roles.of("owner"), f"SELECT pgclip.grant_access('{name}', '{access}')")
    return roles
