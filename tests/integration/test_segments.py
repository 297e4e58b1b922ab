"""Segments: closed, built, exchanged and dropped."""

from collections.abc import Callable

import pytest
from support.databases import assert_ledger_is_true
from support.shelf import DIMENSION, Shelf, texts, vector_of

from pgclip.database import Database
from pgclip.searching import segments
from pgclip.searching.segments import Maintenance
from pgclip.settings import Settings


def test_full_segments_get_an_index_and_small_ones_stay_exact(
    shelf: Shelf, maintenance: Maintenance, connections: Database
) -> None:
    shelf.put(texts(0, 50))
    maintenance.run()
    assert shelf.states() == {1: "hot"}
    shelf.put(texts(50, 150))
    maintenance.run()
    assert shelf.states() == {1: "retired", 2: "hot", 3: "sealed"}
    shelf.put(texts(150, 160))
    for n in (3, 120, 155):
        assert shelf.nearest(f"text {n}") == f"k{n}"
    shown = {each.number: each for each in segments.segments(connections)}
    assert shown[3].vectors == 150
    assert shown[3].index_bytes > shown[2].index_bytes
    assert shown[1].retired_at is not None


def test_replacing_and_deleting_is_the_same_wherever_a_vector_lives(
    shelf: Shelf, maintenance: Maintenance, database_url: str
) -> None:
    shelf.put(texts(0, 120))
    maintenance.run()
    shelf.put(texts(120, 130))
    shelf.put({"k5": "another text", "k125": "one more"})
    shelf.delete("k6", "k126")
    assert shelf.nearest("another text") == "k5"
    assert shelf.nearest("one more") == "k125"
    keys = {row[0] for row in shelf.sql(
        "SELECT key FROM pgclip.search_vector(%s::halfvec, k => 1000)", vector_of("text 6"))
    }  # fmt: skip
    assert keys == {f"k{n}" for n in range(130)} - {"k6", "k126"}
    assert_ledger_is_true(database_url)


def test_what_is_deleted_while_the_copy_is_built_does_not_come_back(
    shelf: Shelf, maintenance: Maintenance, database_url: str
) -> None:
    shelf.put(texts(0, 120))
    shelf.sql("SELECT pgclip.close_segment(1::smallint, 100)")
    assert shelf.sql("SELECT pgclip.build_segment(1::smallint, '{1}', '64MB', 0)") == [([3],)]
    shelf.delete("k7")
    shelf.put({"k8": "a replacement"})
    assert shelf.sql("SELECT pgclip.announce_segments(1::smallint)") == [(True,)]
    shelf.delete("k9")
    assert shelf.sql("SELECT pgclip.exchange_segments(1::smallint)") == [([3],)]
    assert shelf.nearest("text 7") != "k7"
    assert shelf.nearest("a replacement") == "k8"
    assert_ledger_is_true(database_url)


@pytest.mark.parametrize(
    ("sealed", "closed", "quiet", "expected"),
    [
        ([], [1], False, [1]),
        ([20, 20, 20], [], False, None),
        ([20, 20, 20, 20], [], False, [10, 11, 12, 13]),
        ([20, 20, 20, 80], [], False, [10, 11, 12, 13]),
        ([20, 20, 20, 200], [], False, None),
        ([20, 20, 20, 200], [1], False, [1]),
        ([20, 20, 20, 200], [], True, [10, 11, 12, 13]),
        ([20, 20, 200], [], True, [10, 11]),
        ([20, 200], [], True, None),
        ([60, 200], [], True, [10, 11]),
        ([60, 205], [], True, None),  # more than fits into memory
        ([60, 60, 60, 60, 60], [], False, [10, 11, 12, 13]),
        ([1, 10, 100, 1000, 10000, 100000], [1], False, [10, 11]),  # six are allowed
        ([20, 20, 20, 20, 20, 20], [1], False, [10, 11, 12, 13, 14, 15]),
    ],
)
def test_what_is_built_next(
    shelf: Shelf, sealed: list[int], closed: list[int], quiet: bool, expected: list[int] | None
) -> None:
    if closed:
        shelf.sql("UPDATE pgclip.segment SET state = 'closed'")
        shelf.sql("INSERT INTO pgclip.segment (model_id, number, state) VALUES (1, 2, 'hot')")
    if quiet:
        shelf.sql("UPDATE pgclip.segment SET created_at = now() - interval '2 min'")
    for number, rows in enumerate(sealed, 10):
        shelf.sql(
            "INSERT INTO pgclip.segment (model_id, number, state, kind, rows) "
            "VALUES (1, %s, 'sealed', 'text', %s)", number, rows,
        )  # fmt: skip
        shelf.sql("SELECT pgclip._create_segment_table(1::smallint, %s)", number)
        shelf.sql(f"SELECT pgclip._index_vectors('pgclip.embedding_1_{number}', true, 'leads')")
    fits = 261 * (2 * DIMENSION + 720)  # rows
    assert shelf.sql("SELECT pgclip.next_build(1::smallint, 6, 0.2, 0, %s)", fits) == [(expected,)]


