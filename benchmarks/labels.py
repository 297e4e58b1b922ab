"""`make bench-labels`: how often labels are right, by prompts and taught, and labelling anew.

Drawings that no training used (`people.py`): sixteen of each thing to teach with, five to judge by.
Everything is scored and taught by what a worker runs.
"""

import argparse
import re
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from figures import Figure, keep, show
from people import People
from PIL import Image, ImageFilter, ImageOps
from planting import plant
from system import STUB_WORKER, fresh_system, run_sql, worker
from vectors import DIMENSION

from pgclip import Client
from pgclip_workers.labelling.evaluation import evaluation
from pgclip_workers.labelling.examples import Examples
from pgclip_workers.labelling.labels import Heads, LabelSet
from pgclip_workers.labelling.shelf import apart
from pgclip_workers.labelling.teaching import teach
from pgclip_workers.models.encoder import Floats

TAUGHT = (1, 2, 4, 16)
NEAR_TWINS = {"clocks": "o'clock|thirty", "families": "family", "faces": "face"}
# What is drawn, and what is done to it. The last is a word for fruit that nobody knows.
UNNAMED: dict[str, tuple[str, Callable[[Image.Image], Image.Image]]] = {
    "blurred": ("", lambda picture: picture.filter(ImageFilter.GaussianBlur(10))),
    "framed": ("", lambda picture: ImageOps.expand(picture, picture.width // 8, "black")),
    "inverted": ("", ImageOps.invert),
    "colourless": ("", lambda picture: ImageOps.grayscale(picture).convert("RGB")),
    "zorblax": ("food-fruit", lambda picture: picture),
}
GOALS = {1: "≥ 0.86", 16: "≥ 0.89"}


def main() -> int:
    """Runs all parts, prints the table, keeps the JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, default=1_000_000)
    chosen = parser.parse_args()
    people = People()
    with fresh_system() as urls:
        url = urls["database_url"]
        templates = {name: _of_sql(url, f"SELECT pgclip.label_templates('{name}')")
                     for name in ("one", "seven", "eighty")}  # fmt: skip
        common = _of_sql(url, "SELECT pgclip.background_words()")
    figures = things(people, templates, common)
    figures += unnamed(people)
    figures += relabelling(chosen.items)
    keep(figures, "make bench-labels", "labels")
    return 0


def things(people: People, templates: dict[str, list[str]], common: list[str]) -> list[Figure]:
    """All things as labels, those that are nearly alike, and a hundred among all the others."""
    names, scale = people.names(), people.scale()
    pictures = people.pictures().reshape(len(names), -1, DIMENSION)
    prompts = {name: people.prompts(names, some) for name, some in templates.items()}
    background = people.prompts(common, templates["one"])
    figures = []
    for name, vectors in prompts.items():
        right = _right(_heads(vectors, scale), pictures[:, 16:])
        figures += show([Figure(f"all {len(names)}, {name} of templates, right", right, "share")])
    right = _right(_heads(prompts["one"], scale, background), pictures[:, 16:])
    figures += show([Figure(f"all {len(names)}, with background, right", right, "share")])
    groups = {"all": np.arange(len(names))}
    for twins, pattern in NEAR_TWINS.items():
        groups[twins] = np.flatnonzero([bool(re.search(pattern, name)) for name in names])
    for group, members in groups.items():
        figures += _taught(group, prompts["one"][members], pictures[members], scale)
    return figures + _none_of_these(prompts["one"], background, pictures, scale)


def _taught(group: str, prompts: Floats, pictures: Floats, scale: float) -> list[Figure]:
    heads = _heads(prompts, scale)
    judged = pictures[:, 16:]
    before = _right(heads, judged)
    name = f"{group} ({len(prompts)})"
    figures = show([
        Figure(f"{name}, by the prompt, right", before, "share"),
        Figure(f"{name}, by the prompt, calibration error", _error(heads, judged), ""),
    ])  # fmt: skip
    for count in TAUGHT:
        began = time.perf_counter()
        taught = teach(heads, _examples(pictures[:, :count]), exclusive=True).heads
        seconds = time.perf_counter() - began
        goal = GOALS.get(count, "") if group == "all" else ""
        if group != "all" and count == 16:
            goal = f"≥ {(1 + before) / 2:.3f}"
        figures += show([
            Figure(f"{name}, {count} to teach with, right", _right(taught, judged), "share", goal),
            Figure(f"{name}, {count}, calibration error", _error(taught, judged), "", "≤ 0.05"),
            Figure(f"{name}, {count}, taught in", seconds, "s"),
        ])  # fmt: skip
    return figures


def _none_of_these(
    prompts: Floats, background: Floats, pictures: Floats, scale: float
) -> list[Figure]:
    """A set of a hundred; a drawing of each other thing gets none of its labels."""
    chosen = np.sort(np.random.default_rng(0).choice(len(prompts), 100, replace=False))
    others = np.setdiff1d(np.arange(len(prompts)), chosen)
    strange, lessons = pictures[others, 16], pictures[others, 0]
    figures = []
    for name, words in (("no background", None), ("background", background)):
        heads = _heads(prompts[chosen], scale, words)
        figures += _given(f"100 of {len(prompts)}, {name}", heads, pictures[chosen, 16:], strange)
    known = _examples(pictures[chosen, :4])
    none = np.zeros((len(lessons), 100), np.float32)
    both = Examples(
        np.concatenate([known.vectors, lessons]), np.concatenate([known.truth, none]),
        tuple(range(len(known) + len(lessons))),
    )  # fmt: skip
    taught = teach(_heads(prompts[chosen], scale, background), both, exclusive=True).heads
    name = "100, background, taught with 4 and with others"
    return figures + _given(name, taught, pictures[chosen, 16:], strange)


def _given(name: str, heads: Heads, pictures: Floats, strange: Floats) -> list[Figure]:
    figures = []
    for threshold in (0.1, 0.3, 0.5):
        scores = heads.exclusive(pictures.reshape(-1, DIMENSION))
        classes = np.repeat(np.arange(len(pictures)), pictures.shape[1])
        right = (scores.argmax(axis=1) == classes) & (scores.max(axis=1) >= threshold)
        false = heads.exclusive(strange).max(axis=1) >= threshold
        figures += show([
            Figure(f"{name}, threshold {threshold}: right", right.mean(), "share"),
            Figure(f"{name}, {threshold}: of nothing in the set, labelled", false.mean(), "share",
                   "≤ 0.05"),
        ])  # fmt: skip
    return figures


def unnamed(people: People) -> list[Figure]:
    """Labels that no caption named: sixteen drawings with and without teach, 200 of each judge.
    What the vectors hold of it at all is learnt from 300 of each."""
    plain = people.changed(lambda picture: picture, 0)
    background = people.prompts(["thing", "picture", "scene"], ["{}"])
    figures = []
    for number, (name, (group, change)) in enumerate(UNNAMED.items(), 1):
        pictures = np.stack([people.changed(change, number, group), plain], axis=1)
        heads = _heads(people.prompts([name], ["a {} picture"]), people.scale(), background)
        judged, right = pictures[-200:].reshape(-1, DIMENSION), np.tile([True, False], 200)
        for how, count in (("by the prompt", 0), ("16 of each side", 16), ("300", 300)):
            lessons = Examples(
                pictures[:count].reshape(-1, DIMENSION),
                np.tile([1.0, 0.0], count)[:, None].astype(np.float32), tuple(range(2 * count)),
            )  # fmt: skip
            some = teach(heads, lessons, exclusive=False).heads if count else heads
            share = ((some.alone(judged)[:, 0] >= 0.5) == right).mean()
            goal = "≥ 0.85" if count == 16 else ""
            figures += show([Figure(f"{name}, {how}, right", share, "share", goal)])
    return figures


def relabelling(items: int) -> list[Figure]:
    """All items get the labels of a hundred, three each, and again when half of these change."""
    holding = People().million(items)
    with fresh_system() as urls:
        url = urls["database_url"]
        for name in ("general", "moderation"):
            run_sql(url, f"SELECT pgclip.drop_label_set('{name}')")
        plant(url, holding)
        run_sql(url, "VACUUM ANALYZE")
        figures = []
        with worker(urls, STUB_WORKER), Client(**urls) as client:
            words = [f"word {n}" for n in range(150)]
            for name, labels in (("first", words[:100]), ("half changed", words[50:])):
                client.define_label_set("hundred", labels, threshold=0)
                began = time.perf_counter()
                while run_sql(url, "SELECT model_id FROM pgclip.relabeling"):
                    time.sleep(0.5)
                seconds = time.perf_counter() - began
                assert run_sql(url, "SELECT count(*) FROM pgclip.item_label") == [(3 * items,)]
                figures += show([
                    Figure(f"{items:,} items × 100 labels, 3 kept, {name}", seconds, "s",
                           "≤ 120" if name != "first" else ""),
                    Figure(f"items labelled anew, {name}", items / seconds, "/s"),
                ])  # fmt: skip
    return figures


def _heads(prompts: Floats, scale: float, background: Floats | None = None) -> Heads:
    words = np.empty((0, prompts.shape[1]), np.float32) if background is None else background
    vectors = np.concatenate([prompts, words])
    none, once = np.zeros(len(vectors), np.float32), np.ones(len(prompts), np.float32)
    return Heads(vectors, none, once, apart(prompts, words), scale)


def _examples(pictures: Floats) -> Examples:
    """Of (labels, count, dimension), in a random order as contents' hashes bring it."""
    labels, count, _ = pictures.shape
    order = np.random.default_rng(1).permutation(labels * count)
    truth = np.repeat(np.eye(labels, dtype=np.float32), count, axis=0)
    return Examples(pictures.reshape(-1, DIMENSION)[order], truth[order], tuple(order))


def _right(heads: Heads, pictures: Floats) -> float:
    """How many of (labels, count, dimension) have their label as the best."""
    logits = heads.logits(pictures.reshape(-1, DIMENSION))
    return float((logits.argmax(axis=1) == np.repeat(np.arange(len(pictures)), pictures.shape[1]))
                 .mean())  # fmt: skip


def _error(heads: Heads, pictures: Floats) -> float:
    examples = _examples(pictures)
    ids = np.arange(len(heads.vectors))
    every = LabelSet(1, 1, 1, 1, 0.0, "both", True, ids, heads)
    names = [str(n) for n in range(heads.count)]
    found: dict[str, Any] = evaluation(every, names, examples, every.scores(examples.vectors))
    return float(found["calibration_error"])


def _of_sql(url: str, statement: str) -> list[str]:
    ((found,),) = run_sql(url, statement)
    return list(found)


if __name__ == "__main__":
    raise SystemExit(main())
