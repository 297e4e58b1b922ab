"""A model answers for what it has not encoded yet, by a map, where that finds enough."""

from collections.abc import Callable
from typing import Any

import pytest
from support.planted_worker import turned, vector_of
from support.processes import WorkerFactory, eventually

from pgclip import Client

Sql = Callable[..., list[Any]]
ALL = 600
# In time for questions before all is filled.
SLOW = {"PGCLIP_MODEL_NAME": "new", "PLANTED_PACE": "0.02", "PGCLIP_BATCH_SIZE": "8"}
STATE = "SELECT state FROM pgclip.model_mapping"


@pytest.fixture
def filled(client: Client, database_url: str, start_worker: WorkerFactory) -> Client:
    """Texts, encoded by the planted model."""
    start_worker(database_url)
    client.submit_many({"text": f"text {n}", "key": f"{n}"} for n in range(ALL)).wait(60)
    return client


def nearest(query: str, way: str) -> list[str]:
    """The keys that are nearest to a text by a model that has encoded all."""
    vectors = {f"{n}": turned(vector_of(f"text {n}".encode())[None], way, f"text {n}".encode())[0]
               for n in range(ALL)}  # fmt: skip
    asked = turned(vector_of(query.encode())[None], way, query.encode())[0]
    return sorted(vectors, key=lambda key: -float(vectors[key] @ asked))[:10]


def test_early_answers_are_those_of_the_model_itself(
    filled: Client, sql: Sql, database_url: str, start_worker: WorkerFactory
) -> None:
    filled.add_model("new", map_sample=100, map_bound=0.7)
    start_worker(database_url, **SLOW, PLANTED_TURN="near")
    eventually(lambda: sql(STATE) == [("answers",)])
    filled.pause_model("new")
    eventually(lambda: sql("SELECT count(*) FROM pgclip.job WHERE lease IS NOT NULL") == [(0,)])
    (before,) = [model for model in filled.models() if model.name == "new"]
    assert before.state == "filling"
    assert before.paused
    assert before.mapped == "answers"
    assert 100 <= before.items < ALL - 100
    found = [filled.search(f"query {n}", k=10, model="new") for n in range(20)]
    right = [
        len({hit.key for hit in hits} & set(nearest(f"query {n}", "near"))) / 10
        for n, hits in enumerate(found)
    ]
    assert sum(right) / 20 > 0.8
    marked = {hit.key: hit.mapped for hits in found for hit in hits}
    real = {key for (key,) in sql("SELECT i.key FROM pgclip.item i JOIN pgclip.embedding_set e"
                                  " ON e.item_id = i.id WHERE e.model_id = 2")}  # fmt: skip
    assert marked == {key: key not in real for key in marked}
    assert len(set(marked.values())) == 2
    (judged,) = filled.model_maps("new")
    assert judged.state == "answers"
    assert judged.source == "planted"
    assert judged.queries == 200
    # Scores of both are of one scale, pages follow each other, and items ask, too.
    whole = filled.search("query 0", k=40, model="new")
    assert [hit.score for hit in whole] == sorted((hit.score for hit in whole), reverse=True)
    pages = filled.search("query 0", k=20, model="new")
    pages += filled.search("query 0", k=20, model="new", after=pages[-1])
    assert [hit.key for hit in pages] == [hit.key for hit in whole]
    exact = filled.search("query 0", k=10, model="new", exact=True)
    assert [hit.key for hit in exact] == [hit.key for hit in whole[:10]]
    lacking = next(key for key, mapped in marked.items() if mapped)
    assert filled.search(like=lacking, k=5, model="new")
    filled.resume_model("new")
    # Promoted before it is filled it answers for all; and goes on to be filled.
    filled.promote_model("new", share=0.1, anyway=True)
    assert {hit.key for hit in filled.search("query 1")} == {hit.key for hit in found[1]}
    assert len(filled.hybrid("query 1", k=10)) == 10
    eventually(lambda: sql("SELECT count(*) FROM pgclip.embedding_set WHERE model_id = 2")
               == [(ALL,)])  # fmt: skip
    sql("UPDATE pgclip.model_mapping SET look_at = '-infinity'")
    eventually(lambda: sql(STATE) == [])
    assert [hit.key for hit in filled.search("query 0")] == nearest("query 0", "near")
    assert not any(hit.mapped for hit in filled.search("query 0"))


def test_unlike_vectors_are_refused(
    filled: Client, sql: Sql, database_url: str, start_worker: WorkerFactory
) -> None:
    filled.add_model("new", map_sample=100)
    start_worker(database_url, **SLOW, PLANTED_TURN="unlike")
    eventually(lambda: sql(STATE) == [("refused",)])
    filled.pause_model("new")
    eventually(lambda: sql("SELECT count(*) FROM pgclip.job WHERE lease IS NOT NULL") == [(0,)])
    (judged,) = filled.model_maps("new")
    assert judged.recall is not None
    assert judged.recall < 0.3
    assert "less than 0.9" in (judged.why or "")
    real = sql("SELECT count(*) FROM pgclip.embedding_set WHERE model_id = 2")[0][0]
    hits = filled.search("query 0", k=1000, model="new")
    assert 0 < len(hits) <= real < ALL
    assert not any(hit.mapped for hit in hits)


def test_shorter_vectors_have_no_map(sql: Sql, model: None) -> None:
    sql("SELECT pgclip.add_model('short')")
    sql("SELECT pgclip.register_model('short', 1, 10, '{\"fatal\": {}}')")
    assert sql("SELECT state, why FROM pgclip.model_maps") == [
        (
            "impossible",
            "its vectors are shorter, 1 numbers instead of 2: it answers when it is filled",
        )
    ]
