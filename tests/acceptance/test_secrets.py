"""Nothing tells a password, a signature or a token: real processes, everything that they say.

Every secret here has the same mark in it, and the mark must not be seen anywhere.
"""

import http.server
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import traceback
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psutil
import pytest
import redis
import yaml
from support.databases import run_sql
from support.places import ROOT
from support.processes import PLANTED, WorkerFactory, WorkerProcess, eventually, free_port

from pgclip import Client, ItemFailed, PgclipError
from pgclip.local import LocalServices
from pgclip.migrate import migrate
from pgclip.settings import Settings, masked
from pgclip.submitting.broker import make_app

Sql = Callable[..., list[Any]]
MARK = "s3same"
PASSWORD = f"{MARK}@x/y?z"  # what only a URL with percent-encoding can hold
ENCODED = f"{MARK}%40x%2Fy%3Fz"
SIGNED = f"X-Amz-Signature={MARK}&X-Amz-Security-Token={MARK}&size=9"


@dataclass
class Account:
    """One user of both services, whose password has the mark, and the URLs of that one."""

    name: str
    database_url: str
    redis_url: str


@pytest.fixture
def account(services: LocalServices, database_url: str, sql: Sql) -> Iterator[Account]:
    name = "told_" + sql("SELECT left(md5(current_database()), 8)")[0][0]
    sql(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    sql("SELECT pgclip.grant_access(%s, 'worker')", name)
    sql("SELECT pgclip.grant_access(%s, 'client')", name)
    server = redis.Redis.from_url(services.redis_url)
    server.acl_setuser(
        name, enabled=True, passwords=[f"+{PASSWORD}"], keys=["*"], channels=["*"],
        commands=["+@all"],
    )  # fmt: skip

    def own(url: str) -> str:
        return re.sub("://[^/]*@", f"://{name}:{ENCODED}@", url)

    yield Account(name, own(database_url), own(services.redis_url))
    server.acl_deluser(name)
    sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", name)
    left = "SELECT count(*) FROM pg_stat_activity WHERE usename = %s"
    eventually(lambda: sql(left, name) == [(0,)])
    sql(f"DROP OWNED BY {name}")
    sql(f"DROP ROLE {name}")


class Site(http.server.BaseHTTPRequestHandler):
    """A storage with signed URLs: it sends to another one, and has nothing."""

    def do_GET(self) -> None:
        self.send_response(302 if self.path.startswith("/moved") else 404)
        self.send_header("Location", f"/gone.jpg?{SIGNED}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def pgclip(account: Account, *arguments: str, **environ: str) -> str:
    """What a command says, whatever it ends with."""
    return run_quietly([sys.executable, "-m", "pgclip", *arguments], account, **environ)


def run_quietly(command: list[str], account: Account, **environ: str) -> str:
    urls = {"PGCLIP_DATABASE_URL": account.database_url, "PGCLIP_REDIS_URL": account.redis_url}
    told = subprocess.run(
        command,
        env={**os.environ, "PGCLIP_DATA_DIR": "/nonexistent", "COLUMNS": "300", **urls, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    return told.stdout


@pytest.fixture
def events(services: LocalServices) -> Iterator[list[dict[str, Any]]]:
    """All of Celery's events, as they come."""
    found: list[dict[str, Any]] = []
    app = make_app(Settings.load({}, redis_url=services.redis_url))
    connection = app.connection_for_read()
    receiver = app.events.Receiver(connection, handlers={"*": found.append})
    thread = threading.Thread(target=receiver.capture, kwargs={"limit": None, "wakeup": False})
    thread.start()
    yield found
    receiver.should_stop = True
    thread.join(10)
    connection.close()
    app.close()


def sources(site: str, nobody: str) -> list[str]:
    """Pictures behind URLs with secrets; none can be had, each for another reason."""
    return [
        f"https://me:{MARK}@127.0.0.1/a.jpg?{SIGNED}",
        f"https://{MARK}@127.0.0.1/a.jpg",
        f"https://me:{MARK}/{MARK}@127.0.0.1/a.jpg",
        f"ftp://me:{MARK}@127.0.0.1/a.jpg?token={MARK}",
        f"{site}/gone.jpg?{SIGNED}",
        f"{site}/moved.jpg?token={MARK}",
        f"{nobody}/a.jpg?sig={MARK}",
        f"nothing://bucket/a.jpg?token={MARK}",
        f"memory://bucket/a.jpg?token={MARK}",
        f"file://me:{MARK}@host/a.jpg",
        f"file:///nowhere/a.jpg?token={MARK}",
    ]


def say_all(worker: WorkerProcess, account: Account, port: int) -> dict[str, str]:
    """What tools tell of a worker."""
    parts = [psutil.Process(worker.process.pid)]
    parts += parts[0].children(recursive=True)
    celery = [sys.executable, "-m", "celery", "-A", "pgclip.celery_app"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        metrics = answer.read().decode()
    said = {
        "metrics": metrics,
        "titles": "\n".join(f"{part.name()} {part.cmdline()}" for part in parts),
        "report": run_quietly([*celery, "report"], account),
        "list": pgclip(account, "list", "--collection", "keyed", "--state", "failed"),
    }
    for question in ("stats", "conf", "active_queues"):
        said[question] = run_quietly([*celery, "inspect", "--json", question], account)
    assert all("127.0.0.1" in said[name] for name in ("stats", "conf"))
    for command in ("status", "doctor", "settings"):
        said[command] = pgclip(account, command)
        said[f"{command} as JSON"] = pgclip(account, command, "--json")
    return said


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_worker_tells_no_secret(
    account: Account,
    services: LocalServices,
    database_url: str,
    sql: Sql,
    site: str,
    events: list[dict[str, Any]],
    start_worker: WorkerFactory,
    log_format: str,
) -> None:
    # The owner makes the model's tables, as docs/how-to.md has it.
    owner = start_worker(database_url)
    owner.kill(signal.SIGTERM)
    owner.wait()
    port, nobody = free_port(), f"http://127.0.0.1:{free_port()}"
    worker = start_worker(
        account.database_url,
        PGCLIP_REDIS_URL=account.redis_url,
        PGCLIP_LOG_LEVEL="DEBUG",
        PGCLIP_LOG_FORMAT=log_format,
        PGCLIP_METRICS_PORT=str(port),
        PGCLIP_URLS=f"{site},{nobody},nothing://bucket,memory://bucket",
        PGCLIP_FETCH_RETRY_FOR="0",
        PGCLIP_PRIVATE_URLS="on",
    )
    eventually(lambda: "ready." in worker.log.read_text())  # Celery's part
    make_app(Settings.load({}, redis_url=account.redis_url)).control.enable_events()
    pictures = sources(site, nobody)
    with Client(database_url=account.database_url, redis_url=account.redis_url) as client:
        keyed = client.submit_many(
            {"image": source, "key": f"picture {n}", "collection": "keyed"}
            for n, source in enumerate(pictures)
        )
        unkeyed = client.submit_many({"image": source} for source in pictures)
        single = client.submit_image(pictures[0], collection="single")
        errors = []
        for job in (keyed, unkeyed, single):
            with pytest.raises(ItemFailed) as caught:
                job.wait(60)
            errors += [f"{caught.value} {caught.value!r}"]
    told = say_all(worker, account, port) if log_format == "text" else {}
    told["reasons"] = str(sql("SELECT reason, error FROM pgclip.items"))
    told["errors"] = "\n".join(errors)
    for reason in ("forbidden_url", "fetch_failed", "missing_file", "unknown_scheme"):
        assert reason in told["reasons"]
    eventually(lambda: {"task-succeeded", "worker-heartbeat"} <= {e["type"] for e in events})
    told["events"] = json.dumps(events, default=str)

    # From here on the password is wrong: every connection fails.
    sql(f"ALTER ROLE {account.name} PASSWORD 'another'")
    sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", account.name)
    server = redis.Redis.from_url(services.redis_url)
    server.acl_setuser(account.name, enabled=True, reset_passwords=True, passwords=["+another"])
    server.execute_command("CLIENT", "KILL", "USER", account.name)
    eventually(lambda: "password authentication failed" in worker.log.read_text())
    eventually(lambda: "invalid username-password pair" in worker.log.read_text())
    told["status, refused"] = pgclip(account, "status")
    told["doctor, refused"] = pgclip(account, "doctor")
    worker.kill(signal.SIGTERM)
    worker.wait()
    told["log"] = worker.log.read_text()
    assert " failed (forbidden_url): " in told["log"]
    assert "https://me:***@127.0.0.1/a.jpg?***" in told["log"]
    for where, text in told.items():
        assert text, where
        seen = text.find(MARK)
        assert seen < 0, f"{where}: …{text[max(0, seen - 300) : seen + 100]}…"


def refused(services: LocalServices) -> dict[str, tuple[str, str]]:
    """URLs of services that can't be reached, with what is wrong about them."""
    database, broker = services.database_url, services.redis_url
    port, name = free_port(), f"me:{ENCODED}@"

    def changed(url: str, place: str) -> str:
        return re.sub("://.*?@[^/]*", f"://{place}", url)

    here = "127.0.0.1"
    return {
        "nobody listens": (changed(database, f"{name}{here}:{port}"),
                           changed(broker, f"{name}{here}:{port}")),
        "no such host": (changed(database, f"{name}nowhere.invalid"),
                         changed(broker, f"{name}nowhere.invalid")),
        "wrong password": (re.sub(":[^:]*@", f":{ENCODED}@", database),
                           re.sub(":[^:]*@", f":{ENCODED}@", broker)),
        "unknown option": (changed(database, f"{name}{here}:{port}") + f"?token={MARK}",
                           changed(broker, f"{name}{here}:{port}") + f"?token={MARK}"),
    }  # fmt: skip


@pytest.mark.parametrize(
    "what", ["nobody listens", "no such host", "wrong password", "unknown option"]
)
def test_an_unreachable_service_is_named_without_its_password(
    services: LocalServices, what: str, caplog: pytest.LogCaptureFixture, database_url: str
) -> None:
    caplog.set_level(logging.DEBUG)
    database, broker = refused(services)[what]
    told = []
    with Client(database_url=database, redis_url=broker) as client:
        with pytest.raises(PgclipError) as caught:
            client.submit_text("hello")
        told += [str(caught.value), repr(caught.value), *traceback.format_exception(caught.value)]
        told += [repr(client.settings), repr(client)]
    with pytest.raises(PgclipError) as caught:
        migrate(database)
    told += traceback.format_exception(caught.value)
    run_sql(database_url, "SELECT pgclip.register_model('first', 4, 10, '{\"fatal\": {}}')")
    with Client(database_url=database_url, redis_url=broker) as client:
        client.submit_text("hello")  # accepted; the ticket is not
    assert "no ticket could be published" in caplog.text
    account = Account("me", database, broker)
    told += [caplog.text, run_quietly(PLANTED, account)]
    told += [pgclip(account, command) for command in ("status", "migrate", "doctor")]
    assert all(told[-4:])
    assert "***@" in told[-1]
    assert MARK not in "\n".join(told)


@pytest.mark.parametrize(
    "url",
    [
        f"://me:{MARK}/{MARK}@host:1/0",
        f"://me:{MARK}#{MARK}@host/0",
        f"://me:{MARK}?{MARK}@host/0",
        f"://me:{MARK}@{MARK}@host/0",
        f"://me:12/{MARK}@host/0",
        f"://host:{MARK}/0",
        f"host=127.0.0.1 password={MARK}",
    ],
)
def test_what_is_no_url_is_not_repeated(url: str) -> None:
    for name, scheme in (("database_url", "postgresql"), ("redis_url", "redis")):
        whole = scheme + url if url.startswith(":") else url
        with pytest.raises(PgclipError, match=f"PGCLIP_{name.upper()} is not a URL") as caught:
            Settings.load({}, **{name: whole})
        assert MARK not in "".join(traceback.format_exception(caught.value))
    for command in ("health", "status", "settings"):
        told = pgclip(Account("", "", whole), command)
        assert "PGCLIP_REDIS_URL is not a URL" in told
        assert MARK not in told


def test_prefixes_and_other_settings_are_masked() -> None:
    account = Account("me", f"postgresql://me:{ENCODED}@127.0.0.1:1/db", f"redis://:{ENCODED}@h/0")
    environ = {"PGCLIP_URLS": f"https://me:{MARK}@host/", "PGCLIP_MODEL": f"https://h/?t={MARK}"}
    for command in ("settings", "doctor"):
        told = pgclip(account, command, **environ)
        assert "***@" in told
        assert MARK not in told
    told = pgclip(account, "doctor", PGCLIP_URLS=f"//me:{MARK}@host/,https://me:{MARK}@host/")
    assert "PGCLIP_URLS" in told


def test_a_submission_that_is_refused_names_its_source_without_secrets(client: Client) -> None:
    url = f"https://me:{MARK}@host/a.jpg?{SIGNED}"
    told = []
    for wrong in ({"metadata": {"a": float("nan")}}, {"priority": 99}, {"collection": ""}):
        for key in ({}, {"key": url}):
            with pytest.raises(PgclipError) as caught:
                client.submit_image(url, **key, **wrong)
            told += [str(caught.value)]
            told += map(str, client.submit_many([{"image": url, **key, **wrong}]).failures())
    with pytest.raises(PgclipError) as caught:
        client.get(url)
    assert "https://me:***@host/a.jpg?***" in str(caught.value)
    assert MARK not in "\n".join([*told, str(caught.value)])


def test_what_libraries_ask_for_is_not_logged(site: str) -> None:
    """huggingface_hub and storages ask for signed URLs through such libraries."""
    program = f"""
import httpx
from pgclip.settings import Settings
from pgclip_workers.telemetry.logs import configure
configure(Settings.load({{}}, log_level="DEBUG"))
print(httpx.get("{site}/moved.jpg?token={MARK}", follow_redirects=True).status_code)
"""
    told = run_quietly([sys.executable, "-c", program], Account("", "", ""))
    assert told.split() == ["404"]


def test_kubernetes_has_secrets_from_a_secret_and_never_as_arguments() -> None:
    for file in (ROOT / "deploy" / "kubernetes").glob("*.yaml"):
        for document in yaml.safe_load_all(file.read_text()):
            if document["kind"] == "Secret":
                continue
            assert not re.search(r"(postgres(ql)?|rediss?)://", json.dumps(document)), file
            assert not re.search(r"PASSWORD", json.dumps(document)), file
    worker = json.dumps(
        list(yaml.safe_load_all((ROOT / "deploy" / "kubernetes" / "worker.yaml").read_text()))
    )
    assert '"secretRef": {"name": "pgclip"}' in worker


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("https://host:8080/@me/a.jpg", "https://host:8080/@me/a.jpg"),
        ("redis://:a@b@host/0", "redis://:***@host/0"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("postgresql://me@tenant:x@h/db", "postgresql://***:***@h/db"),
        ("https://me@tenant:x@h/a.jpg", "https://***:***@h/a.jpg"),
        ("https://token@h/a@b.jpg", "https://***@h/a@b.jpg"),
        ("redis://:a/b@host/0", "redis://:***@host/0"),
        (
            "postgresql://me:x@h/d?sslmode=verify-full&sslrootcert=/ca&sslpassword=x&password=x",
            "postgresql://me:***@h/d?sslmode=verify-full&sslrootcert=/ca&***&***",
        ),
        ("rediss://h?ssl_cert_reqs=required&x", "rediss://h?ssl_cert_reqs=required&***"),
        ("a key? with: no@ URL", "a key? with: no@ URL"),
    ],
)
def test_what_is_masked_and_what_stays(url: str, seen: str) -> None:
    assert masked(url) == seen
