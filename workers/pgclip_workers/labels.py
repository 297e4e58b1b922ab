"""Zero-shot labels: softmax over the model's own logits, for each label set in force.

A label's vector is the normalised mean over the set's prompt templates of the normalised text
vectors: the prompt ensemble of section 3.1.4 of Radford et al. 2021, arXiv:2103.00020.
"""

import logging
import threading
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pgclip.database import Database
from pgclip.submission import Kind
from pgclip_workers import statements
from pgclip_workers.encoder import Encoder, Floats

log = logging.getLogger(__name__)


class Labelled(NamedTuple):
    """A label of one item: label id, version of its set, probability within the set."""

    label_id: int
    version: int
    score: float


@dataclass(frozen=True, slots=True)
class LabelSet:
    """A label set ready to use; `vectors` are float32 rows (labels, dimension) of unit norm."""

    version: int
    top_k: int
    threshold: float
    applies_to: str
    label_ids: list[int]
    vectors: Floats

    def label(self, embedding: Floats, logit_scale: float) -> list[Labelled]:
        """The labels of one unit vector (dimension,), best first."""
        logits = logit_scale * (self.vectors @ embedding)
        weights = np.exp(logits - logits.max())
        scores = weights / weights.sum()
        best = np.argsort(-scores, kind="stable")[: self.top_k]
        return [
            Labelled(self.label_ids[n], self.version, float(scores[n]))
            for n in best
            if scores[n] >= self.threshold
        ]


@dataclass(frozen=True, slots=True)
class LabelBook:
    """The label sets of one epoch. Never changed; a new epoch makes a new one."""

    epoch: int
    sets: tuple[LabelSet, ...]
    logit_scale: float

    def label(self, kind: Kind, embeddings: Floats) -> list[Labelled]:
        """The labels of an item with these unit vectors (n, dimension): of their mean."""
        mean = embeddings.mean(axis=0)
        mean /= np.linalg.norm(mean)
        return [
            labelled
            for label_set in self.sets
            if label_set.applies_to in ("both", kind)
            for labelled in label_set.label(mean, self.logit_scale)
        ]


class LabelShelf:
    """Hands out the label book in force; makes prompt vectors that nobody has made yet."""

    def __init__(self, database: Database, encoder: Encoder, model: int) -> None:
        self._database = database
        self._encoder = encoder
        self._model = model
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
            sets.append(LabelSet(version, top_k, threshold, applies_to, ids, matrix))
        return LabelBook(epoch, tuple(sets), self._encoder.logit_scale)

    def _prompt_vectors(self, labels: list[str], templates: list[str]) -> Floats:
        prompts = [t.replace("{}", label) for label in labels for t in templates]
        # A prompt longer than the context counts with its first window.
        vectors = np.stack([windows[0] for windows in self._encoder.encode_texts(prompts)])
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
