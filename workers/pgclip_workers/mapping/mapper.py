"""Learns the maps by which a model answers for what it has not encoded yet, and judges them."""

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from pgclip import binarycopy
from pgclip.database import Database
from pgclip_workers import statements
from pgclip_workers.mapping.procrustes import Map, Pairs, Recall
from pgclip_workers.models.encoder import Floats

log = logging.getLogger(__name__)

_AT_ONCE = 5000
# Contents of a kind that a map is learnt from and judged by.
_MOST = 200_000
_QUERIES = 200
_KINDS = ("image", "text")


class Stopped(Exception):
    """The worker ends: what was learnt so far is left, and another learns it."""


class Mapper:
    """Of all workers of a model one at a time: the database tells no other for ten minutes.

    A map is judged by contents that it was not learnt from: two maps are, from a half each, and
    each answers for the other half; the one that is kept is of both. What counts is what it finds
    alone, and beside as many real vectors, whichever is less: in the end it stands among these.
    """

    def __init__(self, database: Database, model: int, stopping: Callable[[], bool]) -> None:
        self._database = database
        self._model = model
        self._stopping = stopping

    def step(self) -> bool:
        """Does it if it is due. Nothing is held in the database meanwhile."""
        with self._database.transaction("map") as cursor:
            cursor.execute(statements.MAP_DUE, (self._model,))
            due = cursor.fetchall()
        if not due:
            return False
        try:
            queries = {kind: self._queries(kind) for kind in _KINDS}
            learnt = [(kind, *self._learn(source, kind, queries)) for source, kind, *_ in due]
        except Stopped:
            return False
        judged = [found for _, _, _, rows in learnt for found in rows]
        with self._database.transaction("map") as cursor:
            for kind, both, pairs, _ in learnt:
                if both is not None:
                    arguments = (both.axes.T.tolist(), both.shift.tolist(), pairs)
                    cursor.execute(statements.KEEP_MAP, (self._model, kind, *arguments))
            told = (self._model, due[0][-1], json.dumps(judged))
            cursor.execute(statements.JUDGE_MAP, told)
            (state,) = cursor.fetchone() or ("",)
        recalls = (f"{row['query_kind']} to {row['kind']} {row['recall']:.3f}" for row in judged)
        log.info("maps, with %.3f filled: %s; recall %s", due[0][-1], state, ", ".join(recalls))
        return True

    def _learn(
        self, source: int, kind: str, queries: dict[str, tuple[Floats, int]]
    ) -> tuple[Map | None, int, list[dict[str, Any]]]:
        """A map of a kind, of how many pairs, and what it finds for each kind of query."""
        halves: list[Pairs] = []
        for hashes, old, new in self._pairs(source, kind):
            halves = halves or [Pairs(old.shape[1], new.shape[1]) for _ in range(2)]
            for half, pairs in enumerate(halves):
                mine = hashes[:, 0] & 1 == half
                pairs.add(old[mine], new[mine])
        if not halves or not all(pairs.count for pairs in halves):
            return None, 0, []
        both = halves[0] + halves[1]
        # Each half by the other's map.
        maps = [halves[1].map(), halves[0].map()]
        asked = {asked: vectors for asked, (vectors, _) in queries.items() if len(vectors)}
        alone = {name: Recall(vectors) for name, vectors in asked.items()}
        beside = {name: Recall(vectors) for name, vectors in asked.items()}
        for hashes, old, new in self._pairs(source, kind):
            is_odd, is_real = hashes[:, 0] & 1 == 1, hashes[:, 1] & 1 == 1
            for name, vectors in asked.items():
                real = new @ vectors.T
                mapped = np.where(is_odd[:, None], maps[1].scores(old, vectors),
                                  maps[0].scores(old, vectors))  # fmt: skip
                alone[name].add(real, mapped)
                beside[name].add(real, np.where(is_real[:, None], real, mapped))
        rows = [
            {"query_kind": name, "kind": kind, "contents": alone[name].contents,
             "queries": len(vectors), "asked": queries[name][1],
             "recall": min(alone[name].mean(), beside[name].mean())}
            for name, vectors in asked.items()
        ]  # fmt: skip
        return both.map(), both.count, rows

    def _pairs(
        self, source: int, kind: str
    ) -> Iterator[tuple[np.ndarray[Any, np.dtype[np.uint8]], Floats, Floats]]:
        """Pages of contents: the last two bytes of their hashes, their old and new vectors.

        A transaction each. Raises Stopped.
        """
        after, count = b"", 0
        while count < _MOST:
            if self._stopping():
                raise Stopped
            with self._database.transaction("map") as cursor:
                quoted = cursor.mogrify("%s::bytea", (after,)).decode()
                query = statements.MAP_PAIRS.format(
                    model=self._model, source=source, kind=kind, after=quoted, most=_AT_ONCE
                )
                rows = list(binarycopy.copy_out(cursor, query))
            if not rows:
                return
            count += len(rows)
            hashes = [row[0] or b"" for row in rows]
            after = hashes[-1]
            yield (
                np.array([list(hash_[-2:]) for hash_ in hashes], np.uint8),
                np.stack([_halfvec(row[1]) for row in rows]),
                np.stack([_halfvec(row[2]) for row in rows]),
            )

    def _queries(self, kind: str) -> tuple[Floats, int]:
        """Vectors (q, dimension) to judge with, and how many of them somebody asked."""
        with self._database.transaction("map") as cursor:
            query = statements.MAP_QUERIES.format(model=self._model, kind=kind, most=_QUERIES)
            rows = list(binarycopy.copy_out(cursor, query))
        if not rows:
            return np.empty((0, 0), np.float32), 0
        return (
            np.stack([_halfvec(vector) for vector, _ in rows]),
            int.from_bytes(rows[0][1] or b"", "big"),
        )


def _halfvec(sent: bytes | None) -> Floats:
    """A halfvec as pgvector sends it: its dimension, 0, and the halves."""
    return np.frombuffer(sent or b"", ">f2", offset=4).astype(np.float32)
