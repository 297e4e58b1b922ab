"""What a client gives back: items, their labels, and hits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pgclip.submission import Kind

if TYPE_CHECKING:
    import numpy as np

State: TypeAlias = Literal["queued", "leased", "done", "failed"]


@dataclass(frozen=True, slots=True)
class Label:
    """A zero-shot label: its set, its name, and the probability that the model gives it.

    Within the set (softmax), or of a SigLIP each by itself (sigmoid).
    """

    set: str
    name: str
    score: float


@dataclass(frozen=True, slots=True)
class Hit:
    """An item found. `score` is the cosine of the angle to the query, from -1 to 1."""

    item_id: int
    key: str
    score: float
    collection: str
    kind: Kind
    source: str | None
    metadata: dict[str, Any]
    labels: tuple[Label, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ItemInfo:
    """An item as lists show it.

    `kept`: it can be encoded again by another model. `content_hash`: SHA-256 of the bytes that
    were submitted inline, or of those that were read from the source; None until they are read.
    """

    key: str
    collection: str
    kind: Kind
    state: State
    reason: str | None
    error: str | None
    source: str | None
    metadata: dict[str, Any]
    kept: bool
    content_hash: bytes | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, eq=False)
class Item(ItemInfo):
    """An item as it is stored, with its labels and vectors.

    `vectors` is a float32 array of shape (n_vectors, dim) with rows of unit norm, made by the
    live model; n_vectors is 0 until the first embedding is there. A failed replacement leaves
    the vectors of the content before.
    """

    labels: tuple[Label, ...]
    vectors: "np.ndarray[tuple[int, int], np.dtype[np.float32]]"


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection and how many items it has, by kind and by state."""

    name: str
    items: int
    images: int
    texts: int
    queued: int
    leased: int
    done: int
    failed: int
    updated_at: datetime | None


@dataclass(frozen=True, slots=True)
class LabelSet:
    """A set of zero-shot labels; see Client.define_label_set."""

    name: str
    labels: tuple[str, ...]
    templates: tuple[str, ...]
    top_k: int
    threshold: float
    applies_to: Literal["image", "text", "both"]
    active: bool
    version: int


def info_from(row: Sequence[Any]) -> dict[str, Any]:
    """The fields of an ItemInfo from its columns, which come in their order."""
    info = dict(zip((field.name for field in fields(ItemInfo)), row, strict=True))
    if info["content_hash"] is not None:
        info["content_hash"] = bytes(info["content_hash"])
    return info


def labels_from(rows: Sequence[Mapping[str, Any]]) -> tuple[Label, ...]:
    """Labels from the JSON of pgclip.labels_of."""
    return tuple(Label(row["set"], row["label"], row["score"]) for row in rows)
