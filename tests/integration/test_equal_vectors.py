"""Equal vectors are one point of an index, and each of their items is found, in order, and goes."""

import threading
from random import Random
from typing import Any

import pytest
from support.databases import assert_ledger_is_true
from support.shelf import Shelf, assert_as_exact, found, texts, vector_of

from pgclip.searching.segments import Maintenance

SAME = "no description available"
LEADERS = "SELECT twins, count(*) FROM pgclip.embedding_1_3 WHERE leads AND twins IS NOT NULL"


@pytest.fixture
def flood(shelf: Shelf, maintenance: Maintenance) -> Shelf:
    """Two hundred of one text between a hundred others and three of another, in one segment."""
    shelf.put(texts(0, 50))
    shelf.put({f"s{n:03}": SAME for n in range(200)})
    shelf.put(texts(50, 100))
    shelf.put({f"t{n}": "three of these" for n in range(3)})
    shelf.sql("UPDATE pgclip.item SET metadata = jsonb_build_object('n', id)")
    maintenance.run()
    assert shelf.states() == {1: "retired", 2: "hot", 3: "sealed"}
    return shelf


def test_one_of_them_is_in_the_index(flood: Shelf) -> None:
    assert sorted(count for _, count in flood.sql(f"{LEADERS} GROUP BY twins")) == [1, 1]
    assert flood.sql("SELECT count(*) FROM pgclip.embedding_1_3 WHERE leads") == [(102,)]
    (definition,) = flood.sql("SELECT indexdef FROM pg_indexes WHERE indexdef LIKE '%hnsw%'")[0]
    assert definition.endswith("WHERE leads")


@pytest.mark.parametrize("asked", [SAME, "three of these", "text 7", "something else"])
@pytest.mark.parametrize(
    "options",
    [
        {"k": 10}, {"k": 60}, {"k": 303}, {"kind": "'text'"}, {"collection": "'default'"},
        {"filter": """'{"n": {"gt": 240}}'"""}, {"filter": """'{"n": {"in": [60, 61, 230]}}'"""},
        {"filter": """'{"$key": "s150"}'"""}, {"min_score": "0.99"},
    ],
    ids=str,
)  # fmt: skip
def test_all_are_found_in_order(flood: Shelf, asked: str, options: dict[str, Any]) -> None:
    assert_as_exact(flood, asked, **{"k": 40, **options})


@pytest.mark.parametrize("size", [1, 7, 60])
def test_pages_go_through_them(flood: Shelf, size: int) -> None:
    whole = flood.sql("SELECT item_id, key, score FROM pgclip.search_vector(%s::halfvec, k => 303,"
                      " exact => true)", vector_of(SAME))  # fmt: skip
    pages: list[Any] = []
    while len(pages) < (303 if size > 1 else 20):
        after = f", after_score => {pages[-1][2]!r}, after_item => {pages[-1][0]}" if pages else ""
        page = flood.sql("SELECT item_id, key, score FROM pgclip.search_vector(%s::halfvec,"
                         f" k => {size}{after})", vector_of(SAME))  # fmt: skip
        assert page
        pages += page
    assert pages == whole[: len(pages)]


def test_similar_and_duplicates(flood: Shelf) -> None:
    similar = flood.sql("SELECT key FROM pgclip.similar('s007', k => 10)")
    assert similar == [(f"s{n:03}",) for n in range(11) if n != 7]
    twins = flood.sql("SELECT key, tier FROM pgclip.duplicates_of('t1', min_score => 0.999)")
    assert twins == [("t0", "identical"), ("t2", "identical")]
    groups = flood.sql('SELECT "group", count(*) FROM pgclip.duplicate_groups(min_score => 0.999)'
                       " GROUP BY 1")  # fmt: skip
    assert sorted(count for _, count in groups) == [3, 200]


def test_another_leads_when_the_one_that_did_is_gone(
    flood: Shelf, maintenance: Maintenance, database_url: str
) -> None:
    random = Random(3)
    for _ in range(12):
        leading = flood.sql("SELECT i.key FROM pgclip.embedding_1_3 v JOIN pgclip.item i"
                            " ON i.id = v.item_id WHERE leads AND twins IS NOT NULL")  # fmt: skip
        assert len(leading) == 2 or len(leading) == 1
        for (key,) in leading:
            if random.random() < 0.7:
                flood.delete(key)
            else:
                flood.put({key: f"{key} has become another"})
        for asked in (SAME, "three of these"):
            assert_as_exact(flood, asked, k=20)
    flood.sql("SELECT pgclip.delete_items(keys => %s)", [f"s{n:03}" for n in range(0, 150)])
    assert_as_exact(flood, SAME, k=100)
    flood.sql("SELECT pgclip.delete_items(keys => %s)", [f"s{n:03}" for n in range(150, 200)])
    assert_as_exact(flood, SAME, k=100)
    maintenance.run()
    assert_as_exact(flood, SAME, k=100)
    assert_ledger_is_true(database_url)


