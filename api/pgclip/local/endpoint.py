"""Where a server listens and its password, kept in a file that only the data's owner may read."""

import json
import os
import secrets
import socket
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from pgclip.local.errors import LocalServicesError

HOST = "127.0.0.1"
# Below the range that Linux and macOS give to outgoing connections: one of those could sit on a
# server's port while it restarts, and a client that retries could even connect to itself.
_PORTS = range(20_000, 32_000)
_PORT_TRIES = 200


@dataclass(frozen=True)
class Endpoint:
    """A port on the loopback interface and the password that is asked for there."""

    port: int
    password: str

    @classmethod
    def new(cls) -> Self:
        """Choose a free port and a random password."""
        return cls(_free_port(), secrets.token_urlsafe(24))

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """Read what `save` wrote; None when it is not there or not whole."""
        try:
            return cls(**json.loads(path.read_text()))
        except (FileNotFoundError, TypeError, ValueError):
            return None

    def save(self, path: Path) -> None:
        """Write to `path`, mode 0600; whole and on disk when this returns."""
        fd, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        with os.fdopen(fd, "w") as file:
            json.dump(asdict(self), file)
            file.flush()
            os.fsync(fd)
        os.replace(name, path)

    def on_free_port(self) -> Self:
        """Return itself, or with another port when somebody listens on this one."""
        return self if _is_free(self.port) else replace(self, port=_free_port())


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    for _ in range(_PORT_TRIES):
        port = _PORTS.start + secrets.randbelow(len(_PORTS))
        if _is_free(port):
            return port
    raise LocalServicesError(f"No free port was found between {_PORTS.start} and {_PORTS.stop}.")
