"""`pgclip doctor`: looks at everything that has to be there, and says what to do."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import typer

from pgclip import statements
from pgclip.cli.options import AsJson, DatabaseUrl, RedisUrl, settings_for
from pgclip.cli.output import out, print_json
from pgclip.cli.status import Status, look
from pgclip.database import Database, check_schema, make_engine
from pgclip.errors import PgclipError, SchemaError, translated
from pgclip.migrate import POSTGRES_VERSION, VECTOR_VERSION, differences, version_tuple
from pgclip.settings import Settings, masked

_REDIS = (6, 2)
_COUNTED = 1000
_STORAGE = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}
# Says which device torch has; in a process of its own, because the client loads no torch.
_DEVICE = """
import torch
name = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU, the CPU encodes"
print(f"torch {torch.__version__}: {name}")
"""
_MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "trouble": ("✗", "red")}


@dataclass(frozen=True)
class Finding:
    """What one check found, and what to do about it."""

    what: str
    state: Literal["ok", "warning", "trouble"]
    detail: str
    advice: str = ""


def doctor(
    database_url: DatabaseUrl = None, redis_url: RedisUrl = None, as_json: AsJson = False
) -> None:
    """Check services, versions, schema, model, folders and workers, and say what to do.

    Exit status 1 if something is in the way.
    """
    found: list[Finding] = []
    for finding in findings(database_url, redis_url):
        found.append(finding)
        if not as_json:
            _print(finding)
    if as_json:
        print_json([asdict(finding) for finding in found])
    if any(finding.state == "trouble" for finding in found):
        raise typer.Exit(1)


def findings(database_url: str | None, redis_url: str | None) -> Iterator[Finding]:
    """Every check in turn; those that need what is not there are left out."""
    try:
        settings = settings_for(database_url, redis_url)
    except PgclipError as error:
        yield Finding("settings", "trouble", str(error))
        return
    yield Finding("settings", "ok", "read")
    status = yield from _postgres(settings)
    yield _redis(settings)
    yield from _worker_parts(settings)
    yield from _places(settings)
    if status is not None:
        yield from _model(settings, status)
        yield from _work(status)


def _print(finding: Finding) -> None:
    mark, style = _MARKS[finding.state]
    out.print(f"[{style}]{mark}[/] ", end="")
    out.print(f"{finding.what}: {finding.detail}", markup=False)
    if finding.advice:
        out.print(f"  → {finding.advice}", markup=False)


def _postgres(settings: Settings) -> Generator[Finding, None, Status | None]:
    """Returns what the database says about the work, if it can."""
    where = masked(settings.database_url)
    try:
        server = _server(settings)
    except PgclipError as error:
        advice = "Start it, or set PGCLIP_DATABASE_URL; without any: pgclip up"
        yield Finding("Postgres", "trouble", f"{where}: {error}", advice)
        return None
    number, version, is_replica, installed, available, schema = server
    if number // 10_000 < POSTGRES_VERSION:
        advice = f"Upgrade it: pgclip needs {POSTGRES_VERSION} or later"
        yield Finding("Postgres", "trouble", f"{where}: version {version}", advice)
    elif is_replica:
        advice = "Give workers and those who submit the primary's URL; searching works here"
        yield Finding("Postgres", "warning", f"{where}: a read replica", advice)
    else:
        yield Finding("Postgres", "ok", f"{where}: version {version}")
    yield _extension(installed, available)
    if schema:
        yield Finding("schema", "trouble", "; ".join(schema), "pgclip migrate")
        return None
    yield Finding("schema", "ok", "pgclip is up to date")
    database = Database(settings.database_url, pool_size=1)
    try:
        yield _completeness(database)
        return look(database)
    finally:
        database.close()


def _completeness(database: Database) -> Finding:
    with database.transaction("completeness") as cursor:
        cursor.execute(statements.HEALABLE, (_COUNTED,))
        (lacking,) = cursor.fetchone() or (0,)
    if not lacking:
        return Finding("completeness", "ok", "nothing lacks a vector or label that is not queued")
    count = f"{lacking}{' or more' if lacking == _COUNTED else ''}"
    detail = f"{count} vectors or label sets of items are missing or outdated, and not queued"
    advice = "pgclip missing shows which; pgclip missing --heal brings them"
    return Finding("completeness", "warning", detail, advice)


def _server(settings: Settings) -> Any:
    """Facts of the server, and what is wrong with the schema."""
    from sqlalchemy.exc import DBAPIError

    engine = make_engine(
        settings.database_url,
        connect_args={"connect_timeout": max(1, round(settings.connect_timeout))},
    )
    try:
        with translated("connecting"):
            try:
                pooled = engine.raw_connection()
            except DBAPIError as error:
                raise (error.orig or error) from error
            with closing(pooled), pooled.cursor() as cursor:  # type: ignore[attr-defined]
                cursor.execute(statements.SERVER)
                server = cursor.fetchone()
                try:
                    check_schema(cursor)
                    return (*server, differences(cursor))
                except SchemaError as error:
                    return (*server, [str(error)])
    finally:
        engine.dispose()


def _extension(installed: str | None, available: str | None) -> Finding:
    version = installed or available
    needed = ".".join(map(str, VECTOR_VERSION))
    if version is None:
        return Finding(
            "pgvector",
            "trouble",
            "this Postgres does not have it",
            "Install it (https://github.com/pgvector/pgvector#installation), or use the image "
            "pgvector/pgvector; then: pgclip migrate",
        )
    if version_tuple(version) < VECTOR_VERSION:
        advice = f"Install {needed} or later, then in the database: ALTER EXTENSION vector UPDATE"
        return Finding("pgvector", "trouble", f"version {version}", advice)
    if installed is None:
        return Finding("pgvector", "ok", f"{version} is there; pgclip migrate will enable it")
    return Finding("pgvector", "ok", f"version {version}")


def _redis(settings: Settings) -> Finding:
    from redis import Redis, RedisError

    where = masked(settings.redis_url)
    limit = settings.connect_timeout
    try:
        with Redis.from_url(
            settings.redis_url, socket_timeout=limit, socket_connect_timeout=limit
        ) as redis:
            about: Any = redis.info("server")
    except (RedisError, ValueError, OSError) as error:
        return Finding("Redis", "trouble", f"{where}: {error}", _redis_advice(error))
    name = about.get("server_name", "redis")
    version = about.get("valkey_version") or about["redis_version"]
    if version_tuple(about["redis_version"]) < _REDIS:
        return Finding("Redis", "trouble", f"{where}: version {version}", "Upgrade it to 6.2")
    return Finding("Redis", "ok", f"{where}: {name} {version}")


def _redis_advice(error: Exception) -> str:
    if "certificate" in str(error).lower():
        return (
            "Does ssl_ca_certs in PGCLIP_REDIS_URL name the file of the authority that signed the "
            "server's certificate, and does that hold the host's name?"
        )
    return (
        "Start it, or set PGCLIP_REDIS_URL. Submissions are accepted without it, and start about a "
        "second later; workers need it to start"
    )


def _worker_parts(settings: Settings) -> Iterator[Finding]:
    missing = [
        name
        for name in ("torch", "transformers", "PIL", "pebble")
        if importlib.util.find_spec(name) is None
    ]
    if missing:
        yield Finding(
            "worker",
            "warning",
            f"can't run here: {', '.join(missing)} is not installed",
            "Only on machines that encode: pip install 'pgclip[worker]'",
        )
        return
    probe = subprocess.run(
        ["timeout", "60", sys.executable, "-c", _DEVICE], capture_output=True, text=True
    )
    if probe.returncode:
        last = probe.stderr.strip().splitlines()[-1:] or [f"status {probe.returncode}"]
        advice = "Install torch again, for this machine: https://pytorch.org/get-started"
        yield Finding("worker", "trouble", f"torch does not load: {''.join(last)}", advice)
    else:
        yield Finding("worker", "ok", probe.stdout.strip())


def _places(settings: Settings) -> Iterator[Finding]:
    for root in settings.roots:
        if not root.is_dir():
            advice = "Create it, mount it, or take it out of PGCLIP_ROOTS"
            yield Finding("root", "trouble", f"{root} is no folder", advice)
        elif not os.access(root, os.R_OK | os.X_OK):
            yield Finding("root", "trouble", f"{root} can't be read", "Change its permissions")
        else:
            yield Finding("root", "ok", f"{root} can be read")
    for prefix in settings.urls:
        scheme = prefix.split(":")[0]
        needed = _STORAGE.get(scheme)
        if needed and importlib.util.find_spec(needed) is None:
            advice = f"pip install {needed}"
            yield Finding("URLs", "trouble", f"{masked(prefix)} needs {needed}", advice)
        else:
            yield Finding("URLs", "ok", f"{masked(prefix)} may be fetched")


def _model(settings: Settings, status: Status) -> Iterator[Finding]:
    folder = Path(settings.model).expanduser()
    name = settings.model_name or (folder.name if folder.is_dir() else settings.model)
    models = {model["name"]: model for model in status.models}
    live = next((model["name"] for model in status.models if model["state"] == "live"), None)
    if live is None:
        yield Finding("model", "ok", f"{name} will be this database's with the first worker")
    elif name not in models:
        yield Finding(
            "model",
            "trouble",
            f"this database holds vectors of {live}; a worker from here would bring {name}",
            f"Set PGCLIP_MODEL (or PGCLIP_MODEL_NAME) to {live}, or add the other beside it: "
            f"SELECT pgclip.add_model('{name}')",
        )
    elif models[name]["state"] == "retired":
        advice = f"Set PGCLIP_MODEL to {live}"
        yield Finding("model", "trouble", f"{name} is retired; {live} is live", advice)
    else:
        yield Finding("model", "ok", f"{name} is {models[name]['state']}")


def _work(status: Status) -> Iterator[Finding]:
    alive = [worker for worker in status.workers if worker["alive"]]
    if not alive:
        advice = "Start one: pgclip worker"
        yield Finding("workers", "warning", "none is alive, so nothing is encoded", advice)
    else:
        yield Finding("workers", "ok", f"{len(alive)} alive")
    for worker in alive:
        if worker["trouble"]:
            detail = f"worker {worker['id']} on {worker['host']}: {worker['trouble']}"
            yield Finding("workers", "warning", detail, "Its log says more")
    waiting = status.oldest_waiting or 0.0
    if alive and waiting > 600:
        advice = "More workers, or a look at their logs; pgclip status --watch"
        detail = f"the oldest job has waited for {waiting / 60:.0f} minutes"
        yield Finding("queue", "warning", detail, advice)
    if status.failed:
        reasons = ", ".join(f"{reason} {count}" for reason, count in status.failed.items())
        advice = "pgclip list --state failed shows why; pgclip retry tries again"
        yield Finding("items", "warning", f"failed: {reasons}", advice)
