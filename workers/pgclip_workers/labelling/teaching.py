"""Heads from prompts and examples, each way tried on examples that it did not see.

Labels that exclude each other: class means that begin as the prompts' vectors, moved by the gap
between the kinds (Liang et al. 2022, arXiv:2203.02053), with one shared covariance in closed form
(Wang et al. 2024, arXiv:2402.04087). Labels that stand alone: a logistic regression for each, which
begins with its prompts and may count them less.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pgclip_workers.labelling.examples import FOLDS, Examples, folds
from pgclip_workers.labelling.labels import Heads
from pgclip_workers.labelling.regression import Binary, multinomial
from pgclip_workers.models.encoder import Floats

Way = dict[str, Any]  # how heads are made, as a report says it

PROMPTS: Way = {"way": "prompts"}
# The prompts, with the background's logits moved as far as examples of no label want it.
_BACKGROUND: Way = {"way": "background"}
# As many examples as a prompt counts for, and how much of the identity is added to the covariance,
# in its own mean variance; None: no covariance.
_MEANS: list[Way] = [
    {"way": "means", "prompt_counts": counts, "shrinkage": shrinkage}
    for counts in (2, 4, 8, 16) for shrinkage in (1.0, 3.0, None)
]  # fmt: skip
# Where most labels have a single example nothing is left to try with one held out.
_FEW: Way = {"way": "means", "prompt_counts": 8, "shrinkage": None}
_REGRESSIONS: list[Way] = [{"way": "regression", "penalty": penalty} for penalty in (0.03, 0.3, 3)]
# More multiplications than that a step, and a regression takes more than seconds.
_MOST = 4e6
# As many examples as a head counts for in the centre that the covariance is measured around.
_CENTRE_COUNTS = 4
_TRIED = 20_000  # examples that ways are compared with, at most
_CALIBRATED = 4_000
_PENALTIES = (0.003, 0.03, 0.3, np.inf)
_OF_A_LABEL = 2_000  # examples of a label that stands alone, at most


@dataclass(frozen=True, slots=True)
class Taught:
    """Heads, how they were made, and the share that was right of examples held out: by the prompts
    alone, and so. None where nothing could be compared."""

    heads: Heads
    ways: list[Way]
    by_prompts: float | None
    by_heads: float | None


def teach(prompts: Heads, examples: Examples, exclusive: bool) -> Taught:
    """The heads that do best on examples held out; never worse than the prompts there."""
    return _exclusive(prompts, examples) if exclusive else _alone(prompts, examples)


def heads_by(prompts: Heads, examples: Examples, exclusive: bool, ways: list[Way]) -> Heads:
    """Heads made as somebody found best before, from other examples."""
    if exclusive:
        return _class_heads(prompts, examples.vectors, examples.classes, ways[0])
    return _alone_heads(prompts, examples, ways)


def held_out(
    prompts: Heads, examples: Examples, exclusive: bool, taught: Heads, ways: list[Way]
) -> Floats:
    """Probabilities (n, labels) of each example by heads that did not see it."""
    found = np.empty(examples.truth.shape, np.float32)
    fold = folds(examples.classes)
    for number in range(FOLDS):
        out = fold == number
        if out.any():
            heads = heads_by(prompts, examples.some(~out), exclusive, ways)
            if exclusive:
                scale = taught.scale / prompts.scale
                heads = replace(heads, scale=taught.scale, intercepts=heads.intercepts * scale)
            of = heads.exclusive if exclusive else heads.alone
            found[out] = of(examples.vectors[out])
    return found


def _exclusive(prompts: Heads, examples: Examples) -> Taught:
    classes = examples.classes
    fold = folds(classes)
    chosen = np.flatnonzero(classes > -2)[:_TRIED]
    if not (classes >= 0).any():
        return Taught(prompts, [PROMPTS], None, None)
    if (fold[chosen] == 0).mean() > 1 / 2:
        return _from_few(prompts, examples.some(chosen))
    ways = [PROMPTS, _BACKGROUND, *_MEANS]
    if (classes >= 0).sum() * prompts.vectors.size <= _MOST:
        ways += _REGRESSIONS
    tried = [_Tried(way, prompts, examples, classes, fold, chosen) for way in ways]
    best = _best(tried)
    way = {**best.way, "shift": best.shift}
    heads = _class_heads(prompts, examples.vectors, classes, way)
    scale = _scale(best.logits, classes[chosen][:_CALIBRATED], prompts.count)
    heads = replace(heads, scale=prompts.scale * scale, intercepts=heads.intercepts * scale)
    return Taught(heads, [way], tried[0].share, best.share)


class _Tried:
    """What a way makes of examples that it does not see: of the first of them the `logits`, (n,
    labels + background), the background's moved by `shift`; which of all are right; the loss."""

    def __init__(
        self, way: Way, prompts: Heads, examples: Examples, classes: Any, fold: Any, chosen: Any
    ) -> None:
        self.way = way
        logits = _held_out_logits(prompts, examples, classes, fold, way)[chosen]
        known = classes[chosen]
        self.shift = 0.0
        if way != PROMPTS and (known == -1).any() and prompts.count < len(prompts.vectors):
            self.shift = _shift(logits[:_CALIBRATED], known[:_CALIBRATED], prompts.count)
            logits[:, prompts.count :] += self.shift
        self.right = _is_right(logits, known, prompts.count)
        self.logits = logits[:_CALIBRATED].copy()
        self.loss = _loss(self.logits, known[:_CALIBRATED], prompts.count)

    @property
    def share(self) -> float:
        """How many are right."""
        return float(self.right.mean())


