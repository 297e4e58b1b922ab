"""Learns the maps by which a model answers for what it has not encoded yet, and judges them."""

import json
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from pgclip import binarycopy
from pgclip.database import Database
from pgclip_workers import statements
from pgclip_workers.mapping.procrustes import Map, Pairs, Recall
from pgclip_workers.models.encoder import Floats

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

log = logging.getLogger(__name__)

_AT_ONCE = 5000
# Contents of a kind that a map is learnt from and judged by.
_MOST = 200_000
_QUERIES = 200
_KINDS = ("image", "text")


class Mapper:
    """Of all workers of a model one at a time, by a lock that is held until it is done.

    A map is judged by contents that it was not learnt from: two maps are, from a half each, and
    each answers for the other half; the one that is kept is of both.
    """

    def __init__(self, database: Database, model: int) -> None:
        self._database = database
        self._model = model

    def step(self) -> bool:
        """Does it if it is due."""
        with self._database.transaction("map") as cursor:
            cursor.execute(statements.MAP_DUE, (self._model,))
            due = cursor.fetchall()
            if not due:
                return False
            queries = {kind: self._queries(cursor, kind) for kind in _KINDS}
            judged = [
                row
                for source, kind, *_ in due
                for row in self._learn(cursor, source, kind, queries)
            ]
            filled = due[0][-1]
            cursor.execute(statements.JUDGE_MAP, (self._model, filled, json.dumps(judged)))
            (state,) = cursor.fetchone() or ("",)
        recalls = (f"{row['query_kind']} to {row['kind']} {row['recall']:.3f}" for row in judged)
        log.info("maps, with %.3f filled: %s; recall %s", filled, state, ", ".join(recalls))
        return True

    def _learn(
        self, cursor: "Cursor", source: int, kind: str, queries: dict[str, tuple[Floats, int]]
    ) -> list[dict[str, Any]]:
        """Keeps a map of a kind; what it finds for each kind of query."""
        halves: list[Pairs] = []
        for odd, old, new in self._pairs(cursor, source, kind):
            halves = halves or [Pairs(old.shape[1], new.shape[1]) for _ in range(2)]
            for half, pairs in enumerate(halves):
                pairs.add(old[odd == half], new[odd == half])
        if not halves or not all(pairs.count for pairs in halves):
            return []
        both = halves[0] + halves[1]
        self._keep(cursor, kind, both.map(), both.count)
        # Each half by the other's map.
        maps = [halves[1].map(), halves[0].map()]
        found = {asked: Recall(vectors) for asked, (vectors, _) in queries.items() if len(vectors)}
        for odd, old, new in self._pairs(cursor, source, kind):
            for recall in found.values():
                for half in range(2):
                    mine = odd == half
                    mapped = maps[half].scores(old[mine], recall.queries)
                    recall.add(new[mine] @ recall.queries.T, mapped)
        return [
            {"query_kind": asked, "kind": kind, "contents": recall.contents,
             "queries": len(recall.queries), "asked": queries[asked][1], "recall": recall.mean()}
            for asked, recall in found.items()
        ]  # fmt: skip

    def _pairs(
        self, cursor: "Cursor", source: int, kind: str
    ) -> Iterator[tuple[np.ndarray[Any, np.dtype[np.int64]], Floats, Floats]]:
        """Pages of contents: which half each is of, its old and its new vector."""
        after, count = b"", 0
        while count < _MOST:
            quoted = cursor.mogrify("%s::bytea", (after,)).decode()
            rows = list(binarycopy.copy_out(cursor, statements.MAP_PAIRS.format(
                model=self._model, source=source, kind=kind, after=quoted, most=_AT_ONCE
            )))  # fmt: skip
            if not rows:
                return
            count += len(rows)
            hashes = [row[0] or b"" for row in rows]
            after = hashes[-1]
            yield (
                np.array([hash_[-1] & 1 for hash_ in hashes]),
                np.stack([_halfvec(row[1]) for row in rows]),
                np.stack([_halfvec(row[2]) for row in rows]),
            )

    def _queries(self, cursor: "Cursor", kind: str) -> tuple[Floats, int]:
        """Vectors (q, dimension) to judge with, and how many of them somebody asked."""
        query = statements.MAP_QUERIES.format(model=self._model, kind=kind, most=_QUERIES)
        rows = list(binarycopy.copy_out(cursor, query))
        if not rows:
            return np.empty((0, 0), np.float32), 0
        return (
            np.stack([_halfvec(vector) for vector, _ in rows]),
            int.from_bytes(rows[0][1] or b"", "big"),
        )

    def _keep(self, cursor: "Cursor", kind: str, learnt: Map, pairs: int) -> None:
        arguments = (learnt.axes.T.tolist(), learnt.shift.tolist(), pairs)
        cursor.execute(statements.KEEP_MAP, (self._model, kind, *arguments))


def _halfvec(sent: bytes | None) -> Floats:
    """A halfvec as pgvector sends it: its dimension, 0, and the halves."""
    return np.frombuffer(sent or b"", ">f2", offset=4).astype(np.float32)
