"""What is known of contents: vectors, and which labels are right for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pgclip_workers.models.encoder import Floats

Bools = np.ndarray[Any, np.dtype[np.bool_]]
FOLDS = 5


@dataclass(frozen=True, slots=True)
class Examples:
    """Of n contents: unit vectors (n, dimension); `truth` (n, labels), 1 right, 0 wrong, NaN not
    known; `keys`, what each content is known by; in how many places people disagreed."""

    vectors: Floats
    truth: Floats
    keys: tuple[Any, ...]
    disagreed: int = 0

    def __len__(self) -> int:
        return len(self.vectors)

    def some(self, which: Any) -> "Examples":
        """Those that an index or a mask chooses."""
        places = np.arange(len(self))[which]
        keys = tuple(self.keys[place] for place in places)
        return Examples(self.vectors[places], self.truth[places], keys)

    @property
    def classes(self) -> Any:
        """Of each the label that is right, -1 where none is, -2 where it is not known: (n,)."""
        right = self.truth == 1
        none = (self.truth == 0).all(axis=1)
        return np.where(right.any(axis=1), right.argmax(axis=1), np.where(none, -1, -2))


def examples_of(
    rows: Sequence[tuple[Any, Floats, list[int | None], list[bool | None]]],
    label_ids: Sequence[int], exclusive: bool, is_complete: bool,
) -> Examples:  # fmt: skip
    """Of rows of a key, a vector, label ids and whether they are right: None where people disagree,
    as they do, too, where two labels are said to be right that exclude each other.

    Where one label is right and they exclude each other the others are wrong, and so they are where
    what is said is complete.
    """
    places = {label: place for place, label in enumerate(label_ids)}
    truth = np.full((len(rows), len(places)), np.nan, np.float32)
    disagreed = 0
    for row, (_, _, labels, values) in enumerate(rows):
        if exclusive and not is_complete and values.count(True) > 1:
            disagreed += 1  # two labels are right that exclude each other
            continue
        if is_complete or (exclusive and True in values):
            truth[row] = 0
        for label, value in zip(labels, values, strict=True):
            if label is not None and label in places:
                truth[row, places[label]] = np.nan if value is None else value
                disagreed += value is None
    vectors = np.array([row[1] for row in rows], np.float32)
    return Examples(vectors, truth, tuple(row[0] for row in rows), disagreed)


def folds(groups: Any) -> Any:
    """A fold from 0 to 4 for each of n, the first of every group (n,) in one, the second in the
    next: so none is left with fewer examples than others have because its own are held out.

    Examples come in the order of their contents' hashes, so that this is as random as these are,
    and the same each time."""
    order = np.argsort(groups, kind="stable")
    of_group = np.asarray(groups)[order]
    found = np.empty(len(order), int)
    found[order] = (np.arange(len(order)) - np.searchsorted(of_group, of_group)) % FOLDS
    return found