def test_deleted_while_their_segment_is_copied(
    shelf: Shelf, maintenance: Maintenance, database_url: str
) -> None:
    shelf.put({f"s{n:03}": SAME for n in range(120)})
    shelf.sql("SELECT pgclip.close_segment(1::smallint, 100)")
    shelf.sql("SELECT pgclip.build_segment(1::smallint, '{1}', '64MB', 0)")
    shelf.delete(*(f"s{n:03}" for n in range(0, 60)))
    shelf.sql("SELECT pgclip.announce_segments(1::smallint)")
    shelf.delete("s060", "s061")
    shelf.sql("SELECT pgclip.exchange_segments(1::smallint)")
    assert flood_leaders(shelf) == 1
    assert_as_exact(shelf, SAME, k=100)
    assert found(shelf, SAME, k=1)[0][0] == "s062"
    assert_ledger_is_true(database_url)


def flood_leaders(shelf: Shelf) -> int:
    return int(shelf.sql("SELECT count(*) FROM pgclip.embedding_1_3 WHERE leads")[0][0])


def test_two_who_delete_at_once_leave_one_that_leads(
    flood: Shelf, new_shelf: Any, database_url: str
) -> None:
    """One deletes the leader, the other whoever would be next."""
    for number in range(6):
        others = [new_shelf(), new_shelf()]
        keys = [key for (key,) in flood.sql(
            "SELECT i.key FROM pgclip.embedding_1_3 v JOIN pgclip.item i ON i.id = v.item_id"
            " JOIN (SELECT twins FROM pgclip.embedding_1_3 GROUP BY 1 HAVING count(*) > 20) g"
            " USING (twins) ORDER BY NOT leads, v.item_id LIMIT 4")]  # fmt: skip
        halves = (keys[::2], keys[1::2])
        deleting = [threading.Thread(target=other.delete, args=half)
                    for other, half in zip(others, halves, strict=True)]  # fmt: skip
        for each in deleting:
            each.start()
        for each in deleting:
            each.join()
        counts = flood.sql(f"{LEADERS} GROUP BY twins")
        assert sorted(count for _, count in counts) == [1, 1], number
    assert_as_exact(flood, SAME, k=30)
    assert_ledger_is_true(database_url)


def test_windows_that_are_alike_count_once(shelf: Shelf, maintenance: Maintenance) -> None:
    """An item with seventy equal vectors does not hide the others that have the same."""
    shelf.put(texts(0, 100))
    shelf.put({"long": SAME, "short": SAME, "other": SAME})
    shelf.sql("""
        WITH more AS (
            INSERT INTO pgclip.embedding_1_1 (item_id, collection_id, kind, embedding)
            SELECT v.item_id, v.collection_id, v.kind, v.embedding
            FROM pgclip.embedding_1_1 v JOIN pgclip.item i ON i.id = v.item_id
            CROSS JOIN generate_series(1, 70) WHERE i.key = 'long' RETURNING id, item_id)
        UPDATE pgclip.embedding_set s SET vector_ids = vector_ids || ARRAY(SELECT id FROM more)
        WHERE item_id = (SELECT item_id FROM more LIMIT 1)
    """)
    maintenance.run()
    assert [key for key, _ in found(shelf, SAME, k=3)] == ["long", "short", "other"]
    assert_as_exact(shelf, SAME, k=20)


def test_a_segment_from_before_or_built_in_haste_is_built_anew_in_quiet_times(
    flood: Shelf, maintenance: Maintenance
) -> None:
    hnsw = "SELECT indexdef FROM pg_indexes WHERE indexdef LIKE '%%hnsw%%' AND tablename = %s"
    flood.sql("UPDATE pgclip.segment SET has_twins = false WHERE number = 3")
    flood.sql("UPDATE pgclip.embedding_1_3 SET leads = true, twins = NULL")
    assert_as_exact(flood, "text 7", k=20)
    maintenance.run()
    assert flood.states()[3] == "sealed"
    assert "ef_construction='64'" in flood.sql(hnsw, "embedding_1_3")[0][0]
    flood.sql("UPDATE pgclip.segment SET created_at = now() - interval '2 min' WHERE state = 'hot'")
    maintenance.run()
    assert flood.states() == {1: "retired", 2: "hot", 3: "retired", 4: "sealed"}
    assert "m='16', ef_construction='800'" in flood.sql(hnsw, "embedding_1_4")[0][0]
    assert_as_exact(flood, SAME, k=250)
    maintenance.run()
    assert flood.states()[4] == "sealed"


def test_others_are_found_by_an_index(flood: Shelf) -> None:
    """And where none are equal nothing is looked for."""
    ((others,),) = flood.sql("SELECT others FROM pgclip._points(1::smallint, NULL, NULL)")
    flood.sql("SET enable_seqscan = off")
    look = f"EXPLAIN SELECT item_id FROM {others} n WHERE n.twins = 5 ORDER BY item_id LIMIT 40"
    assert "Index" in str(flood.sql(look))
    assert "twins_item_id" in str(flood.sql(look))
    flood.sql("UPDATE pgclip.segment SET has_twins = false")
    ((others,),) = flood.sql("SELECT others FROM pgclip._points(1::smallint, NULL, NULL)")
    assert "WHERE false)" in others
