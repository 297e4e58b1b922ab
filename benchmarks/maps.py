"""How well a model answers by the vectors of the one before: the demo's two models, of two seeds
and two widths, on drawings that neither has seen, and captions.

    python benchmarks/maps.py          results/maps.json

Of text and picture queries, the share of the ten nearest by the second model's own vectors that
mapped vectors of the first find, in all of them; maps are learnt from a sample, the rest is new to
them. Beside it what a map without a translation finds, and one of vectors in the wrong order. Then,
with some filled and the rest mapped, in an order at random and the least certain first.
"""

import sys
from functools import cache

import numpy as np
import people
from figures import Figure, keep, show
from here import DATA
from people import DEMO, People
from vectors import Floats

from pgclip_workers.mapping.procrustes import Map, Pairs

MODELS = ("model", "second")
EACH = 20  # drawings of a thing
FORMS = 20  # captions of a thing
SAMPLES = (1_000, 5_000, 20_000)
QUERIES = 1_000


def main() -> int:
    """Prints the table, keeps the JSON."""
    DATA.mkdir(parents=True, exist_ok=True)
    figures: list[Figure] = []
    for kind in ("image", "text"):
        old, new = (_vectors(model, kind) for model in MODELS)
        figures += show([Figure(f"{kind}s that both have encoded", len(old), "")])
        for asked in ("text", "image"):
            queries = _queries(asked)
            for sample in SAMPLES:
                learnt = learn(old, new, sample)
                found = recall(learnt.scores(old, queries), new @ queries.T, sample)
                figures += show([Figure(
                    f"{asked} to {kind}, map of {sample:,} pairs: recall@10", found, "", "≥ 0.9"
                )])  # fmt: skip
            figures += show(_others(f"{asked} to {kind}", old, new, queries))
            figures += show(_partly_filled(f"{asked} to {kind}", old, new, queries))
    keep(figures, "python benchmarks/maps.py", "maps")
    return 0


def learn(old: Floats, new: Floats, sample: int) -> Map:
    """From the first of the pairs."""
    pairs = Pairs(old.shape[1], new.shape[1])
    pairs.add(old[:sample], new[:sample])
    return pairs.map()


def recall(scores: Floats, real: Floats, learnt_from: int) -> float:
    """Of each query's ten nearest of what the map has not learnt from; scores (n, queries)."""
    scores, real = scores[learnt_from:], real[learnt_from:]
    least = np.sort(real, axis=0)[-10]
    best = np.argpartition(-scores, 10, axis=0)[:10]
    return float((np.take_along_axis(real, best, axis=0) >= least).mean())


def _others(name: str, old: Floats, new: Floats, queries: Floats) -> list[Figure]:
    """What is not done, and what must not answer."""
    sample = SAMPLES[-1]
    left, _, right = np.linalg.svd(new[:sample].T @ old[:sample], full_matrices=False)
    plain = Map(left @ right, np.zeros(new.shape[1], np.float32))
    shuffled = np.random.default_rng(1).permutation(old)
    real = new @ queries.T
    return [
        Figure(f"{name}, without a translation",
               recall(plain.scores(old, queries), real, sample), ""),
        Figure(f"{name}, old vectors permuted",
               recall(learn(shuffled, new, sample).scores(shuffled, queries), real, sample), "",
               "< 0.9"),
        Figure(f"{name}, mapped scores above real ones by, on average",
               float((learn(old, new, sample).scores(old, queries) - real)[sample:].mean()), ""),
    ]  # fmt: skip


def _partly_filled(name: str, old: Floats, new: Floats, queries: Floats) -> list[Figure]:
    """Recall of all, of which some have real vectors: by chance, or those that lie farthest from
    what was learnt from, which a map knows least of."""
    sample = SAMPLES[0]
    learnt = learn(old, new, sample)
    mapped, real = learnt.scores(old, queries), new @ queries.T
    known = (old @ old[:sample].T).max(axis=1)
    orders = {"at random": np.random.default_rng(2).permutation(len(old)),
              "least certain first": np.argsort(known)}  # fmt: skip
    figures = []
    for share in (0.05, 0.2, 0.5):
        for how, order in orders.items():
            is_filled = np.zeros(len(old), bool)
            is_filled[order[: int(share * len(old))]] = True
            scores = np.where(is_filled[:, None], real, mapped)
            figures.append(Figure(f"{name}, {share:.0%} filled {how}", recall(scores, real, 0), ""))
    return figures


def _vectors(model: str, kind: str) -> Floats:
    """Of every thing in a random order, the same for both models."""
    found = _drawings(model) if kind == "image" else _captions(model)
    return np.random.default_rng(3).permutation(found)


def _drawings(model: str) -> Floats:
    return People(0, 1, model).drawn(5_000, EACH)


def _captions(model: str) -> Floats:
    random = np.random.default_rng(4)
    names = People().names()
    texts = []
    for name in names:
        forms = random.choice(_forms(), FORMS, replace=False)
        texts += [form.format(people.evaluate.with_article(name, "a")) for form in forms]
    return People(0, 1, model).texts(texts, "captions of maps")


@cache
def _forms() -> list[str]:
    return [form for form in people.evaluate.TEMPLATES if "{}" in form]


def _queries(kind: str) -> Floats:
    """By the second model."""
    asked = People(0, 1, MODELS[1])
    found = asked.drawn(9_000, 1) if kind == "image" else asked.asked()
    return np.random.default_rng(5).permutation(found)[:QUERIES]


if __name__ == "__main__":
    assert (DEMO / MODELS[1]).is_dir()
    sys.exit(main())