def test_each_kind_has_indexes_of_its_own(shelf: Shelf, maintenance: Maintenance) -> None:
    shelf.put(texts(0, 120))
    shelf.sql("UPDATE pgclip.embedding_1_1 SET kind = 'image' WHERE id % 3 = 0")
    maintenance.run()
    kinds = "SELECT kind, rows FROM pgclip.segment WHERE state = 'sealed' ORDER BY kind"
    assert shelf.sql(kinds) == [("image", 40), ("text", 80)]
    shelf.put(texts(120, 240))
    maintenance.run()
    assert shelf.sql(kinds) == [("image", 40), ("text", 80), ("text", 120)]


def test_a_table_of_dead_rows_is_closed_too(shelf: Shelf, maintenance: Maintenance) -> None:
    """One that a foreign snapshot let grow; a vacuum would not make it shorter."""
    for n in range(5):
        shelf.put({f"k{key}": f"text {n} {key}" for key in range(60)})
    maintenance.run()
    assert sorted(shelf.states().values()) == ["hot", "retired", "sealed"]


def test_memory_that_is_too_little_for_an_index_is_told(
    shelf: Shelf, database_url: str, connections: Database, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings.load(database_url=database_url, segment_rows=100, build_memory=2**20)
    shelf.sql(
        """INSERT INTO pgclip.embedding_1_1 (item_id, collection_id, kind, embedding)
           SELECT n, 1, 'text', l2_normalize(ARRAY(
               SELECT random() - 0.5 FROM generate_series(1, 8) d WHERE n > 0)::vector)::halfvec
           FROM generate_series(1, 3000) n"""
    )
    Maintenance(settings, connections, 1).run()
    assert list(shelf.states().values()) == ["retired", "hot", "sealed"]
    assert "segments [3] needs more memory than PGCLIP_BUILD_MEMORY, 1 MiB" in caplog.text


def test_in_a_burst_building_waits_a_while(
    shelf: Shelf, database_url: str, connections: Database
) -> None:
    settings = Settings.load(database_url=database_url, segment_rows=100)
    patient = Maintenance(settings, connections, 1, patience=300)
    shelf.put(texts(0, 100))
    patient.run()
    assert shelf.states() == {1: "closed", 2: "hot"}  # closed a moment ago
    shelf.put(texts(100, 200))
    patient.run()
    assert shelf.states() == {1: "closed", 2: "closed", 3: "hot"}
    shelf.put(texts(200, 300))  # as many as it has patience with
    patient.run()
    assert shelf.states() == {1: "retired", 2: "retired", 3: "retired", 4: "hot", 5: "sealed"}
    shelf.put(texts(300, 400))
    patient.run()
    assert shelf.states()[4] == "closed"
    shelf.sql("UPDATE pgclip.segment SET created_at = now() - interval '11 s' WHERE state = 'hot'")
    patient.run()  # the burst is over
    assert shelf.states()[4] == "retired"


def test_a_segment_worn_by_deletions_is_built_anew(shelf: Shelf, maintenance: Maintenance) -> None:
    shelf.put(texts(0, 120))
    maintenance.run()
    shelf.delete(*(f"k{n}" for n in range(30)))
    shelf.sql("SELECT pg_stat_force_next_flush()")
    maintenance.run()
    assert shelf.states()[3] == "retired"
    assert shelf.sql("SELECT rows FROM pgclip.segment WHERE state = 'sealed'") == [(90,)]
    assert shelf.nearest("text 70") == "k70"


def test_one_process_at_a_time(
    shelf: Shelf, new_shelf: Callable[[], Shelf], maintenance: Maintenance
) -> None:
    shelf.put(texts(0, 120))
    other = new_shelf()
    other.sql("BEGIN; SELECT pg_advisory_xact_lock(731199448, 1)")
    maintenance.run()
    assert shelf.states() == {1: "hot"}
    other.sql("COMMIT")
    maintenance.run()
    assert shelf.states()[3] == "sealed"
