"""A hand that does what a worker does, one call at a time."""

import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import psycopg2
import pytest

Sql = Callable[..., list[Any]]
NewHand = Callable[..., "Hand"]


class Hand:
    """Does by hand what a worker does, on a connection of its own."""

    def __init__(self, url: str, lease_seconds: float = 60) -> None:
        self.connection = psycopg2.connect(url)
        self.connection.autocommit = True
        (self.id,) = self.sql(
            "SELECT pgclip.sign_on(1::smallint, 'h', 1, 'cpu', 'float32', 64, %s)", lease_seconds
        )[0]
        self.sql("SELECT pgclip.open_results()")

    def sql(self, statement: str, *arguments: Any) -> list[Any]:
        with self.connection.cursor() as cursor:
            cursor.execute(statement, arguments or None)
            return cursor.fetchall() if cursor.description else []

    def claim(
        self, limit: int = 64, max_bytes: int = 10**9, texts: int = 1
    ) -> tuple[str, list[Any]]:
        lease = str(uuid4())
        arguments = (self.id, lease, limit, max_bytes, texts)
        return lease, self.sql("SELECT * FROM pgclip.claim(%s, %s, %s, %s, %s)", *arguments)

    def store(
        self, lease: str, jobs: list[Any], vector: str = "[1,0]", epoch: int = 0
    ) -> list[int]:
        """Stores one vector for each job; returns the jobs that were settled."""
        ids = [job[0] for job in jobs]
        hashes = [bytes(job[5] or b"\1" * 32) for job in jobs]
        epoch = epoch or self.sql("SELECT epoch FROM pgclip.label_epoch")[0][0]
        self.connection.autocommit = False
        try:
            self.sql("INSERT INTO pg_temp.staged_vector SELECT unnest(%s), %s", ids, vector)
            (settled,) = self.sql(
                "SELECT pgclip.store(%s, %s, %s, %s, '[]')", lease, epoch, ids, hashes
            )[0]
            self.connection.commit()
        finally:
            self.connection.rollback()
            self.connection.autocommit = True
        return list(settled)

    def fail(self, reason: str) -> None:
        """Claims one job, and stores that it failed."""
        lease, jobs = self.claim(1)
        failed = json.dumps([{"job_id": jobs[0][0], "reason": reason, "message": "m"}])
        epoch = self.sql("SELECT epoch FROM pgclip.label_epoch")[0][0]
        self.sql("SELECT pgclip.store(%s, %s, '{}', '{}', %s)", lease, epoch, failed)

    def heartbeat(self, *held: str) -> bool:
        """Beats as a worker does that holds these leases."""
        (leases,) = self.sql("SELECT pgclip.heartbeat(%s, 60)::text[]", self.id)[0]
        if leases is None:
            return False
        unknown = list(set(leases) - set(held))
        self.sql("SELECT pgclip.release(%s, %s::uuid[])", self.id, unknown)
        return True

    def die(self) -> None:
        self.sql(
            "UPDATE pgclip.worker SET expires_at = now() - interval '1 s' WHERE id = %s", self.id
        )


@pytest.fixture
def model(sql: Sql) -> None:
    """A model is there, with vectors of two numbers."""
    sql("SELECT pgclip.register_model('m', 2, 10, '{\"fatal\": {}}')")


@pytest.fixture
def hand(database_url: str) -> NewHand:
    return lambda **options: Hand(database_url, **options)


def submit(sql: Sql, *texts: str, priority: int = 0) -> None:
    for text in texts:
        sql("SELECT pgclip.submit_text(%s, key => %s, priority => %s)", text, text, priority)


def keys(jobs: list[Any]) -> list[str]:
    return [job[3] for job in jobs]


def states(sql: Sql) -> dict[str, str]:
    return dict(sql("SELECT key, state FROM pgclip.items"))
