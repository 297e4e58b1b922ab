"""What should be there by the ledgers of the submitters, and what is."""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psycopg2
import redis
from contents import Content

Possible = dict[str, list[Content | None]]


class Ledger(NamedTuple):
    """By key, how it may have ended (None: deleted, or never there), and what was planted."""

    possible: Possible
    accepted: int
    planted: dict[str, int]


class Verdict(NamedTuple):
    """Lists of what is wrong, each with a line that says of which item."""

    lost: list[str]
    doubled: list[str]
    stuck: list[str]
    wrongly_failed: list[str]
    left_behind: list[str]

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong."""
        return not any(self)


def read_ledgers(folder: Path) -> Ledger:
    """What is certain replaces what was before it; what is not adds to it."""
    lines = [
        (entry["at"], path.name, entry)
        for path in folder.glob("ledger-*.jsonl")
        for entry in _entries(path)
    ]
    came_of = {(name, entry["number"]): entry["was"] for _, name, entry in lines if "was" in entry}
    possible: Possible = defaultdict(lambda: [None])
    planted: dict[str, int] = defaultdict(int)
    accepted = 0
    for _, name, entry in sorted(lines, key=lambda line: line[:2]):
        if "fault" in entry:
            planted[entry["fault"]] += 1
        outcome = came_of.get((name, entry["number"]), "unknown")
        if "ops" not in entry or outcome == "rolled back":
            continue
        for key, value in entry["ops"]:
            content = value and Content.from_json(value)
            if outcome == "accepted":
                possible[key] = [content]
                accepted += content is not None
                if content is not None and content.planted:
                    planted[content.planted] += 1
            else:
                possible[key].append(content)
    return Ledger(possible, accepted, planted)


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return  # the last line of a process that was killed


def judge(ledger: Ledger, database_url: str, redis_url: str) -> Verdict:
    """To be called once nothing is queued any more, or long enough after it should be so."""
    verdict = Verdict([], [], [], [], [])
    connection = psycopg2.connect(database_url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("SELECT key, id, state, reason, content_hash FROM pgclip.items "
                       "WHERE collection <> 'rows'")  # fmt: skip
        items = {key: rest for key, *rest in cursor.fetchall()}
        vectors = _vectors(cursor)
        for key, possible in ledger.possible.items():
            _judge(key, possible, items.get(key), vectors, verdict)
        for key in items.keys() - ledger.possible.keys():
            verdict.left_behind.append(f"{key}: nobody submitted it")
        _judge_rows(cursor, vectors, verdict)
        verdict.left_behind.extend(_leftovers(cursor))
    connection.close()
    verdict.left_behind.extend(_redis_keys(redis_url))
    return verdict


def _judge(
    key: str,
    possible: list[Content | None],
    item: Any,
    vectors: dict[int, list[Any]],
    verdict: Verdict,
) -> None:
    if item is None:
        if None not in possible:
            verdict.lost.append(f"{key}: is not there, of {_shown(possible)}")
        return
    number, state, reason, _ = item
    found = vectors.get(number, [])
    if state in ("queued", "leased"):
        verdict.stuck.append(f"{key}: {state}")
    elif state == "failed":
        if not any(content and content.may_fail_for(reason) for content in possible):
            verdict.wrongly_failed.append(f"{key}: {reason}, of {_shown(possible)}")
    elif len(found) > 1:
        verdict.doubled.append(f"{key}: {len(found)} vectors")
    elif not found:
        verdict.lost.append(f"{key}: is done and has no vector")
    elif not any(
        content is not None and content.reason is None and _is_of(found[0], content)
        for content in possible
    ):
        verdict.lost.append(f"{key}: has another's vector, not one of {_shown(possible)}")


def _judge_rows(cursor: Any, vectors: dict[int, list[Any]], verdict: Verdict) -> None:
    """Of a table that is kept in step: each row has the item of what it says now, and none more."""
    cursor.execute("SELECT key, id, state, reason, content_hash FROM pgclip.items "
                   "WHERE collection = 'rows'")  # fmt: skip
    items = {key: rest for key, *rest in cursor.fetchall()}
    cursor.execute("SELECT id, body FROM rows")
    rows = {key: Content("text", body.encode()) for key, body in cursor.fetchall()}
    for key, content in rows.items():
        _judge(f"row {key}", [content], items.get(key), vectors, verdict)
    verdict.left_behind.extend(f"row {key}: is gone" for key in items.keys() - rows.keys())
    cursor.execute("SELECT key, reason FROM pgclip.missing_rows('rows')")
    verdict.left_behind.extend(f"row {key}: {reason}" for key, reason in cursor.fetchall())


def _is_of(vector: Any, content: Content) -> bool:
    return np.array_equal(vector, content.vector().astype(np.float16))


def _shown(possible: list[Content | None]) -> str:
    return ", ".join(
        "nothing" if each is None else f"{each.planted or each.kind} {each.data[:40]!r}"
        for each in possible
    )


def _vectors(cursor: Any) -> dict[int, list[Any]]:
    cursor.execute("SELECT pgclip._vectors(id) FROM pgclip.model WHERE state = 'live'")
    ((every,),) = cursor.fetchall()
    cursor.execute(f"SELECT item_id, embedding::real[] FROM {every} v")
    by_item: dict[int, list[Any]] = defaultdict(list)
    for item, vector in cursor.fetchall():
        by_item[item].append(np.array(vector, np.float32))
    return by_item


def _leftovers(cursor: Any) -> Iterator[str]:
    """What no item needs, in the tables."""
    cursor.execute("SELECT pgclip._vectors(id) FROM pgclip.model WHERE state = 'live'")
    ((every,),) = cursor.fetchall()
    for name, statement in {
        "jobs": "SELECT id FROM pgclip.job",
        "vectors that no item has": f"SELECT id FROM {every} v "
        "EXCEPT SELECT unnest(vector_ids) FROM pgclip.embedding_set",
        "vectors that are missing": "SELECT unnest(vector_ids) FROM pgclip.embedding_set "
        f"EXCEPT SELECT id FROM {every} v",
        "embedding sets without an item": "SELECT item_id FROM pgclip.embedding_set "
        "EXCEPT SELECT id FROM pgclip.item",
        "contents that no item has": "SELECT hash FROM pgclip.content c WHERE NOT EXISTS "
        "(SELECT FROM pgclip.item i WHERE i.content_hash = c.hash AND i.kind = c.kind)",
        "failures of items that are done": "SELECT f.item_id FROM pgclip.failure f "
        "JOIN pgclip.embedding_set e USING (item_id, model_id, generation)",
        "items that lack what nobody would bring": "SELECT key, label_set, reason "
        "FROM pgclip.missing WHERE reason IN ('never_queued', 'outdated')",
        "segments neither hot nor sealed": "SELECT number FROM pgclip.segment "
        "WHERE state IN ('copied', 'built')",
    }.items():
        cursor.execute(statement)
        found = cursor.fetchall()
        if found:
            yield f"{len(found)} {name}: {found[:5]}"


def _redis_keys(url: str) -> Iterator[str]:
    """Tickets that wait though there is no work, and what is not known at all."""
    client = redis.Redis.from_url(url)
    try:
        for key in client.scan_iter("*"):
            if not key.startswith(b"pgclip:"):
                continue  # a neighbour's
            name = key.decode().removeprefix("pgclip:")
            if name.startswith(("_kombu.binding", "unacked")) or name.endswith(".waiting"):
                continue  # of constant number; Celery takes back what is not acknowledged
            kind = client.type(key)
            size = (
                client.llen(key) if kind == b"list" else client.hlen(key) if kind == b"hash" else 1
            )
            yield f"Redis key {name} ({size})"
    finally:
        client.close()
