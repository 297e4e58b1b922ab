"""Submits, replaces and deletes without end, in every way there is, and keeps a ledger of it.

    python submitter.py NUMBER SEED FOLDER

The ledger is a file of JSON lines: what is about to be submitted; then, with the same number, what
came of it. What has no second line may have been accepted or not: the process may have been killed
between. Every process has keys of its own, so what it did last to a key is what counts.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import psycopg2
from contents import Content, make

from pgclip import Client
from pgclip.errors import NotFound, PgclipError
from pgclip.submitting.tickets import TicketOffice

KEYS = 400


class Submitter:
    """One process; `run` never returns."""

    def __init__(self, number: int, seed: int, folder: Path) -> None:
        self._random = Random(f"{seed} {number}")
        self._name = f"s{number}"
        self._folder = folder
        ledger = folder.parent / f"ledger-{number}-{os.getpid()}.jsonl"
        self._ledger = ledger.open("a", encoding="utf-8")
        self._url = os.environ["PGCLIP_DATABASE_URL"]
        self._client = Client()
        self._count = 0

    def run(self) -> None:
        """Until the process is ended."""
        ways: list[tuple[int, Callable[[], None]]] = [
            (40, self._single), (10, self._bulk), (15, self._in_a_transaction),
            (10, self._in_sql), (12, self._delete), (1, self._die_before_the_ticket),
            (15, self._write_rows),
        ]  # fmt: skip
        weights, methods = zip(*ways, strict=True)
        while True:
            (way,) = self._random.choices(methods, weights)
            try:
                way()
            except (PgclipError, psycopg2.Error) as error:
                print(f"{self._name}: {type(error).__name__}: {error}", flush=True)
                time.sleep(0.2)
            time.sleep(self._random.random() * 0.05)

    def _single(self) -> None:
        (entry,) = entries = self._new(1)
        number = self._about_to(entries)
        self._submit(self._client, *entry)
        self._was(number, "accepted")

    def _bulk(self) -> None:
        entries = self._new(self._random.randrange(2, 60))
        number = self._about_to(entries)
        batch = self._client.submit_many(
            {"key": key, ("text" if content.kind == "text" else "image"): _given(content)}
            for key, content in entries
        )
        assert not batch.refused, batch.refused
        self._was(number, "accepted")

    def _in_a_transaction(self) -> None:
        entries = self._new(self._random.randrange(1, 5))
        number = self._about_to(entries)
        connection = psycopg2.connect(self._url)
        try:
            for entry in entries:
                self._submit(self._client, *entry, connection=connection)
            if self._random.random() < 0.2:
                connection.rollback()
                self._was(number, "rolled back")
            else:
                connection.commit()
                self._was(number, "accepted")
        finally:
            connection.close()

    def _in_sql(self) -> None:
        (entry,) = entries = self._new(1)
        key, content = entry
        number = self._about_to(entries)
        connection = psycopg2.connect(self._url)
        try:
            with connection, connection.cursor() as cursor:
                if content.kind == "text":
                    statement = "SELECT pgclip.submit_text(key => %s, body => %s)"
                    cursor.execute(statement, (key, content.data.decode()))
                elif content.path:
                    statement = "SELECT pgclip.submit_image(key => %s, source => %s)"
                    cursor.execute(statement, (key, f"file://{content.path}"))
                else:
                    statement = "SELECT pgclip.submit_image(key => %s, image => %s)"
                    cursor.execute(statement, (key, content.data))
        finally:
            connection.close()
        self._was(number, "accepted")

    def _delete(self) -> None:
        key = self._key()
        number = self._about_to([(key, None)])
        with suppress(NotFound):
            self._client.delete(key)
        self._was(number, "accepted")

    def _write_rows(self) -> None:
        """To a table that is kept in step; nothing is submitted."""
        rows = self._random.sample(range(KEYS), self._random.randrange(1, 20))
        connection = psycopg2.connect(self._url)
        try:
            with connection, connection.cursor() as cursor:
                if self._random.random() < 0.25:
                    keys = [f"{self._name}-{n}" for n in rows]
                    cursor.execute("DELETE FROM rows WHERE id = ANY(%s)", (keys,))
                    return
                for n in rows:
                    row = (f"{self._name}-{n}", f"row {self._name} {n} {self._random.random()}")
                    cursor.execute("INSERT INTO rows VALUES (%s, %s) ON CONFLICT (id) DO UPDATE "
                                   "SET body = excluded.body", row)  # fmt: skip
        finally:
            connection.close()

    def _die_before_the_ticket(self) -> None:
        entries = self._new(1)
        number = self._about_to(entries)

        def die(*_: Any, **__: Any) -> None:
            if threading.current_thread() is not threading.main_thread():
                return  # a ticket of an earlier transaction of the caller's
            # It is committed.
            self._was(number, "accepted", fault="submitter: SIGKILL between commit and ticket")
            os.kill(os.getpid(), signal.SIGKILL)

        announce = TicketOffice.announce
        TicketOffice.announce = die  # type: ignore[method-assign]
        try:
            self._submit(self._client, *entries[0])
        finally:  # Postgres refused it, so the death belongs to no submission
            TicketOffice.announce = announce  # type: ignore[method-assign]

    def _submit(self, client: Client, key: str, content: Content, connection: Any = None) -> None:
        if content.kind == "text":
            client.submit_text(content.data.decode(), key=key, connection=connection)
        else:
            client.submit_image(_given(content), key=key, connection=connection)

    def _new(self, count: int) -> list[tuple[str, Content]]:
        """Contents under different keys."""
        keys = self._random.sample(range(KEYS), count)
        return [(f"{self._name}-{n}", self._content()) for n in keys]

    def _content(self) -> Content:
        self._count += 1
        return make(self._random, f"{self._name}-{os.getpid()}-{self._count}", self._folder)

    def _key(self) -> str:
        return f"{self._name}-{self._random.randrange(KEYS)}"

    def _about_to(self, entries: "list[tuple[str, Content]] | list[tuple[str, None]]") -> int:
        self._count += 1
        ops = [[key, content and content.to_json()] for key, content in entries]
        self._write({"number": self._count, "ops": ops})
        return self._count

    def _was(self, number: int, what: str, **more: str) -> None:
        self._write({"number": number, "was": what, **more})

    def _write(self, line: dict[str, Any]) -> None:
        self._ledger.write(json.dumps({"at": time.monotonic(), **line}) + "\n")
        self._ledger.flush()


def _given(content: Content) -> Any:
    if content.kind == "text":
        return content.data.decode()
    return Path(content.path) if content.path else content.data


if __name__ == "__main__":
    number, seed, folder = sys.argv[1:]
    Submitter(int(number), int(seed), Path(folder)).run()
