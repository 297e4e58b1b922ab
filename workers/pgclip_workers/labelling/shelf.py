"""Hands out the label sets in force; makes prompt vectors that nobody has made yet.

A label's vector is the normalised mean over the set's prompt templates, and the label's forms, of
the normalised text vectors: the prompt ensemble of section 3.1.4 of Radford et al. 2021,
arXiv:2103.00020.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from pgclip.database import Database
from pgclip.errors import NotFound
from pgclip_workers import statements
from pgclip_workers.labelling.labels import Heads, LabelBook, LabelSet
from pgclip_workers.models.encoder import Encoder, Floats

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

log = logging.getLogger(__name__)

# Prompts that the device gets at once.
_AT_ONCE = 256
_KEPT_AT_ONCE = 64  # words
# A word of the background counts against a label that stands alone unless it may mean it ("cat" for
# an animal): their vectors are nearer than those of the set's labels and background are by so many
# deviations. Of 25 kinds of things 0.70 were found at a precision of 0.91; with 0.5 deviations 0.81
# at 0.89, with 2 0.40 at 0.93, with all words 0.07.
_MEANS_THE_SAME = 1.0


@dataclass(frozen=True, slots=True)
class Word:
    """A label or a word of the background."""

    set_id: int
    id: int
    name: str
    forms: tuple[str, ...]
    is_background: bool

    def prompts(self, templates: Sequence[str]) -> list[str]:
        """What is encoded for it."""
        return [t.replace("{}", form) for form in (self.name, *self.forms) for t in templates]


class LabelShelf:
    """Keeps the label book in force. `watched` surrounds what asks the device."""

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

    def label_set(self, set_id: int) -> tuple[LabelSet, LabelSet, list[str]]:
        """A set by its number, in force or not: as it was taught, by its prompts alone, and its
        words. Raises NotFound if it was dropped."""
        with self._lock, self._database.transaction("label sets") as cursor:
            rows = _rows(cursor, statements.LABEL_SET, set_id)
            if not rows:
                raise NotFound(f"label set {set_id} was dropped")
            (row,) = rows
            of_set = [Word(*word) for word in _rows(cursor, statements.LABEL_WORDS, [set_id])]
            taught = self._taught(cursor, [set_id])
        prompts = self._vectors(row, of_set)
        names = [word.name for word in of_set]
        return self._made(row, of_set, prompts, taught), self._made(row, of_set, prompts, {}), names

    def _load(self) -> LabelBook:
        with self._database.transaction("label sets") as cursor:
            # The epoch is read first: if a set changes meanwhile, the store refuses the book.
            ((epoch,),) = _rows(cursor, statements.LABEL_EPOCH)
            sets = _rows(cursor, statements.LABEL_SETS)
            ids = [row[0] for row in sets]
            words = [Word(*word) for word in _rows(cursor, statements.LABEL_WORDS, ids)]
            taught = self._taught(cursor, ids)
            promised = dict(_rows(cursor, statements.PROMISED_LABELS, self._model))
        of_set = {key: list(found) for key, found in groupby(words, key=attrgetter("set_id"))}
        made = [
            replace(
                self._made(row, of_set[row[0]], self._vectors(row, of_set[row[0]]), taught),
                promised=promised,
            )
            for row in sets
            if row[0] in of_set  # else it was dropped since: the book is of an older epoch
        ]
        return LabelBook(epoch, tuple(made))

    def _taught(self, cursor: "Cursor", ids: list[int]) -> dict[int, Any]:
        """Of taught sets the scale, of taught words their heads."""
        taught: dict[int, Any] = {
            -set_id: scale
            for set_id, scale in _rows(cursor, statements.LABEL_SCALES, self._model, ids)
        }
        for label, *head in _rows(cursor, statements.LABEL_HEADS, self._model, ids):
            taught[label] = head
        return taught

    def _made(
        self, row: Sequence[Any], words: list[Word], prompts: Floats, taught: dict[int, Any]
    ) -> LabelSet:
        set_id, _, version, _, _, epoch, top_k, threshold, applies_to, exclusive = row
        count = sum(not word.is_background for word in words)
        vectors = prompts.copy()
        intercepts = np.zeros(len(words), np.float32)
        weights = np.ones(count, np.float32)
        for place, word in enumerate(words):
            if word.id in taught:
                vectors[place], intercepts[place], weight = taught[word.id]
                if place < count:
                    weights[place] = weight
        bias = self._encoder.logit_bias
        heads = Heads(
            vectors, intercepts, weights, apart(prompts[:count], prompts[count:]),
            taught.get(-set_id, self._encoder.logit_scale),
            -np.inf if bias is None or exclusive else -bias,
        )  # fmt: skip
        ids = np.array([word.id for word in words])
        return LabelSet(set_id, version, epoch, top_k, threshold, applies_to, exclusive, ids, heads)

    def _vectors(self, row: Sequence[Any], words: list[Word]) -> Floats:
        """The prompts' vectors of a set's words (words, dimension), made where they are lacking."""
        _, name, _, prompts_version, templates, *_ = row
        ids = [word.id for word in words]
        with self._database.transaction("label vectors") as cursor:
            arguments = (self._model, prompts_version, ids)
            kept = dict(_rows(cursor, statements.LABEL_VECTORS, *arguments))
        lacking = [word for word in words if word.id not in kept]
        if lacking:
            log.info("encoding %d words of label set %s", len(lacking), name)
        for at in range(0, len(lacking), _KEPT_AT_ONCE):  # whoever is interrupted goes on from here
            some = lacking[at : at + _KEPT_AT_ONCE]
            made = self._encoded(some, templates)
            self._keep(some, made, prompts_version)
            kept |= {word.id: vector for word, vector in zip(some, made, strict=True)}
        return np.array([kept[word.id] for word in words], np.float32)

    def _encoded(self, words: list[Word], templates: list[str]) -> Floats:
        prompts = [word.prompts(templates) for word in words]
        flat = [prompt for of_word in prompts for prompt in of_word]
        found: list[Floats] = []
        for at in range(0, len(flat), _AT_ONCE):
            with self._watched():
                # A prompt longer than the context counts with its first window.
                windows = self._encoder.encode_texts(flat[at : at + _AT_ONCE])
            found.extend(vectors[0] for vectors in windows)
        ends = np.cumsum([len(of_word) for of_word in prompts])
        means = np.stack([part.mean(axis=0) for part in np.split(np.stack(found), ends[:-1])])
        unit: Floats = means / np.linalg.norm(means, axis=1, keepdims=True)
        return unit

    def _keep(self, words: list[Word], vectors: Floats, version: int) -> None:
        made = sorted(zip((word.id for word in words), vectors.tolist(), strict=True))
        with self._database.transaction("label vectors") as cursor:
            for label, vector in made:
                cursor.execute(statements.KEEP_LABEL_VECTOR, (label, self._model, version, vector))


def apart(labels: Floats, background: Floats) -> Any:
    """Which words of the background (b, d) count against which labels (n, d): bool (n, b)."""
    if not len(background):
        return np.ones((len(labels), 0), bool)
    alike = labels @ background.T
    # At least the one that is farthest: against nothing every label would be right.
    farthest = alike <= alike.min(axis=1, keepdims=True)
    return (alike < alike.mean() + _MEANS_THE_SAME * alike.std() + 1e-6) | farthest


def _rows(cursor: "Cursor", statement: str, *arguments: Any) -> list[Any]:
    cursor.execute(statement, arguments or None)
    return cursor.fetchall()
