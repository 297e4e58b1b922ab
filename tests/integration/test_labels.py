"""Zero-shot scores against the formula, and label sets as rows."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import psycopg2
import pytest
from support.processes import WorkerFactory, eventually

from pgclip import Client, InvalidItem, NotFound
from pgclip_workers.labelling.labels import Heads, LabelBook, LabelSet, given

Sql = Callable[..., list[Any]]


def unit(rows: Any) -> "np.ndarray[Any, np.dtype[np.float32]]":
    values = np.asarray(rows, np.float32)
    return np.asarray(values / np.linalg.norm(values, axis=-1, keepdims=True), np.float32)


def heads(count: int = 5, background: int = 0, none: float = -np.inf, scale: float = 20) -> Heads:
    vectors = unit(np.random.default_rng(1).standard_normal((count + background, 8)))
    return Heads(
        vectors, np.zeros(len(vectors), np.float32), np.ones(count, np.float32),
        np.ones((count, background), bool), scale, none,
    )  # fmt: skip


def label_set(heads: Heads, **changes: Any) -> LabelSet:
    values = {
        "id": 1, "version": 3, "epoch": 1, "top_k": 2, "threshold": 0.0, "applies_to": "both",
        "exclusive": True, "word_ids": np.arange(10, 10 + len(heads.vectors)),
    }  # fmt: skip
    return LabelSet(**{**values, "heads": heads, **changes})


def images(count: int = 3) -> Any:
    return unit(np.random.default_rng(2).standard_normal((count, 8)))


def scores_of(one: LabelSet, vectors: Any) -> Any:
    """By label, (n, labels), through the whole of labelling."""
    labels = LabelBook(1, (one,)).label(["image"] * len(vectors), [v[None] for v in vectors])
    assert set(labels.versions.tolist()) <= {3}
    found = np.full((len(vectors), one.heads.count), np.nan)
    found[labels.rows, labels.label_ids - 10] = labels.scores
    return found


def test_labels_that_exclude_each_other_are_a_softmax_with_the_background() -> None:
    for background in (0, 3):
        one = label_set(heads(5, background), top_k=5)
        logits = 20.0 * images().astype(np.float64) @ one.heads.vectors.T.astype(np.float64)
        expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(scores_of(one, images()), expected[:, :5], atol=1e-5)


def test_labels_that_stand_alone_are_sigmoids_against_the_background() -> None:
    for none in (-np.inf, 4.0):  # of a model with a bias of -4
        one = label_set(heads(5, 3, none), top_k=5, exclusive=False)
        with np.errstate(all="raise", under="ignore"):
            found = scores_of(one, images())
        odds = np.exp(20.0 * images().astype(np.float64) @ one.heads.vectors.T.astype(np.float64))
        against = odds[:, 5:].sum(axis=1, keepdims=True) + np.exp(none)
        np.testing.assert_allclose(found, odds[:, :5] / (odds[:, :5] + against), atol=1e-5)


def test_far_logits_overflow_nothing() -> None:
    with np.errstate(over="raise", invalid="raise"):
        for exclusive in (True, False):
            one = label_set(heads(5, 3, 300.0, scale=1000), top_k=5, exclusive=exclusive)
            assert np.isfinite(one.scores(images())).all()


def test_a_word_that_may_mean_a_label_does_not_count_against_it() -> None:
    plain = heads(2, 2)
    apart = np.array([[True, False], [True, True]])
    one = label_set(replace(plain, apart=apart), top_k=2, exclusive=False)
    logits = plain.logits(images())
    expected = 1 / (1 + np.exp(logits[:, 2] - logits[:, 0]))
    np.testing.assert_allclose(scores_of(one, images())[:, 0], expected, atol=1e-5)


def test_without_a_label_set_items_are_stored_all_the_same(
    client: Client, database_url: str, start_worker: WorkerFactory
) -> None:
    start_worker(database_url)
    for label_set in client.label_sets():
        client.drop_label_set(label_set.name)
    job = client.submit_text("a text without labels", key="no labels")
    job.wait(60)
    assert client.get("no labels").labels == ()


def test_top_k_threshold_and_kinds() -> None:
    same = heads()
    sets = (label_set(same), label_set(same, threshold=2.0),
            label_set(same, applies_to="image", top_k=1))  # fmt: skip
    kinds: list[Any] = ["image", "text", "image", "text"]
    labels = LabelBook(1, sets).label(kinds, [image[None] for image in images(4)])
    assert np.bincount(labels.rows).tolist() == [3, 2, 3, 2]


def test_the_best_are_given() -> None:
    scores = np.array([[0.1, 0.4, 0.3, 0.2], [0.05, 0.05, 0.9, 0.0], [0.0, 0.0, 0.0, 0.1]])
    row, column = given(scores, 2, 0.15)
    assert list(zip(row, column, strict=True)) == [(0, 1), (0, 2), (1, 2)]


def test_an_item_with_several_vectors_is_labelled_by_their_mean() -> None:
    vectors = unit(np.random.default_rng(4).standard_normal((2, 8)))
    book = LabelBook(1, (label_set(heads(), top_k=5),))
    together = book.label(["text"], [vectors])
    mean = book.label(["text"], [unit(vectors.mean(axis=0))[None]])
    np.testing.assert_allclose(together.scores, mean.scores, atol=1e-5)


def test_no_label_set_no_labels() -> None:
    assert len(LabelBook(1, ()).label(["image"], [unit(np.ones((1, 8)))]).rows) == 0


def test_the_shipped_sets(sql: Sql) -> None:
    rows = sql("SELECT name, applies_to, active, decides FROM pgclip.label_set ORDER BY name")
    assert rows == [("general", "both", True, False), ("moderation", "image", True, True)]
    assert sql("SELECT DISTINCT s.name FROM pgclip.label l JOIN pgclip.label_set s"
               " ON s.id = l.set_id WHERE l.is_background ORDER BY 1") == [
        ("general",), ("moderation",)
    ]  # fmt: skip
    assert sql("SELECT archived_at IS NULL FROM pgclip.label"
               " WHERE name = 'safe everyday scene'") == [(False,)]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["only one"],), "at least two labels"),
        ((["a", "a"],), "all different"),
        ((["a", ""],), "not empty"),
        ((["a", "b"], ["no place"]), "templates that contain {}"),
        ((["a", "b"], []), "templates that contain {}"),
    ],
)
def test_label_sets_that_make_no_sense(client: Client, arguments: Any, message: str) -> None:
    labels, *templates = arguments
    with pytest.raises(InvalidItem, match=f"label set 'bad': label set bad needs .*{message}"):
        client.define_label_set("bad", labels, templates=templates[0] if templates else None)


def test_ranges_are_checked(client: Client) -> None:
    for changes in ({"top_k": 0}, {"threshold": 1.5}, {"applies_to": "videos"}):
        with pytest.raises(InvalidItem):
            client.define_label_set("bad", ["a", "b"], **changes)  # type: ignore[arg-type]


def test_defining_replacing_and_dropping(
    client: Client, sql: Sql, database_url: str, start_worker: WorkerFactory
) -> None:
    def labels(key: str, text: str) -> dict[str, set[str]]:
        client.submit_text(text, key=key).wait(60)
        found: dict[str, set[str]] = {}
        for label in client.get(key).labels:
            found.setdefault(label.set, set()).add(label.name)
        return found

    start_worker(database_url)
    client.drop_label_set("moderation")
    assert "moderation" not in labels("a", "one")
    client.define_label_set("mine", ["x", "y", "z"], top_k=3, threshold=0)
    assert labels("b", "two")["mine"] == {"x", "y", "z"}
    client.define_label_set(
        "mine", ["x", "w"], templates=["{}!"], top_k=3, threshold=0, relabel=False
    )
    assert labels("c", "three")["mine"] == {"x", "w"}
    assert {label.name for label in client.get("b").labels if label.set == "mine"} == {"x"}
    current = "SELECT current FROM pgclip.labels WHERE set = 'mine' AND key = %s"
    assert sql(current, "b") == [(False,)]
    assert sql(current, "c") == [(True,), (True,)]
    client.define_label_set("mine", ["x", "w"], active=False)
    assert "mine" not in labels("d", "four")
    client.define_label_set("mine", ["x", "w"], applies_to="image")
    assert "mine" not in labels("e", "five")
    client.drop_label_set("mine")
    assert sql("SELECT count(*) FROM pgclip.labels WHERE set = 'mine'") == [(0,)]
    with pytest.raises(NotFound, match="no label set 'mine'"):
        client.drop_label_set("mine")
    eventually(lambda: sql("SELECT count(*) FROM pgclip.job") == [(0,)])


def test_sql_can_filter_on_labels(sql: Sql) -> None:
    assert sql("SELECT key FROM pgclip.labels WHERE label = 'animal' AND score > 0.5") == []
    with pytest.raises(psycopg2.Error, match="templates that contain"):
        sql("SELECT pgclip.define_label_set('x', ARRAY['a', 'b'], ARRAY['none'])")
