"""Another Celery application in the same Redis: its tasks run once, and when they are due.

As a program it is that application's worker: python neighbour.py URL FILE; each task that it runs
is a line of the file. With late acknowledgement, so that what it holds is in Redis meanwhile.
"""

import subprocess
import sys
import threading
from collections import Counter
from itertools import count
from pathlib import Path

from celery import Celery

# Most are due at once, and every third after the run.
_SOON, _LATE = 0.5, 3600
_EVERY_SECONDS = 0.3


def make_neighbour(url: str) -> Celery:
    """With Celery's own settings, and keys as they are by default."""
    app = Celery("shop", broker=url, set_as_current=False)
    app.conf.update(
        task_ignore_result=True, task_acks_late=True, broker_connection_retry_on_startup=True
    )
    return app


class Neighbour:
    """The application's worker as a process, and a thread that sends tasks."""

    def __init__(self, url: str, folder: Path) -> None:
        self._app = make_neighbour(url)
        self._ran = folder / "neighbour.txt"
        self._ran.touch()
        command = [sys.executable, __file__, url, str(self._ran)]
        with (folder / "neighbour.log").open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self._sent: dict[str, float] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def stop_sending(self) -> None:
        """The last that are due have their time."""
        self._stopping.set()
        self._thread.join()

    def troubles(self) -> list[str]:
        """Tasks that did not run though they were due, ran early, or more than once."""
        ran = Counter(self._ran.read_text().split())
        if len(self._sent) < 20:
            return [f"neighbour: only {len(self._sent)} tasks were sent"]
        return [
            f"neighbour: task {name} ran {ran[name]} times, due after {countdown} s"
            for name, countdown in self._sent.items()
            if ran[name] != (countdown == _SOON)
        ]

    def close(self) -> None:
        """Ends it."""
        self._stopping.set()
        self.process.kill()
        self.process.wait()

    def _send(self) -> None:
        for number in count():
            if self._stopping.wait(_EVERY_SECONDS):
                return
            countdown = _LATE if number % 3 == 0 else _SOON
            try:
                self._app.send_task("shop.remind", (str(number),), countdown=countdown)
            except Exception as error:  # a full Redis
                print(f"neighbour: not sent: {error}", flush=True)
            else:
                self._sent[str(number)] = countdown


def main(url: str, ran: Path) -> None:
    """Runs tasks until it is killed."""
    app = make_neighbour(url)

    @app.task(name="shop.remind")  # type: ignore[untyped-decorator]
    def remind(name: str) -> None:
        with ran.open("a") as file:
            file.write(f"{name}\n")

    app.Worker(pool="solo", quiet=True, hostname="shop@neighbour").start()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
