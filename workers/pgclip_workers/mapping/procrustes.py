"""A map from one model's vectors to another's that keeps angles, and how well it finds.

The orthogonal Procrustes problem (Schönemann 1966, Psychometrika 31) with a translation: of all M
with orthogonal columns and all shifts, those with the least squared error of M x + shift. And a
scale that makes mapped vectors as spread out as real ones, beside which their scores are ranked:
one model's may lie in a narrower cone. That of the least error (Umeyama 1991, IEEE PAMI 13) is
smaller by the correlation of both, so that real vectors would have all the best scores.
"""

from dataclasses import dataclass

import numpy as np

from pgclip_workers.models.encoder import Floats

_NEAREST = 10
_ITSELF = 0.9999  # a query that is one of the contents


@dataclass(frozen=True, slots=True)
class Map:
    """x of the old space becomes axes @ x + shift: `axes` (new, old), `shift` (new,)."""

    axes: Floats
    shift: Floats

    def scores(self, old: Floats, queries: Floats) -> Floats:
        """Inner products (n, q) of mapped vectors, given as they were (n, old), with (q, new)."""
        scores: Floats = old @ (queries @ self.axes).T + queries @ self.shift
        return scores


class Pairs:
    """What is to be known of pairs (x, y) for a map, as they come: sums, and of products."""

    def __init__(self, old: int, new: int) -> None:
        self.count = 0
        self._old, self._new = np.zeros(old), np.zeros(new)
        self._products = np.zeros((new, old))
        self._squares = np.zeros(2)  # of lengths, old and new

    def add(self, old: Floats, new: Floats) -> None:
        """Pairs of rows, (n, old) and (n, new)."""
        self.count += len(old)
        self._old += old.sum(axis=0, dtype=np.float64)
        self._new += new.sum(axis=0, dtype=np.float64)
        self._products += new.T @ old
        self._squares += [np.square(each, dtype=np.float64).sum() for each in (old, new)]

    def __add__(self, other: "Pairs") -> "Pairs":
        both = Pairs(len(self._old), len(self._new))
        both.count = self.count + other.count
        both._old, both._new = self._old + other._old, self._new + other._new
        both._products = self._products + other._products
        both._squares = self._squares + other._squares
        return both

    def map(self) -> Map:
        """The map that fits best; there has to be a pair."""
        old, new = self._old / self.count, self._new / self.count
        left, _, right = np.linalg.svd(
            self._products / self.count - np.outer(new, old), full_matrices=False
        )
        spread = self._squares / self.count - [old @ old, new @ new]
        axes = left @ right * (np.sqrt(spread[1] / spread[0]) if spread.min() > 1e-9 else 1)
        return Map(axes.astype(np.float32), (new - axes @ old).astype(np.float32))


class Recall:
    """How many of each query's ten nearest mapped vectors find, as contents come: `queries` (q, d).

    A query's own content counts for neither.
    """

    def __init__(self, queries: Floats) -> None:
        self.queries = queries
        self.contents = 0
        self._true = np.empty((0, len(queries)), np.float32)  # the best by the real vectors
        self._picks = np.empty((2, 0, len(queries)), np.float32)  # mapped, real scores of the picks

    def add(self, real: Floats, mapped: Floats) -> None:
        """Scores (n, q) of the same contents by both."""
        self.contents += len(real)
        itself = real > _ITSELF
        real, mapped = np.where(itself, -2, real), np.where(itself, -2, mapped)
        true = np.concatenate([self._true, real])
        self._true = -np.sort(-true, axis=0)[:_NEAREST]
        picks = np.concatenate([self._picks, np.stack([mapped, real])], axis=1)
        best = np.argsort(-picks[0], axis=0, kind="stable")[:_NEAREST]
        self._picks = np.take_along_axis(picks, best[None], axis=1)

    def mean(self) -> float:
        """The share of the nearest that was found, on average; a tie with the last counts."""
        return float((self._picks[1] >= self._true[-1]).mean())
