"""Zero-shot scores against the formula, and label sets as rows."""

from collections.abc import Callable
from typing import Any

import numpy as np
import psycopg2
import pytest
from support.processes import WorkerFactory, eventually

from pgclip import Client, InvalidItem, NotFound
from pgclip_workers.labelling.labels import LabelBook, LabelSet

Sql = Callable[..., list[Any]]


def unit(rows: Any) -> "np.ndarray[Any, np.dtype[np.float32]]":
    values = np.asarray(rows, np.float32)
    return np.asarray(values / np.linalg.norm(values, axis=-1, keepdims=True), np.float32)


def label_set(**changes: Any) -> LabelSet:
    vectors = unit(np.random.default_rng(1).standard_normal((5, 8)))
    values = {
        "version": 3, "top_k": 2, "threshold": 0.0, "applies_to": "both",
        "label_ids": np.array([10, 11, 12, 13, 14]), "vectors": vectors,
    }  # fmt: skip
    return LabelSet(**{**values, **changes})


def test_scores_are_the_softmax_over_scaled_cosines() -> None:
    images = unit(np.random.default_rng(2).standard_normal((3, 8)))
    one = label_set(top_k=5)
    labels = LabelBook(1, (one,), 20.0, None).label(
        ["image"] * 3, [image[None] for image in images]
    )
    logits = 20.0 * images.astype(np.float64) @ one.vectors.T.astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for row in range(3):
        mine = labels.rows == row
        np.testing.assert_allclose(labels.scores[mine].sum(), 1, atol=1e-5)
        order = np.argsort(-expected[row])
        np.testing.assert_array_equal(labels.label_ids[mine], one.label_ids[order])
        np.testing.assert_allclose(labels.scores[mine], expected[row][order], atol=1e-5)
    assert set(labels.versions.tolist()) == {3}


def test_of_a_model_with_a_bias_each_label_is_for_itself() -> None:
    images = unit(np.random.default_rng(2).standard_normal((3, 8)))
    one = label_set(top_k=5)
    book = LabelBook(1, (one,), 20.0, -10.0)
    with np.errstate(all="raise"):
        labels = book.label(["image"] * 3, [image[None] for image in images])
        (far,) = LabelBook(1, (one,), 1.0, -300.0).label(["image"], [images[:1]]).scores[:1]
    logits = 20.0 * images.astype(np.float64) @ one.vectors.T.astype(np.float64) - 10
    expected = 1 / (1 + np.exp(-logits))
    for row in range(3):
        found = labels.scores[labels.rows == row]
        np.testing.assert_allclose(found, np.sort(expected[row])[::-1], atol=1e-5)
    assert far == 0


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
    images = unit(np.random.default_rng(3).standard_normal((4, 8)))
    sets = (label_set(), label_set(threshold=2.0), label_set(applies_to="image", top_k=1))
    kinds: list[Any] = ["image", "text", "image", "text"]
    labels = LabelBook(1, sets, 20.0, None).label(kinds, [image[None] for image in images])
    assert np.bincount(labels.rows).tolist() == [3, 2, 3, 2]


def test_an_item_with_several_vectors_is_labelled_by_their_mean() -> None:
    vectors = unit(np.random.default_rng(4).standard_normal((2, 8)))
    book = LabelBook(1, (label_set(top_k=5),), 20.0, None)
    together = book.label(["text"], [vectors])
    mean = book.label(["text"], [unit(vectors.mean(axis=0))[None]])
    np.testing.assert_allclose(together.scores, mean.scores, atol=1e-6)


def test_no_label_set_no_labels() -> None:
    assert len(LabelBook(1, (), 20.0, None).label(["image"], [unit(np.ones((1, 8)))]).rows) == 0


def test_the_shipped_sets(sql: Sql) -> None:
    rows = sql("SELECT name, applies_to, active FROM pgclip.label_set ORDER BY name")
    assert rows == [("general", "both", True), ("moderation", "both", True)]


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
    client.define_label_set("mine", ["x", "w"], templates=["{}!"], top_k=3, threshold=0)
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
