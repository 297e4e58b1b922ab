"""What a client gives back: items, their labels, and hits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pgclip.submission import Kind

if TYPE_CHECKING:
    import numpy as np

State: TypeAlias = Literal["queued", "leased", "done", "failed"]


@dataclass(frozen=True, slots=True)
class Label:
    """A zero-shot label: its set, its name, and its softmax probability within the set."""

    set: str
    name: str
    score: float


@dataclass(frozen=True, slots=True)
class Hit:
    """An item found. `score` is the cosine of the angle to the query, from -1 to 1."""

    key: str
    score: float
    collection: str
    kind: Kind
    source: str | None
    metadata: dict[str, Any]
    labels: tuple[Label, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """An item as it is stored.

    `vectors` is a float32 array of shape (n_vectors, dim) with rows of unit norm, made by the
    live model; n_vectors is 0 until the first embedding is there. A failed replacement leaves
    the vectors of the content before.
    """

    labels: tuple[Label, ...]
    vectors: "np.ndarray[tuple[int, int], np.dtype[np.float32]]"
    key: str
    collection: str
    kind: Kind
    state: State
    reason: str | None
    error: str | None
    source: str | None
    metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime


def labels_from(rows: Sequence[Mapping[str, Any]]) -> tuple[Label, ...]:
    """Labels from the JSON of pgclip.labels_of."""
    return tuple(Label(row["set"], row["label"], row["score"]) for row in rows)
