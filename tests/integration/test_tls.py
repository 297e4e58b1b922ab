"""TLS to both services: its options in the URLs hold for every connection that is made."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu.exceptions import OperationalError
from support.processes import WorkerFactory, eventually
from support.tls import Certificates, make_certificates, tls_before

from pgclip import Client, ConnectionFailed
from pgclip.local import LocalServices
from pgclip.migrate import migrate
from pgclip.settings import Settings
from pgclip.submitting.broker import make_app

Sql = Callable[..., list[Any]]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@dataclass
class Encrypted:
    """Where both services speak TLS and nothing else."""

    database: str
    redis: str

    def urls(self, authority: Path) -> dict[str, str]:
        """With an authority that certificates must come from, as docs/how-to.md has it."""
        return {
            "database_url": f"{self.database}?sslmode=verify-full&sslrootcert={authority}",
            "redis_url": f"{self.redis}?ssl_cert_reqs=required&ssl_ca_certs={authority}",
        }


@pytest.fixture
def encrypted(
    services: LocalServices, database_url: str, certificates: Certificates
) -> Iterator[Encrypted]:
    def at(url: str, port: int) -> str:
        return re.sub(r"(@|//)[^@/]+/", rf"\g<1>127.0.0.1:{port}/", url)

    with (
        tls_before(database_url, certificates) as database,
        tls_before(services.redis_url, certificates) as broker,
    ):
        in_tls = services.redis_url.replace("redis://", "rediss://")
        yield Encrypted(at(database_url, database), at(in_tls, broker))


def run(*command: str, **urls: str) -> "subprocess.CompletedProcess[str]":
    environ = {f"PGCLIP_{name.upper()}": url for name, url in urls.items()}
    return subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "COLUMNS": "400", "PGCLIP_CONNECT_TIMEOUT": "2", **environ},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_everything_works_through_tls(
    encrypted: Encrypted, certificates: Certificates, start_worker: WorkerFactory
) -> None:
    urls = encrypted.urls(certificates.authority)
    # Nothing is found without a ticket: that it arrives shows that Redis is reached.
    worker = start_worker(
        urls["database_url"],
        PGCLIP_REDIS_URL=urls["redis_url"],
        PGCLIP_IDLE_POLL="3600",
        PGCLIP_STEWARD_INTERVAL="3600",
    )
    eventually(lambda: "ready." in worker.log.read_text())
    with Client(**urls) as client:
        client.submit_text("hello", key="one").wait(60)
        client.submit_many({"text": f"text {n}"} for n in range(500)).wait(60)
        assert client.search("hello", k=1)[0].key == "one"
    migrate(urls["database_url"])
    doctor = run("-m", "pgclip", "doctor", model="planted", **urls)
    assert "sslmode=verify-full" in doctor.stdout
    assert doctor.returncode == 0, doctor.stdout
    assert run("-m", "pgclip", "health", **urls).returncode == 0
    worker.kill(signal.SIGTERM)
    assert worker.wait() == 0
    assert "broker lost" not in worker.log.read_text()


def test_a_database_of_another_authority_is_refused(
    encrypted: Encrypted, certificates: Certificates, sql: Sql, start_worker: WorkerFactory
) -> None:
    urls = encrypted.urls(certificates.stranger)
    with Client(**urls) as client, pytest.raises(ConnectionFailed) as caught:
        client.submit_text("hello")
    assert "certificate verify failed" in str(caught.value)
    assert "sslrootcert in PGCLIP_DATABASE_URL" in str(caught.value)
    with pytest.raises(ConnectionFailed, match="sslrootcert"):
        migrate(urls["database_url"])
    worker = start_worker(urls["database_url"], ready=False, PGCLIP_REDIS_URL=urls["redis_url"])
    assert worker.wait() == 1
    assert "sslrootcert in PGCLIP_DATABASE_URL" in worker.log.read_text()
    doctor = run("-m", "pgclip", "doctor", **urls)
    assert doctor.returncode == 1
    assert "sslrootcert in PGCLIP_DATABASE_URL" in doctor.stdout
    assert run("-m", "pgclip", "health", **urls).returncode == 2
    assert sql("SELECT count(*) FROM pgclip.items") == [(0,)]


def test_a_host_that_the_certificate_does_not_name_is_refused(
    encrypted: Encrypted, certificates: Certificates
) -> None:
    urls = {
        name: url.replace("127.0.0.1", "localhost")
        for name, url in encrypted.urls(certificates.authority).items()
    }
    with Client(**urls) as client, pytest.raises(ConnectionFailed, match="does not match"):
        client.submit_text("hello")
    with pytest.raises(redis.ConnectionError, match="match"):
        redis.Redis.from_url(urls["redis_url"]).ping()
    app = make_app(Settings.load({}, **urls))
    with app.connection() as connection, pytest.raises(OperationalError, match="match"):
        connection.ensure_connection(max_retries=1)


def test_a_redis_of_another_authority_is_refused_and_nothing_is_lost(
    encrypted: Encrypted,
    certificates: Certificates,
    start_worker: WorkerFactory,
    caplog: pytest.LogCaptureFixture,
) -> None:
    urls = encrypted.urls(certificates.authority)
    urls["redis_url"] = encrypted.urls(certificates.stranger)["redis_url"]
    worker = start_worker(urls["database_url"], PGCLIP_REDIS_URL=urls["redis_url"])
    eventually(lambda: "Cannot connect to rediss://" in worker.log.read_text())
    assert "CERTIFICATE_VERIFY_FAILED" in worker.log.read_text()
    with Client(**urls) as client:
        client.submit_text("hello").wait(60)  # found without a ticket
    assert "certificate verify failed" in caplog.text
    doctor = run("-m", "pgclip", "doctor", **urls)
    assert doctor.returncode == 1
    assert "ssl_ca_certs in PGCLIP_REDIS_URL" in doctor.stdout


@pytest.mark.parametrize("option", ["", "?ssl_ca_certs={}", "?ssl_cert_reqs=none"])
def test_celery_verifies_unless_told_otherwise(
    encrypted: Encrypted, certificates: Certificates, option: str
) -> None:
    """By itself, kombu trusts any server where a URL has no ssl_cert_reqs."""
    url = encrypted.redis + option.format(certificates.stranger)
    app = make_app(Settings.load({}, redis_url=url))
    with app.connection() as connection:
        if "none" in option:
            connection.ensure_connection(max_retries=1)
        else:
            with pytest.raises(OperationalError, match="CERTIFICATE_VERIFY_FAILED"):
                connection.ensure_connection(max_retries=1)
    app.close()


def test_without_tls_a_server_that_must_have_it_is_refused(
    services: LocalServices, database_url: str
) -> None:
    with (
        Client(
            database_url=f"{database_url}?sslmode=require", redis_url=services.redis_url
        ) as client,
        pytest.raises(ConnectionFailed, match="SSL"),
    ):
        client.submit_text("hello")