def _best(tried: list[_Tried]) -> _Tried:
    """The one with the most right; but a plain way must do better than the prompts, and what learns
    more than examples may hold, a covariance or a regression, better than plain ways."""
    prompts = tried[0]
    ranked = sorted(tried, key=lambda one: (-one.share, one.loss))
    plain = [
        one for one in ranked if one.way["way"] != "regression" and one.way.get("shrinkage") is None
    ]
    best = next((one for one in plain if _is_better(one, prompts)), prompts)
    return next((one for one in ranked if _is_better(one, best)), best)


def _is_better(one: _Tried, other: _Tried) -> bool:
    """By more than chance: the standard error of a difference between pairs."""
    differ = int((one.right != other.right).sum())
    return bool((one.share - other.share) * len(one.right) > np.sqrt(differ))


def _from_few(prompts: Heads, examples: Examples) -> Taught:
    """Of labels that mostly have one example, which can't be held out: whether to move the prompts
    is tried between labels whose examples were not seen."""
    half = np.arange(prompts.count) % 2 == 0
    rights = []
    for way in (PROMPTS, _FEW):
        parts = []
        for seen in (half, ~half):
            held = examples.some((examples.classes >= 0) & ~seen[examples.classes])
            rest = examples.some((examples.classes >= 0) & seen[examples.classes])
            heads = _class_heads(prompts, rest.vectors, rest.classes, way)
            logits = heads.logits(held.vectors)
            logits[:, : prompts.count][:, seen] = -np.inf
            parts.append(logits.argmax(axis=1) == held.classes)
        rights.append(float(np.concatenate(parts).mean()))
    way = _FEW if rights[1] >= rights[0] and len(examples) > 1 else PROMPTS
    heads = _class_heads(prompts, examples.vectors, examples.classes, way)
    return Taught(heads, [way], rights[0], rights[way == _FEW])


def _held_out_logits(
    prompts: Heads, examples: Examples, classes: Any, fold: Any, way: Way
) -> Floats:
    """Logits of each example by heads that did not see it."""
    found = np.empty((len(examples), len(prompts.vectors)), np.float32)
    for number in range(FOLDS):
        out = fold == number
        if out.any():
            heads = _class_heads(prompts, examples.vectors[~out], classes[~out], way)
            found[out] = heads.logits(examples.vectors[out])
    return found


def _class_heads(prompts: Heads, vectors: Floats, classes: Any, way: Way) -> Heads:
    known = classes >= 0
    if way["way"] == "prompts":
        return prompts
    if way["way"] == "background" or not known.any():
        heads = replace(prompts, intercepts=prompts.intercepts.copy())
    elif way["way"] == "regression":
        heads = _by_regression(prompts, vectors[known], classes[known], way["penalty"])
    else:
        heads = _by_means(prompts, vectors[known], classes[known], way)
    heads.intercepts[prompts.count :] += way.get("shift", 0.0)
    return heads


