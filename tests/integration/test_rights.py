"""The least rights that each role needs, as the page for operators has them: enough, and needed."""

import psycopg2
import pytest
from support.databases import assert_ledger_is_true, run_sql
from support.processes import WorkerFactory, eventually
from support.roles import Roles, as_role

from pgclip import Client, PgclipError, SchemaError
from pgclip.local import LocalServices
from pgclip.migrate import migrate, tried


@pytest.fixture
def bare(unprivileged: Roles) -> Roles:
    """Nobody may do anything in the database."""
    name = unprivileged.url.rsplit("/", 1)[1]
    run_sql(unprivileged.url, f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
    run_sql(unprivileged.url, "REVOKE ALL ON SCHEMA public FROM PUBLIC")
    return unprivileged


def grant(roles: Roles, *rights: str) -> None:
    for right in rights:
        name = roles.url.rsplit("/", 1)[1]
        run_sql(roles.url, f"GRANT {right.format(database=f'DATABASE {name}', **vars(roles))}")


FIRST = ("CONNECT ON {database} TO {owner}", "CREATE ON {database} TO {owner}",
         "USAGE ON SCHEMA extensions TO {owner}", "TEMPORARY ON {database} TO {owner}")  # fmt: skip


def made_ready(roles: Roles) -> None:
    run_sql(roles.url, "CREATE SCHEMA extensions; CREATE EXTENSION vector SCHEMA extensions")


def test_these_are_enough_for_all(
    bare: Roles, services: LocalServices, start_worker: WorkerFactory
) -> None:
    made_ready(bare)
    grant(bare, *FIRST, "CONNECT ON {database} TO {client}", "CONNECT ON {database} TO {worker}")
    migrate(bare.of("owner"))
    # CREATE was for the first time.
    name = bare.url.rsplit("/", 1)[1]
    run_sql(bare.url, f"REVOKE CREATE ON DATABASE {name} FROM {bare.owner}")
    for access in ("client", "worker"):
        run_sql(
            bare.of("owner"), f"SELECT pgclip.grant_access('{getattr(bare, access)}', '{access}')"
        )
    assert tried(bare.of("owner")) == tried(bare.of("client")) == tried(bare.of("worker")) == []
    start_worker(bare.of("worker"), PGCLIP_SEGMENT_ROWS="20", PGCLIP_STEWARD_INTERVAL="0.2")
    urls = {"database_url": bare.of("client"), "redis_url": services.redis_url}
    with Client(**urls) as client:
        client.submit_text("one", key="a").wait(30)
        client.submit_image(b"\xff" * 100_000, key="large")
        client.submit_many({"text": f"text {n}", "key": f"k{n}"} for n in range(80)).wait(60)
        assert client.search("text 7", k=1)[0].key == "k7"
        assert client.search([("text 7", 1.0), ("text 8", -0.2)], k=1)[0].key == "k7"
        assert client.search_vector([1.0] * 16, k=1)
        assert client.hybrid("text 7", k=1)[0].key == "k7"
        client.submit_text("anew", key="k1").wait(30)
        client.delete("k2")
        eventually(lambda: "sealed" in {each.state for each in client.segments()})
        eventually(lambda: client.count()["failed"] == 1)
    with Client(database_url=bare.of("owner"), redis_url=services.redis_url) as owner:
        owner.define_label_set("weather", ["sunny", "rainy"])
        owner.index_metadata("price")
        run_sql(bare.of("owner"), "SELECT pgclip.add_model('x'); SELECT pgclip.cancel_model('x')")
        assert migrate(bare.of("owner")) == []
        run_sql(bare.of("owner"), "DROP VIEW pgclip.queue")
        assert migrate(bare.of("owner"))
    assert_ledger_is_true(bare.url)


@pytest.mark.parametrize("lacking", FIRST)
def test_each_is_needed_by_the_owner(bare: Roles, lacking: str) -> None:
    made_ready(bare)
    grant(bare, *(right for right in FIRST if right != lacking))
    if lacking.startswith("TEMPORARY"):
        migrate(bare.of("owner"))
        (first, *_) = tried(bare.of("owner"))
        assert "GRANT TEMPORARY ON DATABASE" in first
    else:
        with pytest.raises(PgclipError, match="permission denied"):
            migrate(bare.of("owner"))


@pytest.mark.parametrize("access", ["client", "worker"])
def test_each_is_needed_by_a_client_and_a_worker(bare: Roles, access: str) -> None:
    made_ready(bare)
    grant(bare, *FIRST)
    migrate(bare.of("owner"))
    role = getattr(bare, access)
    with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
        run_sql(bare.of(access), "SELECT 1")
    run_sql(bare.of("owner"), f"SELECT pgclip.grant_access('{role}', '{access}')")
    (told,) = tried(bare.of("owner"))
    assert told.startswith("a right is lacking: GRANT CONNECT ON DATABASE")
    grant(bare, f"CONNECT ON {{database}} TO {role}")
    assert tried(bare.of("owner")) == tried(bare.of(access)) == []
    run_sql(bare.of("owner"), f"SELECT pgclip.revoke_access('{role}')")
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        run_sql(bare.of(access), "SELECT pgclip.try_out()")


def test_without_the_extension_it_is_said_who_can_install_it(bare: Roles) -> None:
    """In this build it is not a trusted one."""
    grant(bare, FIRST[0], FIRST[1], FIRST[3])
    with pytest.raises(SchemaError, match="Have a superuser run: CREATE EXTENSION vector"):
        migrate(bare.of("owner"))
    assert run_sql(bare.url, "SELECT to_regnamespace('pgclip')") == [(None,)]


def test_the_owner_of_nothing_is_told_who_must_migrate(bare: Roles) -> None:
    made_ready(bare)
    grant(bare, *FIRST, "CONNECT ON {database} TO {client}")
    migrate(bare.of("owner"))
    run_sql(bare.of("owner"), f"SELECT pgclip.grant_access('{bare.client}', 'client')")
    run_sql(bare.of("owner"), "DROP VIEW pgclip.queue")
    with pytest.raises(SchemaError, match=f"as {bare.owner}"):
        migrate(as_role(bare.url, bare.client))
