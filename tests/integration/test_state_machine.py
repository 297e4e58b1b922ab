"""The queue's promise under every interleaving that hypothesis thinks of, on the real functions.

A step is what a process does in one transaction; a process may die between any two. Leases that
were lost are kept and used again later, as a worker does that was frozen.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from typing import Any
from uuid import uuid4

import psycopg2
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

KEYS = ["a", "b", "c"]
# Texts and their vectors; "bad" is one on which the model fails.
VECTORS = {"x": [1, 0, 0], "y": [0, 1, 0], "z": [0, 0, 1]}
CONTENTS = [*VECTORS, "bad"]
MAINTENANCE = [
    "SELECT pgclip.close_segment(1::smallint, 1)",
    "SELECT pgclip.build_segment(1::smallint, %s, '4MB', 0)",
    "SELECT pgclip.announce_segments(1::smallint)",
    "SELECT pgclip.exchange_segments(1::smallint)",
    "SELECT pgclip.drop_retired(1::smallint, interval '0')",
]
NEVER = 1000  # strikes until a job is given up: blame has tests of its own


@dataclass
class Held:
    """What a worker believes to hold: jobs (id, hash, text) under a lease."""

    worker: int
    lease: str
    jobs: list[tuple[int, bytes, str]]


class Queue(RuleBasedStateMachine):
    """`expected` is what has been submitted and not deleted: the content of each key."""

    url: str

    def __init__(self) -> None:
        super().__init__()
        self._connection = psycopg2.connect(self.url)
        self._connection.autocommit = True
        self._sql("SELECT pgclip._delete_items(ARRAY(SELECT id FROM pgclip.item))")
        self._sql("DELETE FROM pgclip.worker")
        for name in ("general", "moderation"):
            self._sql("SELECT pgclip.drop_label_set(%s)", name)
        self.variant = 0
        self.define_labels()
        self.expected: dict[str, str] = {}
        self.held: list[Held] = []
        self.workers = [self._sign_on() for _ in range(2)]
        self._steps = cycle(MAINTENANCE)

    def _sql(self, statement: str, *arguments: Any) -> list[Any]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement, arguments or None)
            return cursor.fetchall() if cursor.description else []

    def _sign_on(self) -> int:
        statement = "SELECT pgclip.sign_on(1::smallint, 'h', 1, 'cpu', 'f', 64, 600)"
        ((worker,),) = self._sql(statement)
        return int(worker)

    @rule(
        items=st.dictionaries(st.sampled_from(KEYS), st.sampled_from(CONTENTS), min_size=1),
        commit=st.sampled_from([True, True, True, False]),
    )
    def submit(self, items: dict[str, str], commit: bool) -> None:
        self._sql("BEGIN")
        for key, content in items.items():
            self._sql("SELECT pgclip.submit_text(%s, key => %s)", content, key)
        self._sql("COMMIT" if commit else "ROLLBACK")
        if commit:
            self.expected |= items

    def _is_queued(self) -> bool:
        return self._sql("SELECT count(*) FROM pgclip.job WHERE lease IS NULL") > [(0,)]

    @precondition(_is_queued)
    @rule()
    def work(self) -> None:
        """As it mostly goes."""
        self.claim(0, 3)
        if self.held:
            self._store(self.held[-1])

    @precondition(lambda self: self.expected)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.expected)))
        self._sql("SELECT pgclip.delete(%s)", key)
        del self.expected[key]

    @precondition(_is_queued)
    @rule(which=st.integers(0, 1), limit=st.integers(1, 3))
    def claim(self, which: int, limit: int) -> None:
        lease, worker = str(uuid4()), self.workers[which]
        jobs = self._sql("SELECT * FROM pgclip.claim(%s, %s, %s, 10000)", worker, lease, limit)
        if jobs:
            contents = [(job[0], bytes(job[5])) for job in jobs]
            texts = "SELECT convert_from(data, 'UTF8') FROM pgclip.content WHERE hash = %s"
            found = [(job, hash_, self._sql(texts, hash_)[0][0]) for job, hash_ in contents]
            self.held.append(Held(worker, lease, found))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), forget=st.booleans(), commit=st.booleans())
    def store(self, data: st.DataObject, forget: bool, commit: bool) -> None:
        """Also twice, also under a lease that is lost, also cut off before its commit."""
        held = data.draw(st.sampled_from(self.held))
        self._store(held, "COMMIT" if commit else "ROLLBACK")
        if forget:
            self.held.remove(held)

    def _store(self, held: Held, end: str = "COMMIT") -> None:
        done = [job for job in held.jobs if job[2] in VECTORS]
        failed = [job for job in held.jobs if job[2] not in VECTORS]
        failures = [{"job_id": job, "reason": "planted", "message": ""} for job, _, _ in failed]
        self._sql("BEGIN")
        self._sql("SELECT pgclip.open_results()")
        for job, _, text in done:
            vector = str(VECTORS[text])
            self._sql("INSERT INTO pg_temp.staged_vector VALUES (%s, %s::halfvec)", job, vector)
            self._stage_label(job)
        self._sql(
            "SELECT pgclip.store(%s, (SELECT epoch FROM pgclip.label_epoch), %s::bigint[], "
            "%s::bytea[], %s::text::jsonb)",
            held.lease, [job for job, _, _ in done], [hash_ for _, hash_, _ in done],
            str(failures).replace("'", '"'),
        )  # fmt: skip
        self._sql(end)

    def _stage_label(self, owner: int) -> None:
        """The one label that an item has of the present variant."""
        self._sql(
            "INSERT INTO pg_temp.staged_label SELECT %s, l.id, s.version, 1 FROM pgclip.label l "
            "JOIN pgclip.label_set s ON s.id = l.set_id WHERE l.name = %s",
            owner, f"only {self.variant}",
        )  # fmt: skip

    @rule()
    def define_labels(self) -> None:
        """What is there already has labels that are older than their set."""
        self.variant += 1
        labels = ["one", "another", f"only {self.variant}"]
        self._sql("SELECT pgclip.define_label_set('set', %s)", labels)

    @rule(commit=st.sampled_from([True, True, False]))
    def label_anew(self, commit: bool) -> None:
        self._label_anew("COMMIT" if commit else "ROLLBACK")

    def _label_anew(self, end: str) -> int:
        """What a worker does where it was asked to heal; how many of at most two items."""
        self._sql("BEGIN")
        items = self._sql("SELECT item_id FROM pgclip.labels_due(1::smallint, 2)")
        if items:
            self._sql("SELECT pgclip.open_results()")
            for (item,) in items:
                self._stage_label(item)
            self._sql(
                "SELECT pgclip.store_labels(1::smallint, (SELECT epoch FROM pgclip.label_epoch), "
                "%s::bigint[], (SELECT array_agg(id) FROM pgclip.label_set))",
                [item for (item,) in items],
            )
        self._sql(end)
        return len(items)

    @precondition(_is_queued)
    @rule()
    def lose_jobs(self) -> None:
        """Somebody's hand, or a backup of some tables only."""
        self._sql("DELETE FROM pgclip.job WHERE lease IS NULL")

    @rule()
    def heal(self) -> None:
        last: int | None = 0
        while last is not None:
            ((last,),) = self._sql('SELECT last_id FROM pgclip.heal(%s, "limit" => 2)', last)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), forget=st.booleans())
    def hand_back(self, data: st.DataObject, forget: bool) -> None:
        held = data.draw(st.sampled_from(self.held))
        self._sql("SELECT pgclip.release(%s, %s::uuid[])", held.worker, [held.lease])
        if forget:
            self.held.remove(held)

    @rule(which=st.integers(0, 1))
    def die(self, which: int) -> None:
        """Without a word; the steward finds out, and another worker comes."""
        self._sql(
            "UPDATE pgclip.worker SET expires_at = now() - interval '1 s', "
            "heartbeat_at = now() - interval '1 s' WHERE id = %s",
            self.workers[which],
        )
        self._sql("SELECT pgclip.sweep(%s)", NEVER)
        self.workers[which] = self._sign_on()

    @rule()
    def sweep(self) -> None:
        """What a steward does."""
        self._sql("SELECT pgclip.sweep(%s)", NEVER)
        self._sql("SELECT pgclip.collect_contents(100)")

    @rule()
    def maintain(self) -> None:
        """The next of the steps that segments go through; anything may happen between two."""
        statement = next(self._steps)
        if "build_segment" in statement:
            ((sources,),) = self._sql("SELECT pgclip.next_build(1::smallint, 3, 0.2, 0, 10000000)")
            if sources:
                self._sql(statement, sources)
        else:
            self._sql(statement)

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        states = self._sql(
            "SELECT key, state, convert_from(c.data, 'UTF8'), "
            "ARRAY(SELECT v::real[]::text FROM pgclip.vectors_of(i.id) v) "
            "FROM pgclip.items i JOIN pgclip.content c ON c.hash = i.content_hash"
        )
        assert {key: content for key, _, content, _ in states} == self.expected
        for _, state, content, vectors in states:
            assert len(vectors) <= 1
            if state == "done":
                assert vectors == [shown(VECTORS[content])]
            elif state == "failed":
                assert content == "bad"

    @invariant()
    def vectors_are_those_of_the_ledger(self) -> None:
        ((every,),) = self._sql("SELECT pgclip._vectors(1::smallint)")
        vectors = self._sql(f"SELECT id FROM {every} v ORDER BY id")
        ledger = "SELECT unnest(vector_ids) AS id FROM pgclip.embedding_set ORDER BY id"
        assert vectors == self._sql(ledger)

    @invariant()
    def labels_are_of_their_set_or_missing(self) -> None:
        labels = self._sql(
            "SELECT i.key, array_agg(l.label) FILTER (WHERE l.current) FROM pgclip.items i "
            "LEFT JOIN pgclip.labels l ON l.item_id = i.id WHERE NOT EXISTS "
            "(SELECT FROM pgclip.missing m WHERE m.item_id = i.id) GROUP BY i.key"
        )
        assert all(found == [f"only {self.variant}"] for _, found in labels), labels

    def teardown(self) -> None:
        """Whatever has happened: a worker that works on brings everything to its end."""
        for held in self.held:  # those who wake late
            self._store(held)
        for which in (0, 1):
            self.die(which)
        self.held.clear()
        self.heal()
        while True:
            self.claim(0, 3)
            if not self.held:
                break
            self._store(self.held.pop())
        self.nothing_is_lost_or_doubled()
        ended = dict(self._sql("SELECT key, state FROM pgclip.items"))
        assert ended == {
            key: "failed" if content == "bad" else "done" for key, content in self.expected.items()
        }
        while self._label_anew("COMMIT"):
            pass
        missing = self._sql("SELECT key, reason FROM pgclip.missing ORDER BY key")
        bad = sorted(key for key, content in self.expected.items() if content == "bad")
        assert missing == [(key, "planted") for key in bad]
        self.sweep()
        left = "SELECT convert_from(data, 'UTF8') FROM pgclip.content ORDER BY 1"
        assert [text for (text,) in self._sql(left)] == sorted(set(self.expected.values()))
        self._connection.close()


def shown(vector: list[int]) -> str:
    """As Postgres shows real[]."""
    return "{" + ",".join(map(str, vector)) + "}"


@pytest.fixture
def queue(database_url: str, sql: Callable[..., list[Any]]) -> type[Queue]:
    sql("SELECT pgclip.register_model('m', 3, 10, '{\"fatal\": {}}')")
    return type("QueueOfThisTest", (Queue,), {"url": database_url})


def test_no_interleaving_breaks_the_promise(queue: type[Queue]) -> None:
    run_state_machine_as_test(
        queue,
        settings=settings(
            max_examples=50, stateful_step_count=60, deadline=None, derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