def _begun(prompts: Heads, vectors: Floats, classes: Any, counts: float) -> tuple[Any, Any]:
    """Unit heads that begin as the prompts, moved by the gap between them and their examples, each
    counting for so many examples; and the sums of these."""
    moved = _unit(prompts.vectors + (vectors - prompts.vectors[classes]).mean(axis=0))
    sums = np.zeros(moved.shape)
    np.add.at(sums, classes, vectors)
    return _unit(counts * moved + sums), sums


def _by_regression(prompts: Heads, vectors: Floats, classes: Any, penalty: float) -> Heads:
    begin, _ = _begun(prompts, vectors, classes, _FEW["prompt_counts"])
    heads, intercepts = multinomial(vectors, classes, begin, prompts.scale, penalty)
    return replace(prompts, vectors=heads, intercepts=intercepts)


def _by_means(prompts: Heads, vectors: Floats, classes: Any, way: Way) -> Heads:
    means, sums = _begun(prompts, vectors, classes, way["prompt_counts"])
    if way["shrinkage"] is None:
        heads, intercepts = means, np.zeros(len(means))
    else:
        counts = np.bincount(classes, minlength=len(means))[:, None]
        length = float((vectors * means[classes]).sum(axis=1).mean())  # of a mean of many
        centres = (_CENTRE_COUNTS * length * means + sums) / (_CENTRE_COUNTS + counts)
        apart = vectors - centres[classes]
        spread = apart.T @ apart / len(apart)
        unit = way["shrinkage"] * max(float(np.trace(spread)) / len(spread), 1e-9)
        # Scaled so that with all shrinkage the heads are the means.
        heads = unit * np.linalg.solve(spread + unit * np.eye(len(spread)), means.T).T
        intercepts = -prompts.scale / 2 * ((heads * means).sum(axis=1) - 1)
    return replace(
        prompts, vectors=heads.astype(np.float32), intercepts=intercepts.astype(np.float32)
    )


def _is_right(logits: Floats, classes: Any, count: int) -> Any:
    """Whether the greatest logit is of the right label, or, where none is right, of no label."""
    best = logits.argmax(axis=1)
    return np.where(classes >= 0, best == classes, best >= count)


def _loss(logits: Floats, classes: Any, count: int) -> float:
    """The mean negative logarithm of the probability of what is right."""
    if not len(logits):
        return 0.0
    logits = logits.astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    weights = np.exp(logits)
    none = weights[:, count:].sum(axis=1)
    right = np.where(classes >= 0, weights[np.arange(len(logits)), classes], none)
    return float(-np.log(np.maximum(right / weights.sum(axis=1), 1e-12)).mean())


def _scale(logits: Floats, classes: Any, count: int) -> float:
    """What to multiply logits with so that probabilities are true, by the least loss (Guo et al.
    2017, arXiv:1706.04599), and with a prior of one for few examples, on which all may be right."""

    def loss(scale: float) -> float:
        prior = float(np.log(scale)) ** 2 / (2 * len(logits))
        return _loss(logits * scale, classes, count) + prior

    return _least(loss, 0.1, 10)


def _shift(logits: Floats, classes: Any, count: int) -> float:
    """What to add to the background's logits: the prompts of labels were moved apart from them."""

    def loss(factor: float) -> float:
        moved = logits.copy()
        moved[:, count:] += np.log(factor)
        return _loss(moved, classes, count)

    return float(np.log(_least(loss, np.exp(-10), np.exp(10))))


def _least(loss: Callable[[float], float], low: float, high: float) -> float:
    """Where a loss with one valley is least, between two positive numbers: by golden section."""
    ratio = (np.sqrt(5) - 1) / 2
    a, b = np.log(low), np.log(high)
    for _ in range(30):
        left, right = b - ratio * (b - a), a + ratio * (b - a)
        if loss(float(np.exp(left))) < loss(float(np.exp(right))):
            b = right
        else:
            a = left
    return float(np.exp((a + b) / 2))


