"""Teaching and evaluating without a database: on clouds of points, with and without a truth."""

from typing import Any

import numpy as np
import pytest

from pgclip_workers.labelling.evaluation import evaluation
from pgclip_workers.labelling.examples import Examples, examples_of, folds
from pgclip_workers.labelling.labels import Heads, LabelSet, given
from pgclip_workers.labelling.regression import Binary
from pgclip_workers.labelling.teaching import held_out, teach

DIMENSION = 32


def unit(values: Any) -> Any:
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


class World:
    """Things whose pictures lie around centres, away from their names by a gap that all share."""

    def __init__(self, labels: int = 8, noise: float = 0.9, seed: int = 0, words: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.labels = labels
        self.noise = noise
        self.centres = unit(self.random.standard_normal((labels, DIMENSION)))
        names = unit(self.centres + 0.8 * unit(self.random.standard_normal((labels, DIMENSION))))
        self.gap = 1.5 * unit(self.random.standard_normal(DIMENSION))
        background = unit(self.random.standard_normal((words, DIMENSION)))
        self.prompts = Heads(
            np.concatenate([names, background]), np.zeros(labels + words, np.float32),
            np.ones(labels, np.float32), np.ones((labels, words), bool), 20.0,
        )  # fmt: skip

    def pictures(self, classes: Any) -> Any:
        away = self.noise * self.random.standard_normal((len(classes), DIMENSION)) / 4
        return unit(self.centres[classes] + away + self.gap)

    def examples(self, each: int) -> Examples:
        classes = self.random.permutation(np.repeat(np.arange(self.labels), each))
        truth = np.eye(self.labels, dtype=np.float32)[classes]
        return Examples(self.pictures(classes), truth, tuple(range(len(classes))))

    def right(self, heads: Heads) -> float:
        fresh = self.examples(200)
        return float((heads.exclusive(fresh.vectors).argmax(axis=1) == fresh.classes).mean())


@pytest.mark.parametrize("each", [1, 2, 4, 16])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_taught_it_is_right_more_often(each: int, seed: int) -> None:
    world = World(seed=seed)
    taught = teach(world.prompts, world.examples(each), exclusive=True)
    assert taught.by_heads >= taught.by_prompts
    assert world.right(taught.heads) >= world.right(world.prompts) - (0.05 if each < 4 else 0)
    if each == 16:
        assert world.right(taught.heads) > world.right(world.prompts) + 0.05


def test_from_labels_that_are_no_truth_nothing_is_learnt() -> None:
    """Held out, noise is right as often as chance: nothing leaks from what is judged."""
    world = World(labels=4, words=6)
    examples = world.examples(30)
    noise = Examples(
        examples.vectors, world.random.permutation(examples.truth), examples.keys
    )  # fmt: skip
    taught = teach(world.prompts, noise, exclusive=True)
    assert taught.by_heads <= 0.36
    scores = held_out(world.prompts, noise, True, taught.heads, taught.ways)
    assert (scores.argmax(axis=1) == noise.classes).mean() <= 0.36
    alone = teach(world.prompts, noise, exclusive=False)
    scores = held_out(world.prompts, noise, False, alone.heads, alone.ways)
    assert ((scores >= 0.5) == noise.truth).mean() <= 0.8  # three in four are wrong


@pytest.mark.parametrize("exclusive", [True, False])
def test_few_or_onesided_examples(exclusive: bool) -> None:
    world = World(labels=3, words=2)
    some = world.examples(4)
    for chosen in ([], [0], [0, 1], list(range(12))):
        for value in (some.truth, np.ones_like(some.truth), np.zeros_like(some.truth),
                      np.full_like(some.truth, np.nan)):  # fmt: skip
            examples = Examples(some.vectors, value, some.keys).some(np.array(chosen, int))
            taught = teach(world.prompts, examples, exclusive)
            assert np.isfinite(taught.heads.vectors).all()
            assert np.isfinite(taught.heads.intercepts).all()
            assert taught.heads.scale > 0
            assert taught.by_prompts is None or 0 <= taught.by_prompts <= taught.by_heads <= 1


def test_probabilities_of_the_taught_are_true() -> None:
    world = World(labels=10, noise=1.5)
    taught = teach(world.prompts, world.examples(20), exclusive=True).heads
    fresh = world.examples(300)
    every = LabelSet(1, 1, 1, 1, 0.0, "both", True, np.arange(10), taught)
    names = [str(n) for n in range(10)]
    after = evaluation(every, names, fresh, taught.exclusive(fresh.vectors))
    before = evaluation(every, names, fresh, world.prompts.exclusive(fresh.vectors))
    assert after["calibration_error"] <= 0.05 < before["calibration_error"]


def test_examples_of_no_label_move_the_background() -> None:
    world = World(labels=4, words=6)
    known = world.examples(20)
    strange = unit(world.random.standard_normal((80, DIMENSION)) / 4 + world.gap)
    both = Examples(
        np.concatenate([known.vectors, strange]),
        np.concatenate([known.truth, np.zeros((80, 4), np.float32)]), tuple(range(160)),
    )  # fmt: skip
    order = world.random.permutation(160)
    taught = teach(world.prompts, both.some(order), exclusive=True)
    more = unit(world.random.standard_normal((500, DIMENSION)) / 4 + world.gap)
    before = (world.prompts.exclusive(more).max(axis=1) >= 0.5).mean()
    after = (taught.heads.exclusive(more).max(axis=1) >= 0.5).mean()
    assert taught.by_heads > taught.by_prompts
    assert after < before


def test_a_fold_takes_one_of_each() -> None:
    groups = np.array([3, 1, 1, 3, 3, 2, 1])
    found = folds(groups)
    assert found.tolist() == [0, 0, 1, 1, 2, 0, 2]


def test_a_regression_is_where_the_slope_is_nothing() -> None:
    random = np.random.default_rng(0)
    vectors, right = random.standard_normal((40, 60)), (random.random(40) < 0.5).astype(float)
    offset = random.standard_normal(40)
    weight, intercept, head = Binary(vectors, right, offset).solve(0.3)
    chance = 1 / (1 + np.exp(-(weight * offset + vectors @ head + intercept)))
    np.testing.assert_allclose(vectors.T @ (chance - right) + 0.3 * head, 0, atol=1e-4)
    assert abs((chance - right).sum() + 0.01 * intercept) < 1e-4
    assert abs(((chance - right) * offset).sum() + 0.1 * (weight - 1)) < 1e-4


def test_what_people_say_as_numbers() -> None:
    rows = [
        ("a", np.ones(2), [7], [True]),
        ("b", np.ones(2), [7, 9], [False, None]),
        ("c", np.ones(2), [9, 12], [True, False]),  # 12 is of another set
        ("d", np.ones(2), [None], [True]),
    ]
    exclusive = examples_of(rows, [7, 9], exclusive=True, is_complete=False)
    np.testing.assert_array_equal(exclusive.truth, [[1, 0], [0, np.nan], [0, 1], [0, 0]])
    assert exclusive.disagreed == 1
    alone = examples_of(rows, [7, 9], exclusive=False, is_complete=False)
    np.testing.assert_array_equal(alone.truth[2], [np.nan, 1])
    complete = examples_of(rows, [7, 9], exclusive=False, is_complete=True)
    np.testing.assert_array_equal(complete.truth[[0, 3]], [[1, 0], [0, 0]])
    assert complete.classes.tolist() == [0, -2, 1, -1]


def test_an_evaluation_counted_by_hand() -> None:
    scores = np.array([[0.8, 0.1], [0.6, 0.3], [0.2, 0.15], [0.1, 0.9]], np.float32)
    truth = np.array([[1, 0], [0, 1], [0, 0], [np.nan, 1]], np.float32)
    heads = World(labels=2).prompts
    every = LabelSet(1, 1, 1, 1, 0.3, "both", True, np.arange(2), heads)
    examples = Examples(np.zeros((4, DIMENSION), np.float32), truth, (1, 2, 3, 4))
    found = evaluation(every, ["cat", "dog"], examples, scores)
    assert found["accuracy"]["share"] == 0.75
    assert found["coverage"]["share"] == 0.75
    assert found["none"] == {"share": 0.0, "low": 0.0, "high": pytest.approx(0.793, abs=1e-3),
                             "of": 1}  # fmt: skip
    cat, dog = found["labels"]
    assert (cat["right"], cat["given"], cat["precision"]["share"]) == (1, 2, 0.5)
    assert (dog["right"], dog["given"], dog["recall"]["share"]) == (2, 1, 0.5)
    assert found["confusion"] == [{"is": "dog", "said": "cat", "count": 1}]
    at = {one["threshold"]: one for one in found["thresholds"]}
    assert (at[0.7]["coverage"], at[0.7]["precision"]) == (0.5, 1.0)
    assert given(scores, 1, 0.3)[1].tolist() == [0, 0, 1]
    nothing = evaluation(every, ["cat", "dog"], examples.some([]), scores[:0])
    assert nothing["accuracy"]["share"] is None
    assert nothing["calibration_error"] is None
