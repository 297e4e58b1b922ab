"""Dumped and restored by an ordinary owner, copied, upgraded: it searches, or is repaired."""

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.clusters import TESTED, Cluster, place, programs
from support.commands import pgclip
from support.databases import run_sql, with_database
from support.roles import as_role
from support.tables import followed, plain_table, texts
from upgrades import filled

from pgclip import Client
from pgclip.local import LocalServices
from pgclip.migrate import migrate, plan, renew_installation, tried

Sql = Callable[..., list[Any]]


@pytest.fixture
def filled_url(database_url: str, sql: Sql) -> Iterator[str]:
    """A database with rows in every table; one of its roles was given access."""
    sql(f"CREATE ROLE {filled.CLIENT}")
    filled.fill(sql)
    yield database_url
    sql(f"DROP OWNED BY {filled.CLIENT}")
    sql(f"DROP ROLE {filled.CLIENT}")


@pytest.fixture
def owner(services: LocalServices, sql: Sql) -> Iterator[str]:
    """The URL of a database that has the extension, of an owner who may nothing else."""
    (suffix,) = sql("SELECT left(md5(random()::text), 8)")[0]
    name = f"restored_{suffix}"
    sql(f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
    sql(f"CREATE DATABASE {name} OWNER {name}")
    url = with_database(services.database_url, name)
    run_sql(url, "CREATE EXTENSION vector")
    yield as_role(url, name)
    sql(f"DROP DATABASE {name} WITH (FORCE)")
    sql(f"DROP ROLE {name}")


def restored(source: str, target: str, *options: str) -> str:
    """As people do it; what psql complained about."""
    dumped = subprocess.run(
        [programs(TESTED) / "pg_dump", "-n", "pgclip", *options, source],
        capture_output=True,
        check=True,
    )
    done = subprocess.run(
        [programs(TESTED) / "psql", "-q", target],
        input=dumped.stdout,
        capture_output=True,
        check=True,
    )
    return done.stderr.decode()


def finds(url: str, redis_url: str) -> None:
    with Client(database_url=url, redis_url=redis_url) as client:
        assert client.count() == {"queued": 9, "leased": 3, "done": 58, "failed": 10}
        assert client.search(like="text-7", k=1)
        assert client.search("red", k=3, exact=True)
        assert client.search("red", k=3)
        assert client.hybrid("red", k=3)


def test_restored_by_an_ordinary_owner_it_searches(
    filled_url: str, owner: str, services: LocalServices
) -> None:
    assert restored(filled_url, owner, "--no-owner", "--no-privileges") == ""
    finds(owner, services.redis_url)
    assert tried(owner) == []
    # Everybody may call what only some should, and those are lacking.
    assert all(step.startswith(("GRANT", "REVOKE")) for step in plan(owner))
    assert migrate(owner)
    assert plan(owner) == []


def test_with_owners_and_rights_of_the_original_too(
    filled_url: str, owner: str, services: LocalServices
) -> None:
    complaints = restored(filled_url, owner)
    lines = {line.split("ERROR:")[-1].strip() for line in complaints.splitlines()}
    assert lines <= {'must be able to SET ROLE "postgres"'}
    finds(owner, services.redis_url)
    migrate(owner)
    assert plan(owner) == tried(owner) == []


def test_what_a_restore_left_out_is_repaired(
    filled_url: str, owner: str, services: LocalServices
) -> None:
    restored(filled_url, owner, "--no-owner")
    run_sql(owner, "DROP FUNCTION pgclip._nearest_by_index; DROP VIEW pgclip.queue")
    found = pgclip("doctor", PGCLIP_DATABASE_URL=owner, PGCLIP_REDIS_URL=services.redis_url)
    assert found.returncode == 1
    assert "lay function _nearest_by_index: it is missing" in found.stdout
    migrate(owner)
    finds(owner, services.redis_url)


def test_tables_that_are_kept_in_step(
    database_url: str, sql: Sql, owner: str, services: LocalServices
) -> None:
    """Restored with their tables they are followed on; without them their items stay."""
    sql("SELECT pgclip.register_model('m', 2, 10, '{\"fatal\": {}}')")
    plain_table(sql, "id int PRIMARY KEY, body text")
    sql("INSERT INTO t VALUES (1, 'one'), (2, 'two')")
    followed(sql)
    sql("INSERT INTO t VALUES (3, 'noted')")

    def there(statement: str, *arguments: Any) -> list[Any]:
        return run_sql(owner, statement, *arguments)

    assert restored(database_url, owner, "--no-owner", "--no-privileges") == ""
    migrate(owner)
    followed(there)
    (state,) = there("SELECT state, trouble, items FROM pgclip.tables")
    assert state == ("troubled", "table public.t has not been restored; its items stay", 2)
    there("CREATE TABLE t (id int PRIMARY KEY, body text); INSERT INTO t VALUES (2, 'TWO')")
    followed(there)
    assert texts(there, "t") == {"2": "TWO"}
    assert "lacks triggers" in there("SELECT trouble FROM pgclip.tables")[0][0]
    there("SELECT pgclip.index_table('t', text => 'body')")
    there("INSERT INTO t VALUES (4, 'four')")
    followed(there)
    assert texts(there, "t") == {"2": "TWO", "4": "four"}


def test_a_copy_gets_an_installation_of_its_own(filled_url: str, owner: str) -> None:
    restored(filled_url, owner, "--no-owner")
    queues = "SELECT pgclip.ticket_queues()"
    before = run_sql(owner, queues)
    assert before == run_sql(filled_url, queues)
    told = pgclip("migrate", "--new-installation", PGCLIP_DATABASE_URL=owner)
    assert told.returncode == 0, told.stderr
    (after,) = run_sql(owner, "SELECT id FROM pgclip.installation")[0]
    assert f"installation {after}" in told.stdout
    assert run_sql(owner, queues) != before
    assert run_sql(filled_url, queues) == before
    # What the original's workers are at is to be done here, too, and without blame.
    assert run_sql(owner, "SELECT count(*), max(strikes), max(group_limit) FROM pgclip.job"
                          " WHERE lease IS NULL") == [(18, 0, None)]  # fmt: skip
    assert run_sql(owner, "SELECT count(*) FROM pgclip.worker") == [(0,)]
    assert renew_installation(owner) != str(after)


def test_pg_upgrade_with_data(tmp_path: Path, services: LocalServices) -> None:
    """From 16 to 18: the check passes, and all goes on."""
    folder = place(tmp_path / "clusters")
    old = Cluster(folder / "old", 16).create().start()
    run_sql(old.url(), f"CREATE ROLE {filled.CLIENT}")
    run_sql(old.url(), "CREATE DATABASE pgclip")
    migrate(old.url("pgclip"))
    filled.fill(filled.connected(old.url("pgclip")))
    run_sql(old.url("pgclip"), "SELECT pgclip.add_model('another')")
    old.stop()
    new = Cluster(folder / "new", 18).create()
    # The path of a socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="pgclip-", dir="/tmp") as sockets:
        upgrade = ["-b", str(programs(16)), "-B", str(programs(18)), "-d", str(old.folder),
                   "-D", str(new.folder), "-U", "postgres",
                   "-s", str(place(Path(sockets)))]  # fmt: skip
        assert "Clusters are compatible" in new.run("pg_upgrade", "--check", *upgrade, cwd=folder)
        assert "Upgrade Complete" in new.run("pg_upgrade", *upgrade, cwd=folder)
    new.start()
    try:
        url = new.url("pgclip")
        finds(url, services.redis_url)
        assert tried(url) == plan(url) == migrate(url) == []
    finally:
        new.stop()
