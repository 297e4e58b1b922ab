"""How often labels are right: of examples whose truth is known, from the probabilities given."""

from typing import Any

import numpy as np

from pgclip_workers.labelling.examples import Examples
from pgclip_workers.labelling.labels import LabelSet, given
from pgclip_workers.models.encoder import Floats

_BINS = 10
_CONFUSIONS = 100  # told, the most frequent ones
_Z = 1.96  # of an interval that holds in 95 of 100


def evaluation(
    label_set: LabelSet, names: list[str], examples: Examples, scores: Floats
) -> dict[str, Any]:
    """Of n examples with probabilities (n, labels): as JSON.

    Labels count as given as on items: of each the top_k that reach the threshold. Precision is the
    share of what was given, and recall the share of what is right; intervals hold in 95 of 100
    (Wilson 1927). `calibration_error` is the mean distance between probability and share right, in
    ten bins (Guo et al. 2017, arXiv:1706.04599): of the best label where labels exclude each other,
    of all pairs that are known where they stand alone.
    """
    is_given = np.zeros(scores.shape, bool)
    is_given[given(scores, label_set.top_k, label_set.threshold)] = True
    known = ~np.isnan(examples.truth)
    right = examples.truth == 1
    found: dict[str, Any] = {
        "examples": len(examples),
        "coverage": _share(is_given.any(axis=1).sum(), len(examples)),
        "labels": [
            _of_label(name, is_given[:, n], known[:, n], right[:, n])
            for n, name in enumerate(names) if known[:, n].any()
        ],
        "precision": _share((is_given & right).sum(), (is_given & known).sum()),
        "recall": _share((is_given & right).sum(), right.sum()),
    }  # fmt: skip
    none = examples.classes == -1
    found["none"] = _share((none & is_given.any(axis=1)).sum(), none.sum())
    if label_set.exclusive:
        found |= _of_best(label_set, names, examples, scores)
    else:
        agree = (scores >= 0.5) == right
        found["accuracy"] = _share((agree & known).sum(), known.sum())
        found |= _calibration(scores[known], right[known])
    found["thresholds"] = [
        _at(place / 20, scores, label_set.top_k, known, right) for place in range(1, 20)
    ]
    return found


def _of_label(name: str, is_given: Any, known: Any, right: Any) -> dict[str, Any]:
    hits = int((is_given & right).sum())
    return {
        "label": name,
        "right": int(right.sum()),
        "given": int((is_given & known).sum()),
        "precision": _share(hits, (is_given & known).sum()),
        "recall": _share(hits, right.sum()),
    }


def _of_best(
    label_set: LabelSet, names: list[str], examples: Examples, scores: Floats
) -> dict[str, Any]:
    """Where labels exclude each other: the best one, or none if it does not reach the threshold."""
    rows = np.arange(len(scores))
    best = scores.argmax(axis=1)
    top = scores[rows, best]
    is_known = ~np.isnan(examples.truth[rows, best])
    is_right = examples.truth[rows, best] == 1
    reaches = top >= label_set.threshold
    classes = examples.classes
    judged = (is_known & reaches) | (classes > -2)
    correct = np.where(classes == -1, ~reaches, is_right & reaches)
    said = np.where(reaches, best, -1)
    pairs, counts = np.unique(
        np.stack([classes, said])[:, (classes > -2) & ~(is_right & reaches) & (classes != said)],
        axis=1,
        return_counts=True,
    )
    order = np.argsort(-counts, kind="stable")[:_CONFUSIONS]
    named = [*names, None]  # the last, -1, is none
    return {
        "accuracy": _share((correct & judged).sum(), judged.sum()),
        "confusion": [
            {"is": named[pairs[0, n]], "said": named[pairs[1, n]], "count": int(counts[n])}
            for n in order
        ],
        **_calibration(top[is_known], is_right[is_known]),
    }


def _calibration(probabilities: Floats, right: Any) -> dict[str, Any]:
    places = np.minimum((probabilities * _BINS).astype(int), _BINS - 1)
    bins = []
    error = 0.0
    for place in range(_BINS):
        inside = places == place
        if inside.any():
            said, true = float(probabilities[inside].mean()), float(right[inside].mean())
            error += abs(said - true) * float(inside.mean())
            bins.append({"said": said, "right": true, "count": int(inside.sum())})
    return {"calibration_error": error if bins else None, "calibration": bins}


def _at(threshold: float, scores: Floats, top_k: int, known: Any, right: Any) -> dict[str, Any]:
    over = np.zeros(scores.shape, bool)
    over[given(scores, top_k, threshold)] = True
    return {
        "threshold": threshold,
        "coverage": float(over.any(axis=1).mean()) if len(over) else None,
        "precision": _share((over & right).sum(), (over & known).sum())["share"],
        "recall": _share((over & right).sum(), right.sum())["share"],
    }


def _share(some: Any, of: Any) -> dict[str, Any]:
    """A share and its interval, or None of nothing; and how many."""
    count = int(of)
    if not count:
        return {"share": None, "low": None, "high": None, "of": 0}
    share = int(some) / count
    middle = (share + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    wide = _Z * np.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    wide = float(wide / (1 + _Z**2 / count))
    low, high = max(0.0, min(middle - wide, share)), min(1.0, max(middle + wide, share))
    return {"share": share, "low": low, "high": high, "of": count}
