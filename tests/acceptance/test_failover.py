"""Connections that break and come back elsewhere: a replica takes over, a password is changed."""

import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg2
import pytest
from support.clusters import Cluster, place
from support.databases import assert_ledger_is_true, run_sql
from support.processes import WorkerFactory, eventually

from pgclip import Client, ConnectionFailed
from pgclip.local import LocalServices
from pgclip.migrate import migrate


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[Cluster]:
    server = Cluster(place(tmp_path / "clusters") / "primary").create().start()
    migrate(server.url())
    yield server
    server.stop()


def submitted(client: Client, *keys: str) -> None:
    """Tries until it is accepted, as a backend does."""

    def attempt(key: str) -> bool:
        try:
            client.submit_text(f"text {key}", key=key)
        except ConnectionFailed:
            return False
        return True

    for key in keys:
        eventually(lambda key=key: attempt(key))  # type: ignore[misc]


def test_a_replica_takes_over(
    primary: Cluster, services: LocalServices, start_worker: WorkerFactory
) -> None:
    folder = primary.folder.parent
    replica = Cluster(folder / "replica")
    primary.run("pg_basebackup", "-R", "-D", str(replica.folder), "-d", primary.url())
    replica.start()
    run_sql(primary.url(), "ALTER SYSTEM SET synchronous_standby_names = '*'")
    run_sql(primary.url(), "SELECT pg_reload_conf()")
    both = f"postgresql://postgres@127.0.0.1:{primary.port},127.0.0.1:{replica.port}/postgres"
    both += "?target_session_attrs=read-write"
    try:
        start_worker(both)
        with Client(database_url=both, redis_url=services.redis_url) as client:
            submitted(client, *(f"before-{n}" for n in range(200)))
            waiting = client.submit_text("sleep 2", key="waiting")
            primary.stop(signal.SIGQUIT)
            with pytest.raises(ConnectionFailed):
                client.submit_text("too early", key="too early")
            replica.run("pg_ctl", "promote", "-D", str(replica.folder))
            run_sql(replica.url(), "ALTER SYSTEM RESET synchronous_standby_names")
            run_sql(replica.url(), "SELECT pg_reload_conf()")
            submitted(client, *(f"after-{n}" for n in range(20)))
            waiting.wait(60)
            eventually(lambda: client.count()["done"] == 221)
            assert client.search("text before-7", k=1)[0].key == "before-7"
        assert_ledger_is_true(replica.url())
    finally:
        replica.stop()


def test_a_password_is_changed(
    primary: Cluster, services: LocalServices, start_worker: WorkerFactory, tmp_path: Path
) -> None:
    """Read from a file with each new connection, so that nothing has to be started anew."""

    def change(password: str) -> None:
        run_sql(primary.url(), f"ALTER ROLE app PASSWORD '{password}'")
        passfile.write_text(f"127.0.0.1:{primary.port}:*:app:{password}\n")
        passfile.chmod(0o600)
        run_sql(primary.url(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                               " WHERE usename = 'app'")  # fmt: skip

    passfile = tmp_path / "passfile"
    run_sql(primary.url(), "CREATE ROLE app LOGIN SUPERUSER")
    hba = primary.folder / "pg_hba.conf"
    hba.write_text(f"host all app 127.0.0.1/32 scram-sha-256\n{hba.read_text()}")
    change("first")
    run_sql(primary.url(), "SELECT pg_reload_conf()")
    with pytest.raises(psycopg2.OperationalError):
        psycopg2.connect(primary.url(user="app"))
    url = f"{primary.url(user='app')}?passfile={passfile}"
    start_worker(url)
    with Client(database_url=url, redis_url=services.redis_url) as client:
        submitted(client, "a")
        waiting = client.submit_text("sleep 2", key="waiting")
        change("second")
        submitted(client, "b")
        waiting.wait(60)
        eventually(lambda: client.count()["done"] == 3)
