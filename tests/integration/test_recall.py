"""What searches find is measured, and how much they look at follows from it."""

from typing import Any

import pytest
from support.shelf import Shelf, vector_of

from pgclip.searching.segments import Maintenance

Rows = list[tuple[Any, ...]]
VIEW = "SELECT share::float, queries, recall, met_nothing, effort FROM pgclip.recall"


@pytest.fixture
def library(shelf: Shelf, maintenance: Maintenance) -> Shelf:
    """Some thousand vectors in one segment with an index."""
    shelf.sql(
        """WITH c AS (
               INSERT INTO pgclip.collection (name) VALUES ('default') RETURNING id
           ), item AS (
               INSERT INTO pgclip.item (collection_id, key, kind, source)
               SELECT (SELECT id FROM c), 'i' || n, 'image', 'file:///' || n
               FROM generate_series(1, 4000) n RETURNING id
           ), vector AS (
               INSERT INTO pgclip.embedding_1_1 (item_id, collection_id, kind, embedding)
               SELECT id, 1, 'image', l2_normalize(ARRAY(
                   SELECT (hashint8extended(id, d) % 1000)::real FROM generate_series(1, 8) d
               )::vector)::halfvec FROM item RETURNING id, item_id
           )
           INSERT INTO pgclip.embedding_set
                  (item_id, model_id, generation, kind, content_hash, vector_ids)
           SELECT item_id, 1, 1, 'image', sha256(item_id::text::bytea), ARRAY[id] FROM vector"""
    )
    maintenance.run()
    assert sorted(shelf.states().values()) == ["hot", "retired", "sealed"]
    return shelf


def ask_before(shelf: Shelf, count: int) -> None:
    """Queries of people, whose vectors are kept."""
    for n in range(count):
        shelf.sql(
            "INSERT INTO pgclip.query_vector (model_id, kind, hash, embedding)"
            " VALUES (1, 'text', sha256(%s::text::bytea), %s)", n, vector_of(f"query {n}")
        )  # fmt: skip


def measure(shelf: Shelf, now: bool = True, promise: float = 0.99) -> bool:
    return bool(shelf.sql("SELECT pgclip.measure_recall(1::smallint, %s, %s)", promise, now)[0][0])


def measured(shelf: Shelf) -> dict[float, tuple[int, float, float, int]]:
    """By share: queries, recall, met nothing, effort; of texts that ask for pictures."""
    rows = shelf.sql(VIEW + " WHERE query_kind = 'text' AND kind = 'image'")
    return {share: rest for share, *rest in rows}  # type: ignore[misc]


def effort(shelf: Shelf, *, recall: float | None = None, kinds: str = "'text', 'image'") -> Any:
    return shelf.sql(f"SELECT pgclip._effort(1::smallint, {kinds}, %s::real)", recall)[0][0]


def measure_all(shelf: Shelf, promise: float = 0.99) -> None:
    """Both directions: texts ask for pictures, and pictures do."""
    for _ in range(2):
        assert measure(shelf, promise=promise)


def test_it_is_measured_on_queries_of_people_and_under_filters(library: Shelf) -> None:
    ask_before(library, 300)
    measure_all(library)
    found = measured(library)
    assert set(found) == {1.0, 0.1, 0.01}
    assert found[1.0][0] == 150  # half of those that ask
    assert found[0.1][0] == found[0.01][0] == 20
    assert all(recall >= 0.98 and nothing == 0 for _, recall, nothing, _ in found.values())
    assert library.sql("SELECT DISTINCT asked, promise FROM pgclip.recall WHERE query_kind = 'text'"
                       ) == [(300, pytest.approx(0.99))]  # fmt: skip
    assert effort(library) == found[1.0][3]
    # Nobody asks with pictures: stored ones stand in.
    assert library.sql(
        "SELECT queries, asked FROM pgclip.recall WHERE query_kind = 'image' AND share = 1"
    ) == [(200, 0)]


def test_prompts_of_labels_stand_in_for_queries(library: Shelf) -> None:
    ask_before(library, 30)
    library.sql("SELECT pgclip.define_label_set('things', %s)", [f"thing {n}" for n in range(20)])
    library.sql(
        """INSERT INTO pgclip.label_vector (label_id, model_id, version, embedding)
           SELECT id, 1, 1, (l2_normalize(ARRAY(SELECT random() - 0.5
               FROM generate_series(1, 8) d WHERE id > 0)::vector))::real[] FROM pgclip.label"""
    )
    measure_all(library)
    asked = "SELECT queries, asked FROM pgclip.recall WHERE query_kind = 'text' AND share = 1"
    ((queries, of_people),) = library.sql(asked)
    assert queries >= 25  # half of both
    assert of_people == 30


