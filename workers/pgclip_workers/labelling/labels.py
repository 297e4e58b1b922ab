"""Labels of items: probabilities from logits, by the same code for prompts and taught heads.

Of a set whose labels exclude each other they are a softmax over the labels and the background; of
one whose labels stand alone, each a sigmoid of its logit against the background's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pgclip import binarycopy
from pgclip.items import Kind
from pgclip_workers import statements
from pgclip_workers.models.encoder import Floats

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

Ints = np.ndarray[Any, np.dtype[np.int64]]

# Rows of binary COPY as numpy records, so that a batch is encoded in one go.
_ROW = np.dtype(
    [
        *(("fields", ">i2"), ("owner_length", ">i4"), ("owner", ">i8")),
        *(("label_length", ">i4"), ("label", ">i4")),
        *(("version_length", ">i4"), ("version", ">i4")),
        *(("score_length", ">i4"), ("score", ">f4")),
    ]
)


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of a batch, whether high or low, of labels of which something is promised: as parallel
    arrays, the item's row, label id, head's version, score."""

    rows: Ints
    label_ids: Ints
    versions: Ints
    scores: Floats


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels of a batch, as parallel arrays: the item's row, label id, set's version, score. And
    the scores of promised ones."""

    rows: Ints
    label_ids: Ints
    versions: Ints
    scores: Floats
    promised: Scores


@dataclass(frozen=True, slots=True)
class Heads:
    """What decides: a logit is `scale` times the inner product with a row of `vectors`, plus its
    intercept.

    `vectors` are float32 (labels + background, dimension), `intercepts` (labels + background,).
    Of labels that stand alone `weights` (labels,) say how often the background counts against them,
    `apart` (labels, background), bool, which of its words do: those that may mean a label don't.
    `none` is one more logit of the background, or -inf: a model with a bias knows where a pair
    does not belong together (section 3.2 of Zhai et al. 2023, arXiv:2303.15343).
    """

    vectors: Floats
    intercepts: Floats
    weights: Floats
    apart: Any
    scale: float
    none: float = -np.inf

    @property
    def count(self) -> int:
        """How many labels."""
        return len(self.weights)

    def logits(self, embeddings: Floats) -> Floats:
        """Of unit vectors (n, dimension): (n, labels + background)."""
        found: Floats = self.scale * (embeddings @ self.vectors.T) + self.intercepts
        return found

    def background(self, logits: Floats) -> Floats:
        """The logarithm of what speaks against each label: (n, labels); -inf if nothing does."""
        others = logits[:, self.count :]
        top = np.maximum(others.max(axis=1, initial=-np.inf), self.none)
        top = np.where(np.isfinite(top), top, 0)[:, None]
        total = np.exp(others - top) @ self.apart.T.astype(others.dtype) + np.exp(self.none - top)
        with np.errstate(divide="ignore"):
            against: Floats = np.log(total) + top
        return against

    def exclusive(self, embeddings: Floats) -> Floats:
        """Probabilities (n, labels) that with those of the background make 1."""
        return _softmax(self.logits(embeddings))[:, : self.count]

    def alone(self, embeddings: Floats) -> Floats:
        """Probabilities (n, labels), each of its own."""
        logits = self.logits(embeddings)
        return _sigmoid(logits[:, : self.count] - self.weights * self.background(logits))


@dataclass(frozen=True, slots=True)
class LabelSet:
    """A label set ready to use. `epoch` is that of its last change; `word_ids` are the labels' and
    then the background's; `promised` are labels of which something is promised, with the version
    of their head."""

    id: int
    version: int
    epoch: int
    top_k: int
    threshold: float
    applies_to: str
    exclusive: bool
    word_ids: Ints
    heads: Heads
    promised: Mapping[int, int] = field(default_factory=dict)

    @property
    def label_ids(self) -> Ints:
        """Those of the labels, without the background's."""
        return self.word_ids[: self.heads.count]

    def scores(self, embeddings: Floats) -> Floats:
        """Probabilities of its labels for unit vectors (n, dimension): (n, labels)."""
        of = self.heads.exclusive if self.exclusive else self.heads.alone
        return of(embeddings)

    def label(self, kinds: Sequence[Kind], embeddings: Floats) -> Labels:
        """Labels of unit vectors (n, dimension): the top_k of each that reach the threshold; of
        labels of which something is promised, all scores."""
        applies = np.array([self.applies_to in ("both", kind) for kind in kinds], bool)
        (rows,) = np.nonzero(applies)
        scores = self.scores(embeddings[rows])
        row, column = given(scores, self.top_k, self.threshold)
        versions = np.full(len(row), self.version)
        places = np.flatnonzero(np.isin(self.label_ids, list(self.promised)))
        ids = self.label_ids[places]
        heads = np.array([self.promised[label] for label in ids.tolist()], np.int64)
        promised = Scores(
            np.repeat(rows, len(places)),
            np.tile(ids, len(rows)),
            np.tile(heads, len(rows)),
            scores[:, places].ravel(),
        )
        return Labels(rows[row], self.label_ids[column], versions, scores[row, column], promised)


