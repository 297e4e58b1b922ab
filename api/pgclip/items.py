"""What a client gives back: items, their labels, and hits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np

Kind: TypeAlias = Literal["image", "text"]
Decision: TypeAlias = Literal["yes", "no", "review"]
State: TypeAlias = Literal["queued", "leased", "done", "failed"]


@dataclass(frozen=True, slots=True)
class Label:
    """A label: its set, its name, and the probability that the model gives it.

    `decision` is "yes", "no" or "review" where a promise or people decide of it, None elsewhere:
    then it is the model's guess.
    """

    set: str
    name: str
    score: float
    decision: Decision | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """An item found.

    `score` is the cosine of the angle to the query, from -1 to 1; `relevance`, from 0 to 1, is None
    unless that direction is calibrated. `snippet` is how a text begins, if it is kept. `failed` is
    why the content that replaced the one found could not be encoded, or None. One that is `mapped`
    was found by the model before, since the one asked has not encoded it yet. The ranks are those
    of a hybrid search, from 1, and `fused` is its score; None elsewhere, and for the ranking that
    does not have the item.
    """

    item_id: int
    key: str
    score: float
    collection: str
    kind: Kind
    source: str | None
    metadata: dict[str, Any]
    labels: tuple[Label, ...]
    relevance: float | None = None
    snippet: str | None = None
    failed: str | None = None
    mapped: bool = False
    vector_rank: int | None = None
    text_rank: int | None = None
    fused: float | None = None


@dataclass(frozen=True, slots=True)
class Duplicate:
    """An item that is a duplicate of another, or a member of a group of duplicates.

    `tier`: "identical", "near" or "similar". `score`: the cosine to the other, or of its best pair
    in the group.
    """

    item_id: int
    collection: str
    key: str
    kind: Kind
    tier: Literal["identical", "near", "similar"]
    score: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """What scores mean in one direction: `midpoint` has relevance 0.5, 2 / `slope` more 0.88.

    `mean` and `deviation` are those of unrelated pairs; None if it was set by hand.
    """

    model: str
    query_kind: Kind
    item_kind: Kind
    midpoint: float
    slope: float
    mean: float | None
    deviation: float | None


@dataclass(frozen=True, slots=True)
class Missing:
    """What an item lacks of a model: its current vectors, or its labels of `label_set`.

    `reason`: "queued" or "leased" (it will come), "never_queued" or "outdated" (heal brings it),
    or why the item failed, with the `error`.
    """

    item_id: int
    collection: str
    key: str
    kind: Kind
    model: str
    label_set: str | None
    reason: str
    error: str | None


@dataclass(frozen=True, slots=True)
class FailureCount:
    """How many items failed for a reason, with a model."""

    model: str
    reason: str
    items: int


@dataclass(frozen=True, slots=True)
class Healed:
    """Jobs queued for missing vectors, and items that workers label anew."""

    jobs: int
    relabeled: int


@dataclass(frozen=True, slots=True, eq=False)
class ItemInfo:
    """An item as lists show it.

    `kept`: it can be encoded again by another model. `content_hash`: SHA-256 of the bytes that
    were submitted inline, or of those that were read from the source; None until they are read.
    `retry_at`: when a source that could not be had is tried again; `reason` and `error` say why,
    and the state is "queued".
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
    retry_at: datetime | None


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
    exclusive: bool
    background: tuple[str, ...]
    forms: Mapping[str, tuple[str, ...]]
    collections: tuple[str, ...] | None
    relabel: bool
    taught: int
    decide: bool


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a person said of a label for an item. `counts` says whether the item still has the
    content that was judged; `is_archived` whether the set has left the label out."""

    set: str
    label: str
    collection: str
    key: str
    kind: Kind
    value: bool
    judge: str
    judged_at: datetime
    content_hash: str
    counts: bool
    is_archived: bool


def info_from(row: Sequence[Any]) -> dict[str, Any]:
    """The fields of an ItemInfo from its columns, which come in their order."""
    info = dict(zip((field.name for field in fields(ItemInfo)), row, strict=True))
    if info["content_hash"] is not None:
        info["content_hash"] = bytes(info["content_hash"])
    return info


def hit_from(row: Sequence[Any]) -> Hit:
    """A hit from its columns, which come in their order."""
    item_id, collection, key, kind, score, source, metadata, labels, *more = row
    found = labels_from(labels)
    return Hit(item_id, key, score, collection, kind, source, metadata, found, *more)


def labels_from(rows: Sequence[Mapping[str, Any]]) -> tuple[Label, ...]:
    """Labels from the JSON of pgclip.labels_of."""
    return tuple(Label(row["set"], row["label"], row["score"], row.get("decision")) for row in rows)


@dataclass(frozen=True, slots=True)
class Similarity:
    """How like each other two are: the cosine; its relevance, 0 to 1, if calibrated."""

    score: float
    relevance: float | None


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several, with its probability; None: none of them."""

    name: str | None
    probability: float


@dataclass(frozen=True, slots=True)
class Classified:
    """An item with the label that fits best, and the probabilities of all."""

    item_id: int
    collection: str
    key: str
    label: str
    probability: float
    probabilities: dict[str, float]
