"""Texts of two kinds, a set by whose prompts they are told apart, and people who judge."""

from typing import Any

import pytest
from support.processes import WorkerFactory

from pgclip import Client, Promise


def submit(client: Client, word: str, count: int, first: int = 0, **metadata: Any) -> None:
    """Texts whose vectors are near a word's."""
    client.submit_many(
        [{"text": f"like {word} {n}", "key": f"{word} {n}", "metadata": metadata}
         for n in range(first, first + count)]
    ).wait(60)  # fmt: skip


@pytest.fixture
def armed(client: Client, database_url: str, start_worker: WorkerFactory) -> Client:
    """A worker, two kinds of texts, and a set by whose prompts they are told apart."""
    start_worker(database_url)
    submit(client, "weapon", 120)
    submit(client, "flower", 200)
    client.define_label_set(
        "guarded", ["weapon"], templates=["{}"], exclusive=False, background=["flower"],
        threshold=0.5, decide=True,
    )  # fmt: skip
    return client


def is_so(key: str) -> bool:
    return key.startswith("weapon")


def judge_all(client: Client, rounds: int = 100, by: str = "ana") -> int:
    """Judges what is drawn for promises until nothing is; how many that was."""
    count = 0
    for _ in range(rounds):
        draws = client.review("guarded", 20, by=by, purpose="promise")
        for draw in draws:
            client.judge("guarded", draw.label, draw.key, is_so(draw.key), by=by,
                         collection=draw.collection)  # fmt: skip
        count += len(draws)
        if not draws:
            break
    return count


def the_promise(client: Client, what: str = "precision") -> Promise:
    (found,) = [one for one in client.promises("guarded") if one.what == what]
    return found


def decided(client: Client, decision: str | None = None) -> dict[str, str]:
    return {one.key: one.decision for one in client.decisions("guarded", decision=decision)}  # type: ignore[arg-type]
