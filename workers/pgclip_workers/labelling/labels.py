"""Zero-shot labels: probabilities from the model's own logits, for each label set in force.

They are what the model was trained for: a softmax within the set, or, of a model with a bias, a
sigmoid for each label by itself (section 3.2 of Zhai et al. 2023, arXiv:2303.15343).

A label's vector is the normalised mean over the set's prompt templates of the normalised text
vectors: the prompt ensemble of section 3.1.4 of Radford et al. 2021, arXiv:2103.00020.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pgclip import binarycopy
from pgclip.database import Database
from pgclip.items import Kind
from pgclip_workers import statements
from pgclip_workers.models.encoder import Encoder, Floats

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

log = logging.getLogger(__name__)

# Prompts that the device gets at once.
_AT_ONCE = 256

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
class Labels:
    """Labels of a batch, as parallel arrays: the item's row, label id, set's version, score."""

    rows: Ints
    label_ids: Ints
    versions: Ints
    scores: Floats


@dataclass(frozen=True, slots=True)
class LabelSet:
    """A label set ready to use; `vectors` are float32 rows (labels, dimension) of unit norm."""

    version: int
    top_k: int
    threshold: float
    applies_to: str
    label_ids: Ints
    vectors: Floats

    def label(
        self, kinds: Sequence[Kind], embeddings: Floats, scale: float, bias: float | None
    ) -> Labels:
        """Labels of unit vectors (n, dimension): the top_k of each that reach the threshold."""
        applies = np.array([self.applies_to in ("both", kind) for kind in kinds], bool)
        (rows,) = np.nonzero(applies)
        logits = scale * (embeddings[rows] @ self.vectors.T)
        scores = _softmax(logits) if bias is None else _sigmoid(logits + bias)
        best = np.argsort(-scores, axis=1, kind="stable")[:, : self.top_k]
        best_scores = np.take_along_axis(scores, best, axis=1)
        item, rank = np.nonzero(best_scores >= self.threshold)
        label_ids = self.label_ids[best[item, rank]]
        versions = np.full(len(item), self.version)
        return Labels(rows[item], label_ids, versions, best_scores[item, rank])


@dataclass(frozen=True, slots=True)
class LabelBook:
    """The label sets of one epoch. Never changed; a new epoch makes a new one."""

    epoch: int
    sets: tuple[LabelSet, ...]
    logit_scale: float
    logit_bias: float | None

    def label(self, kinds: Sequence[Kind], embeddings: Sequence[Floats]) -> Labels:
        """Labels of items with unit vectors (n_vectors, dimension) each: of their mean."""
        found = []
        if self.sets:
            means = np.stack([v[0] if len(v) == 1 else v.mean(axis=0) for v in embeddings])
            means /= np.linalg.norm(means, axis=1, keepdims=True)
            logits = self.logit_scale, self.logit_bias
            found = [label_set.label(kinds, means, *logits) for label_set in self.sets]
        none = np.empty(0, np.int64)  # where no label set is in force
        found.append(Labels(none, none, none, np.empty(0, np.float32)))
        return Labels(
            *(
                np.concatenate([getattr(labels, name) for labels in found])
                for name in ("rows", "label_ids", "versions", "scores")
            )
        )


class LabelShelf:
    """Hands out the label book in force; makes prompt vectors that nobody has made yet.

    `watched` surrounds what asks the device.
    """

    def __init__(
        self,
        database: Database,
        encoder: Encoder,
        model: int,
        watched: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._database = database
        self._encoder = encoder
        self._model = model
        self._watched = watched
        self._lock = threading.Lock()
        self._book: LabelBook | None = None

    def book(self, stale: LabelBook | None = None) -> LabelBook:
        """The label book; a new one if the one at hand is `stale`."""
        with self._lock:
            if self._book is None or self._book is stale:
                self._book = self._load()
            return self._book

    def _load(self) -> LabelBook:
        with self._database.transaction("label sets") as cursor:
            # The epoch is read first: if a set changes meanwhile, the store refuses the book.
            cursor.execute(statements.LABEL_EPOCH)
            (epoch,) = cursor.fetchone() or (0,)
            cursor.execute(statements.LABEL_SETS)
            rows = cursor.fetchall()
            cursor.execute(statements.LABEL_VECTORS, (self._model,))
            kept = {(label, version): vector for label, version, vector in cursor.fetchall()}
        sets = []
        for _, name, version, templates, top_k, threshold, applies_to, ids, names in rows:
            missing = {
                label_id: label
                for label_id, label in zip(ids, names, strict=True)
                if (label_id, version) not in kept
            }
            if missing:
                log.info("encoding %d labels of set %s", len(missing), name)
                vectors = self._prompt_vectors(list(missing.values()), templates)
                made = dict(zip(missing, vectors, strict=True))
                self._keep(made, version)
                kept |= {(label_id, version): vector for label_id, vector in made.items()}
            matrix = np.array([kept[label_id, version] for label_id in ids], np.float32)
            sets.append(LabelSet(version, top_k, threshold, applies_to, np.array(ids), matrix))
        return LabelBook(epoch, tuple(sets), self._encoder.logit_scale, self._encoder.logit_bias)

    def _prompt_vectors(self, labels: list[str], templates: list[str]) -> Floats:
        prompts = [t.replace("{}", label) for label in labels for t in templates]
        found: list[Floats] = []
        for at in range(0, len(prompts), _AT_ONCE):
            with self._watched():
                found.extend(self._encoder.encode_texts(prompts[at : at + _AT_ONCE]))
        # A prompt longer than the context counts with its first window.
        vectors = np.stack([windows[0] for windows in found])
        means = vectors.reshape(len(labels), len(templates), -1).mean(axis=1)
        unit: Floats = means / np.linalg.norm(means, axis=1, keepdims=True)
        return unit

    def _keep(self, vectors: dict[int, Floats], version: int) -> None:
        with self._database.transaction("label vectors") as cursor:
            for label_id in sorted(vectors):
                cursor.execute(
                    statements.KEEP_LABEL_VECTOR,
                    (label_id, self._model, version, vectors[label_id].tolist()),
                )


def stage(cursor: "Cursor", owners: Sequence[int], labels: Labels) -> None:
    """Writes labels to the staging table; `owners` are the ids that their rows stand for."""
    rows = np.zeros(len(labels.rows), _ROW)
    rows["fields"] = 4
    rows["owner_length"], rows["owner"] = 8, np.array(owners)[labels.rows]
    rows["label_length"], rows["label"] = 4, labels.label_ids
    rows["version_length"], rows["version"] = 4, labels.versions
    rows["score_length"], rows["score"] = 4, labels.scores
    binarycopy.copy_in_encoded(cursor, statements.STAGED_LABELS, rows.tobytes())


def _softmax(logits: Floats) -> Floats:
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores: Floats = weights / weights.sum(axis=1, keepdims=True)
    return scores


def _sigmoid(logits: Floats) -> Floats:
    # By tanh, which does not overflow where exp(-logit) does.
    scores: Floats = 0.5 * (1 + np.tanh(0.5 * logits))
    return scores