def _alone(prompts: Heads, examples: Examples) -> Taught:
    ways = []
    rights: list[tuple[int, int, int]] = []  # of how many, by the prompts and by the best way
    offsets = _offsets(prompts, examples.vectors)
    for label in range(prompts.count):
        known = _known(examples, label)
        right, offset = examples.truth[known, label], offsets[known, label]
        way, right_before, right_now = _best_way(examples.vectors[known], right, offset)
        ways.append(way)
        rights.append((len(known), right_before, right_now))
    total, before, now = (int(count) for count in np.array(rights).sum(axis=0))
    heads = _alone_heads(prompts, examples, ways)
    return Taught(heads, ways, before / total if total else None, now / total if total else None)


def _known(examples: Examples, label: int) -> Any:
    """Those where it is known, at most _OF_A_LABEL, of the rarer value as many as may be."""
    places = []
    for value in (1, 0):
        (of_value,) = np.nonzero(examples.truth[:, label] == value)
        places.append(of_value)
    half = _OF_A_LABEL // 2
    fewer = min(len(places[0]), len(places[1]), half)
    return np.sort(np.concatenate([each[: _OF_A_LABEL - fewer] for each in places]))


def _offsets(prompts: Heads, vectors: Floats) -> Floats:
    """The logits of labels against the background, by prompts: (n, labels)."""
    logits = prompts.logits(vectors)
    found: Floats = logits[:, : prompts.count] - prompts.background(logits)
    return found


def _best_way(vectors: Floats, right: Floats, offset: Floats) -> tuple[Way, int, int]:
    """Of a label's examples: the way, and how many are right held out, by prompts and so."""
    before = int(((offset > 0) == right).sum())
    if min((right == 1).sum(), (right == 0).sum()) < 2:
        return PROMPTS, before, before
    fold = folds(right)
    by_prompts = _binary_losses(offset, right)
    problems = [(Binary(vectors[fold != n], right[fold != n], offset[fold != n]), fold == n)
                for n in range(FOLDS) if (fold == n).any()]  # fmt: skip
    tried = []
    for penalty in _PENALTIES:
        logits = np.empty(len(right))
        for problem, out in problems:
            weight, intercept, head = problem.solve(penalty)
            logits[out] = weight * offset[out] + vectors[out] @ head + intercept
        losses = _binary_losses(logits, right)
        tried.append((float(losses.mean()), penalty, int(((logits > 0) == right).sum()), losses))
    _, penalty, now, losses = min(tried, key=lambda one: one[:2])
    gain = by_prompts - losses
    # By more than chance: the standard error of a mean.
    if now < before or gain.mean() <= gain.std() / np.sqrt(len(gain)):
        return PROMPTS, before, before
    # JSON has no infinity: without a penalty only the prompt's weight is learnt.
    way = {"way": "regression", "penalty": penalty if np.isfinite(penalty) else None}
    return way, before, now


def _binary_losses(logits: Any, right: Floats) -> Any:
    return np.logaddexp(0, np.where(right == 1, -logits, logits))


def _alone_heads(prompts: Heads, examples: Examples, ways: Sequence[Way]) -> Heads:
    vectors, intercepts = prompts.vectors.copy(), prompts.intercepts.copy()
    weights = prompts.weights.copy()
    offsets = _offsets(prompts, examples.vectors)
    for label, way in enumerate(ways):
        known = _known(examples, label)
        right = examples.truth[known, label]
        if way["way"] == "prompts" or min((right == 1).sum(), (right == 0).sum()) < 1:
            continue
        penalty = np.inf if way["penalty"] is None else way["penalty"]
        problem = Binary(examples.vectors[known], right, offsets[known, label])
        weight, intercept, head = problem.solve(penalty)
        vectors[label] = weight * vectors[label] + head / prompts.scale
        intercepts[label] = weight * intercepts[label] + intercept
        weights[label] = weight
    return replace(prompts, vectors=vectors, intercepts=intercepts, weights=weights)


def _unit(vectors: Any) -> Any:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