def given(scores: Floats, top_k: int, threshold: float) -> tuple[Ints, Ints]:
    """The rows and columns of scores that reach a threshold, of each row the top_k best ones."""
    row, column = np.nonzero(scores >= threshold)
    order = np.lexsort((-scores[row, column], row))
    row, column = row[order], column[order]
    rank = np.arange(len(row)) - np.searchsorted(row, row)
    return row[rank < top_k], column[rank < top_k]


@dataclass(frozen=True, slots=True)
class LabelBook:
    """The label sets of one epoch. Never changed; a new epoch makes a new one."""

    epoch: int
    sets: tuple[LabelSet, ...]

    @property
    def has_promises(self) -> bool:
        """Whether something is promised of a label, so that items need scores."""
        return any(label_set.promised for label_set in self.sets)

    def label(self, kinds: Sequence[Kind], embeddings: Sequence[Floats]) -> Labels:
        """Labels of items with unit vectors (n_vectors, dimension) each: of their mean."""
        if not self.sets:
            return joined([])
        means = np.stack([v[0] if len(v) == 1 else v.mean(axis=0) for v in embeddings])
        means = unit(means)
        return joined([label_set.label(kinds, means) for label_set in self.sets])


def joined(parts: Sequence[Labels]) -> Labels:
    """Labels of several sets, or none, as one."""
    none, nothing = np.empty(0, np.int64), np.empty(0, np.float32)
    parts = [*parts, Labels(none, none, none, nothing, Scores(none, none, none, nothing))]
    promised = [part.promised for part in parts]
    return Labels(
        _joined(parts, "rows"),
        _joined(parts, "label_ids"),
        _joined(parts, "versions"),
        _joined(parts, "scores"),
        Scores(*(_joined(promised, name) for name in ("rows", "label_ids", "versions", "scores"))),
    )


def _joined(parts: Sequence[Any], name: str) -> Any:
    return np.concatenate([getattr(part, name) for part in parts])


def stage(cursor: "Cursor", owners: Sequence[int], labels: Labels) -> None:
    """Writes labels to the staging tables; `owners` are the ids that their rows stand for."""
    binarycopy.copy_in_encoded(cursor, statements.STAGED_LABELS, _encoded(owners, labels))
    if len(labels.promised.rows):
        scores = _encoded(owners, labels.promised)
        binarycopy.copy_in_encoded(cursor, statements.STAGED_SCORES, scores)


def _encoded(owners: Sequence[int], labels: Labels | Scores) -> bytes:
    rows = np.zeros(len(labels.rows), _ROW)
    rows["fields"] = 4
    rows["owner_length"], rows["owner"] = 8, np.array(owners)[labels.rows]
    rows["label_length"], rows["label"] = 4, labels.label_ids
    rows["version_length"], rows["version"] = 4, labels.versions
    rows["score_length"], rows["score"] = 4, labels.scores
    return rows.tobytes()


def unit(vectors: Any) -> Floats:
    """Vectors (n, dimension) of any precision as float32 of norm 1."""
    found: Floats = vectors.astype(np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found


def _softmax(logits: Floats) -> Floats:
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores: Floats = weights / weights.sum(axis=1, keepdims=True)
    return scores


def _sigmoid(logits: Floats) -> Floats:
    # By tanh, which does not overflow where exp(-logit) does.
    scores: Floats = 0.5 * (1 + np.tanh(0.5 * logits))
    return scores