def test_without_anything_to_ask_with_it_is_left_open(library: Shelf) -> None:
    measure_all(library)
    asked = "SELECT queries, recall, effort FROM pgclip.recall WHERE query_kind = 'text'"
    assert library.sql(asked + " AND share = 1") == [(0, None, 250)]
    assert effort(library) == 250


def test_a_graph_that_is_broken_is_seen_at_the_next_look(library: Shelf) -> None:
    ask_before(library, 300)
    measure_all(library)
    before = measured(library)[1.0]
    library.sql("UPDATE pgclip.embedding_1_3 SET leads = false WHERE id % 3 > 0")
    measure_all(library)
    _, recall, _, effort_then = measured(library)[1.0]
    assert recall < before[1] - 0.3
    assert effort_then == 1000


def test_effort_follows_the_promise_and_what_a_search_asks_for(library: Shelf) -> None:
    assert effort(library) == 250  # nothing is known yet
    library.sql(
        """INSERT INTO pgclip.direction VALUES
           (1, 'text', 'image', 160, '{60,100,160,1000}', '{0.91,0.992,0.996,0.9996}', '{9,9,9}',
            '{1,1,1}', '{0,0,0}', 9, 0.99, '{3}', now(), 1),
           (1, 'image', 'image', 400, '{60,100,400,1000}', '{0.91,0.95,0.996,1}', '{9,9,9}',
            '{1,1,1}', '{0,0,0}', 9, 0.99, '{3}', now(), 1)"""
    )
    assert effort(library) == 160
    assert effort(library, recall=0.8) == 60
    assert effort(library, recall=0.98) == 100
    assert effort(library, recall=0.999) == 1000
    assert effort(library, recall=1) is None
    assert effort(library, kinds="'image', NULL") == 400
    assert effort(library, kinds="NULL, 'image'") == 400
    assert effort(library, kinds="NULL, NULL") == 400
    # Queries that nobody measures: weighted ones, and those of which nothing is said.
    library.sql("UPDATE pgclip.direction SET effort = 60")
    assert effort(library) == 60
    assert effort(library, kinds="NULL, 'image'") == 250
    library.sql("UPDATE pgclip.direction SET effort = 160 WHERE query_kind = 'text'")
    library.sql("UPDATE pgclip.direction SET effort = 400 WHERE query_kind = 'image'")
    # Another segment, which nobody has measured yet.
    library.sql("UPDATE pgclip.direction SET segments = '{2,3}'")
    assert effort(library) == 250
    assert effort(library, recall=0.999) == 1000
    assert effort(library, kinds="'image', NULL") == 400


def test_it_takes_a_fiftieth_of_a_processor(library: Shelf) -> None:
    ask_before(library, 50)
    assert not measure(library, now=False)  # a segment has just become hot: it may be a burst
    library.sql("UPDATE pgclip.segment SET created_at = now() - interval '11 s'")
    assert measure(library, now=False)
    assert measure(library, now=False)  # nobody knew anything of this direction yet
    assert not measure(library, now=False, promise=0.999)
    library.sql("UPDATE pgclip.direction SET looked_at = looked_at - 51 * seconds * interval '1 s'")
    assert not measure(library, now=False)  # nothing has changed
    assert measure(library, now=False, promise=0.999)
    assert not measure(library, now=False, promise=0.999)  # another one has its turn later
    library.sql("UPDATE pgclip.direction SET promise = 0.99")
    library.sql("UPDATE pgclip.direction SET looked_at = looked_at - 51 * seconds * interval '1 s'")
    assert not measure(library, now=False)
    library.sql("UPDATE pgclip.direction SET looked_at = looked_at - interval '61 min'")
    assert measure(library, now=False)


def test_what_is_measured_is_no_query(library: Shelf) -> None:
    ask_before(library, 12)
    measure_all(library)
    assert library.sql("SELECT count(*) FROM pgclip.query_vector") == [(12,)]
    assert library.sql("SELECT count(*) FROM pgclip.query_request") == [(0,)]


@pytest.mark.parametrize("recall", ["0", "-1", "1.01", "'NaN'"])
def test_recall_that_is_none_is_refused(library: Shelf, recall: str) -> None:
    with pytest.raises(Exception, match="recall must be more than 0 and at most 1"):
        library.sql(f"SELECT * FROM pgclip.search_vector(%s::halfvec, recall => {recall}::real)",
                    vector_of("a"))  # fmt: skip


def test_all_there_is_can_be_asked_for(library: Shelf) -> None:
    library.sql("UPDATE pgclip.embedding_1_3 SET leads = false")
    search = "SELECT key FROM pgclip.search_vector(%s::halfvec, recall => {})"
    assert len(library.sql(search.format(1), vector_of("a"))) == 10
    assert library.sql(search.format(1), vector_of("a")) == library.sql(
        "SELECT key FROM pgclip.search_vector(%s::halfvec, exact => true)", vector_of("a")
    )
