"""Exact search in SQL, on planted vectors."""

from collections.abc import Callable
from typing import Any

import numpy as np
import psycopg2
import pytest

from pgclip import Client, InvalidItem, NotFound, QueryFailed

Sql = Callable[..., list[Any]]
DIMENSION = 8


@pytest.fixture(scope="module")
def vectors() -> "np.ndarray[Any, np.dtype[np.float64]]":
    values = np.random.default_rng(1).standard_normal((40, DIMENSION))
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True))


@pytest.fixture(autouse=True)
def planted(sql: Sql, vectors: "np.ndarray[Any, Any]") -> None:
    """Items i0 to i39 in collections even and odd, i0 to i19 pictures, stored as a worker would."""
    sql("SELECT pgclip.register_model('m', 8, 10, '{\"fatal\": {}}')")
    for n in range(40):
        name, collection = f"i{n}", ("even", "odd")[n % 2]
        if n < 20:
            sql(
                "SELECT pgclip.submit_image(%s, %s, collection => %s)",
                name,
                name.encode(),
                collection,
            )
        else:
            sql("SELECT pgclip.submit_text(%s, %s, collection => %s)", name, name, collection)
    (worker,) = sql("SELECT pgclip.sign_on(1::smallint, 'h', 1, 'cpu', 'f', 64, 60)")[0]
    lease = "00000000-0000-0000-0000-000000000001"
    jobs = sql("SELECT * FROM pgclip.claim(%s, %s, 64, 1000000)", worker, lease)
    sql("SELECT pgclip.open_results()")
    rows = [(job[0], str(vectors[int(job[3][1:])].tolist())) for job in jobs]
    # i7 has a second vector: the one of i30, turned round.
    rows += [(job[0], str((-vectors[30]).tolist())) for job in jobs if job[3] == "i7"]
    sql(
        "BEGIN; INSERT INTO pg_temp.staged_vector SELECT unnest(%s), unnest(%s)::halfvec;"
        "SELECT pgclip.store(%s, (SELECT epoch FROM pgclip.label_epoch), %s, %s, '[]'); COMMIT",
        [job for job, _ in rows], [vector for _, vector in rows], lease,
        [job[0] for job in jobs], [bytes(job[5]) for job in jobs],
    )  # fmt: skip


def search(sql: Sql, vector: Any, rest: str = "") -> list[tuple[str, float]]:
    statement = f"SELECT key, score FROM pgclip.search_vector(%s::halfvec{rest})"
    return [(key, score) for key, score in sql(statement, str(vector.tolist()))]


def test_the_answer_is_numpys(sql: Sql, vectors: "np.ndarray[Any, Any]") -> None:
    query = np.random.default_rng(2).standard_normal(DIMENSION)
    query /= np.linalg.norm(query)
    scores = vectors @ query
    scores[7] = max(scores[7], -vectors[30] @ query)
    best = np.argsort(-scores)[:10]
    hits = search(sql, query)
    assert [key for key, _ in hits] == [f"i{n}" for n in best]
    np.testing.assert_allclose([score for _, score in hits], scores[best], atol=2e-3)
    # The length of the query does not matter.
    assert [key for key, _ in search(sql, 3 * query)] == [key for key, _ in hits]


def test_an_item_with_two_vectors_counts_once(sql: Sql, vectors: "np.ndarray[Any, Any]") -> None:
    hits = search(sql, -vectors[30], ", k => 40")
    assert hits[0][0] == "i7"
    assert hits[0][1] == pytest.approx(1, abs=1e-3)
    assert sorted(key for key, _ in hits) == sorted(f"i{n}" for n in range(40))


def test_collections_and_kinds(sql: Sql, vectors: "np.ndarray[Any, Any]") -> None:
    odd = search(sql, vectors[3], ", k => 40, collection => 'odd'")
    assert odd[0] == ("i3", pytest.approx(1, abs=1e-3))
    assert {key for key, _ in odd} == {f"i{n}" for n in range(1, 40, 2)}
    texts = search(sql, vectors[3], ", k => 40, kind => 'text', collection => 'even'")
    assert {key for key, _ in texts} == {f"i{n}" for n in range(20, 40, 2)}


def test_similar_leaves_the_item_itself_out(
    client: Client, vectors: "np.ndarray[Any, Any]"
) -> None:
    hits = client.search(like="i3", collection="odd", k=3)
    scores = {n: float(vectors[n] @ vectors[3]) for n in range(1, 40, 2) if n != 3}
    scores[7] = max(scores[7], float(-vectors[30] @ vectors[3]))
    assert [hit.key for hit in hits] == [f"i{n}" for n in sorted(scores, key=lambda n: -scores[n])][
        :3
    ]
    assert {hit.collection for hit in hits} == {"odd"}


