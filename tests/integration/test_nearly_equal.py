"""Nearly equal vectors are few points of an index; each is found by its own distance."""

import threading
from random import Random
from typing import Any

import pytest
from support.databases import assert_ledger_is_true
from support.shelf import Shelf, assert_as_exact, texts, vector_of

from pgclip.searching.segments import Maintenance

LEADING = (
    "SELECT i.key, v.cluster FROM pgclip.embedding_1_3 v JOIN pgclip.item i ON i.id = v.item_id"
    " WHERE leads AND cluster IS NOT NULL"
)


@pytest.fixture
def throng(shelf: Shelf, maintenance: Maintenance) -> Shelf:
    """Two hundred shots of one thing between a hundred others, some of the shots equal."""
    shelf.put(texts(0, 50))
    shelf.put({f"s{n:03}": f"shot ~ {n}" for n in range(180)})
    shelf.put({f"t{n:02}": "shot ~ 7" for n in range(20)})
    shelf.put(texts(50, 100))
    shelf.sql("UPDATE pgclip.item SET metadata = jsonb_build_object('n', id)")
    maintenance.run()
    assert shelf.states() == {1: "retired", 2: "hot", 3: "sealed"}
    return shelf


def assert_clusters_are_led(shelf: Shelf) -> None:
    """Each cluster by one, and each set of twins by one that has a place in the graph."""
    groups = "SELECT count(*) FILTER (WHERE {}) FROM pgclip.embedding_1_3 WHERE {} GROUP BY {}"
    of_clusters = shelf.sql(groups.format("leads", "cluster IS NOT NULL", "cluster"))
    stands = "leads OR cluster IS NOT NULL"
    of_twins = shelf.sql(groups.format(stands, "twins IS NOT NULL", "twins"))
    assert {count for (count,) in of_clusters} <= {1, 2}  # two, once twins have lost their first
    assert all(count >= 1 for (count,) in of_clusters + of_twins)


def test_few_of_them_are_in_the_index_and_clusters_are_small(throng: Shelf) -> None:
    ((points,),) = throng.sql("SELECT count(*) FROM pgclip.embedding_1_3 WHERE leads")
    assert 100 < points < 200
    sizes = throng.sql("SELECT count(*) FROM pgclip.embedding_1_3 WHERE cluster IS NOT NULL"
                       " GROUP BY cluster")  # fmt: skip
    assert sizes
    assert max(sizes)[0] <= 32
    assert_clusters_are_led(throng)


@pytest.mark.parametrize("asked", ["shot", "shot ~ 7", "shot ~ 99", "text 7", "something else"])
@pytest.mark.parametrize(
    "options",
    [
        {"k": 10}, {"k": 60}, {"k": 300}, {"kind": "'text'"}, {"collection": "'default'"},
        {"filter": """'{"n": {"gt": 240}}'"""}, {"filter": """'{"n": {"in": [60, 61, 230]}}'"""},
        {"filter": """'{"$key": "s150"}'"""}, {"min_score": "0.99"},
    ],
    ids=str,
)  # fmt: skip
def test_all_are_found_in_order(throng: Shelf, asked: str, options: dict[str, Any]) -> None:
    assert_as_exact(throng, asked, **{"k": 40, **options})


@pytest.mark.parametrize("size", [1, 7, 60])
def test_pages_go_through_them(throng: Shelf, size: int) -> None:
    search = "SELECT item_id, key, score FROM pgclip.search_vector(%s::halfvec"
    whole = throng.sql(f"{search}, k => 300, exact => true)", vector_of("shot"))
    pages: list[Any] = []
    while len(pages) < (300 if size > 1 else 30):
        after = f", after_score => {pages[-1][2]!r}, after_item => {pages[-1][0]}" if pages else ""
        page = throng.sql(f"{search}, k => {size}{after})", vector_of("shot"))
        assert page
        pages += page
    assert pages == whole[: len(pages)]


def test_followers_are_found_by_an_index(throng: Shelf) -> None:
    """And where none are nearly equal nothing is looked for."""
    of = "SELECT followers FROM pgclip._points(1::smallint, NULL, NULL)"
    throng.sql("SET enable_seqscan = off")
    look = f"EXPLAIN SELECT * FROM {throng.sql(of)[0][0]} f WHERE f.cluster = 5 LIMIT 32"
    assert "_cluster_idx" in str(throng.sql(look))
    throng.sql("UPDATE pgclip.segment SET has_clusters = false")
    assert "WHERE false)" in throng.sql(of)[0][0]


def test_others_lead_when_those_that_did_are_gone(
    throng: Shelf, maintenance: Maintenance, database_url: str
) -> None:
    random = Random(3)
    for _ in range(8):
        for key, _ in throng.sql(LEADING):
            if random.random() < 0.7:
                throng.delete(key)
            else:
                throng.put({key: f"{key} has become another"})
        assert_clusters_are_led(throng)
        for asked in ("shot", "shot ~ 7"):
            assert_as_exact(throng, asked, k=20)
    throng.sql("SELECT pgclip.delete_items(keys => %s)", [f"t{n:02}" for n in range(20)])
    assert_clusters_are_led(throng)
    assert_as_exact(throng, "shot ~ 7", k=100)
    maintenance.run()
    assert_as_exact(throng, "shot ~ 7", k=100)
    assert_ledger_is_true(database_url)


def test_deleted_while_their_segment_is_copied(shelf: Shelf, database_url: str) -> None:
    shelf.put({f"s{n:03}": f"shot ~ {n % 60}" for n in range(120)})
    shelf.sql("SELECT pgclip.close_segment(1::smallint, 100)")
    shelf.sql("SELECT pgclip.build_segment(1::smallint, '{1}', '64MB', 0)")
    leading = [key for key, _ in shelf.sql(LEADING)]
    assert leading
    shelf.delete(*leading)
    shelf.sql("SELECT pgclip.announce_segments(1::smallint)")
    shelf.sql("SELECT pgclip.exchange_segments(1::smallint)")
    assert_clusters_are_led(shelf)
    assert_as_exact(shelf, "shot", k=100)
    assert_ledger_is_true(database_url)


def test_two_who_delete_at_once_leave_one_that_leads(
    throng: Shelf, new_shelf: Any, database_url: str
) -> None:
    """One deletes leaders, the other those that would be next."""
    next_ones = (
        "SELECT DISTINCT ON (cluster) i.key FROM pgclip.embedding_1_3 v"
        " JOIN pgclip.item i ON i.id = v.item_id WHERE cluster IS NOT NULL AND NOT leads"
        " ORDER BY cluster, v.item_id"
    )
    for _ in range(6):
        halves = ([key for key, _ in throng.sql(LEADING)], [k for (k,) in throng.sql(next_ones)])
        others = [new_shelf(), new_shelf()]
        deleting = [threading.Thread(target=other.delete, args=half)
                    for other, half in zip(others, halves, strict=True)]  # fmt: skip
        for each in deleting:
            each.start()
        for each in deleting:
            each.join()
        assert_clusters_are_led(throng)
    assert_as_exact(throng, "shot", k=30)
    assert_ledger_is_true(database_url)
