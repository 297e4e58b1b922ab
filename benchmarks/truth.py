"""What a search should find, by comparing every vector, and what it found of that."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from people import Holding
from vectors import Floats

K = 10
# Half precision: of 512 products, each rounded to 11 bits.
ROUNDING = 2e-3
_AT_ONCE = 50


class Found(NamedTuple):
    """Of one query: the share of its ten, whether its best was there, seconds."""

    recall: float
    has_best: bool
    seconds: float


def ten_best(holding: Holding, queries: Floats, among: Any = None) -> Floats:
    """The scores of each query's ten best items, best first: (q, 10). An item counts once.

    `among` says of each query which items count: (q, items). Where fewer than ten do, -2 fills up.
    """
    starts = np.searchsorted(holding.items, np.arange(len(holding.collections)))
    found = []
    for at in range(0, len(queries), _AT_ONCE):
        scores = queries[at : at + _AT_ONCE] @ holding.vectors.T
        scores = np.maximum.reduceat(scores, starts, axis=1)
        if among is not None:
            scores = np.where(among[at : at + _AT_ONCE], scores, -2)
        found.append(np.sort(np.partition(scores, -K, axis=1)[:, -K:], axis=1)[:, ::-1])
    truth: Floats = np.concatenate(found)
    return truth


def of(
    holding: Holding, query: Floats, truth: Floats, items: Sequence[int], seconds: float
) -> Found:
    """A hit counts if its exact score reaches that of the tenth best, less the rounding."""
    expected = truth[truth > -2]
    if not len(expected):
        return Found(1.0, True, seconds)
    ends = np.searchsorted(holding.items, items, "right")
    starts = np.searchsorted(holding.items, items)
    hits = np.sort([(holding.vectors[start:end] @ query).max()
                    for start, end in zip(starts, ends, strict=True)])[::-1]  # fmt: skip
    right = hits >= expected[-1] - ROUNDING
    has_best = len(hits) > 0 and hits[0] >= expected[0] - ROUNDING
    return Found(min(1.0, float(right.sum()) / len(expected)), bool(has_best), seconds)