@pytest.mark.parametrize(
    ("arguments", "sqlstate", "message"),
    [
        ("'[1,0,0,0,0,0,0,0]', k => 0", "PC001", "k must be from 1 to 10000, not 0"),
        ("'[1,0,0,0,0,0,0,0]', k => 1000000", "PC001", "k must be from 1 to 10000"),
        ("'[1,0]'", "PC001", "the query has 2 dimensions, model m has 8"),
        ("'[0,0,0,0,0,0,0,0]'", "PC001", "the query vector is zero"),
        ("'[1,0,0,0,0,0,0,0]', collection => 'x'", "PC002", "no collection named x"),
    ],
)
def test_what_makes_no_sense(sql: Sql, arguments: str, sqlstate: str, message: str) -> None:
    with pytest.raises(psycopg2.Error, match=message) as caught:
        sql(f"SELECT * FROM pgclip.search_vector({arguments})")
    assert caught.value.pgcode == sqlstate


def test_queries_of_the_client_that_make_no_sense(client: Client) -> None:
    with pytest.raises(InvalidItem, match="search for one of"):
        client.search("a", like="b")
    with pytest.raises(InvalidItem, match="the query is blank"):
        client.search("  ")
    with pytest.raises(InvalidItem, match="a query is a str, not int"):
        client.search(5)  # type: ignore[arg-type]
    with pytest.raises(InvalidItem, match="No such file"):
        client.search(image=__import__("pathlib").Path("/no/such.jpg"))
    with pytest.raises(NotFound, match="no item nix in collection default"):
        client.search(like="nix")


def test_no_worker_alive_for_a_query(client: Client, sql: Sql) -> None:
    sql("DELETE FROM pgclip.worker")
    with pytest.raises(QueryFailed, match=r"no worker is alive .*Start one: pgclip worker"):
        client.search("a cat", timeout=0.3)
    with pytest.raises(psycopg2.Error, match="not there yet") as caught:
        sql("SELECT * FROM pgclip.search('a dog')")
    assert "CALL pgclip.embed" in (caught.value.diag.message_hint or "")


def test_query_vectors_expire(sql: Sql) -> None:
    for n in range(5):
        sql("SELECT pgclip.request_embedding(%s)", f"q{n}")
        sql("SELECT pgclip.answer_query(1::smallint, 'text', sha256(%s), %s)",
            f"q{n}".encode(), [1.0] + [0.0] * 7)  # fmt: skip
    assert sql("SELECT pgclip.request_embedding('q4')") == [(True,)]
    sql("SELECT pgclip.expire_queries(2, 0, 30)")
    assert sql("SELECT count(*) FROM pgclip.query_vector") == [(2,)]
    assert sql("SELECT pgclip.request_embedding('q0')") == [(False,)]


def test_a_query_whose_worker_died_is_taken_again(sql: Sql) -> None:
    sql("SELECT pgclip.request_embedding('q')")
    take = "SELECT kind FROM pgclip.take_queries(1::smallint, 5)"
    assert sql(take) == [("text",)]
    assert sql(take) == []
    sql("UPDATE pgclip.query_request SET taken_at = taken_at - interval '3 s'")
    assert sql(take) == [("text",)]


def test_a_rare_word_is_found_among_many_that_have_a_common_one(sql: Sql) -> None:
    for n in range(2100):
        sql("SELECT pgclip.submit_text(%s, %s)", f"a red thing, the {n}th", f"red-{n}")
    for key, text in {"rare": "a red xylophone", "rarer": "one harpsichord"}.items():
        sql("SELECT pgclip.submit_text(%s, %s)", text, key)
    # As if they had vectors: those of i30.
    sql(
        "INSERT INTO pgclip.embedding_set (item_id, model_id, generation, kind, content_hash, "
        "vector_ids) SELECT i.id, 1, 1, 'text', i.content_hash, e.vector_ids FROM pgclip.item i, "
        "pgclip.embedding_set e JOIN pgclip.item o ON o.id = e.item_id AND o.key = 'i30' "
        "WHERE i.key LIKE 'r%'"
    )
    for query, key in {"a red xylophone": "rare", "red harpsichord, a red one": "rarer"}.items():
        sql("SELECT pgclip.request_embedding(%s)", query)
        sql("SELECT pgclip.answer_query(1::smallint, kind, hash, '{1,0,0,0,0,0,0,0}') "
            "FROM pgclip.query_request")  # fmt: skip
        by_words = "SELECT key FROM pgclip.hybrid(%s, k => 50) ORDER BY text_rank LIMIT 5"
        assert (key,) in sql(by_words, query)


def test_words_that_are_odd(sql: Sql) -> None:
    for query in (r"it's a \ backslash", "https://example.org/a?b=c&d", "x'y'' | & ! (", "the"):
        sql("SELECT ranking @@ to_tsvector(%s) FROM pgclip._words_wanted(%s)", query, query)
    url = "https://example.org/a?b=c"
    wanted = "SELECT to_tsvector('see example.org') @@ ranking FROM pgclip._words_wanted(%s)"
    assert sql(wanted, url) == [(True,)]
