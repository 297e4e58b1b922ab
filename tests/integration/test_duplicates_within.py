"""Groups of duplicates within a collection, by an index made for it, or where none may be."""

from collections.abc import Callable
from typing import Any

import psycopg2
import pytest
from support.shelf import Shelf

from pgclip.searching.segments import Maintenance

GROUPS = (
    "SELECT \"group\", key, tier FROM pgclip.duplicate_groups(collection => 'default',"
    " min_score => 0.99) ORDER BY 1, 2"
)


@pytest.fixture
def shots(shelf: Shelf, maintenance: Maintenance) -> Shelf:
    """Of fifty things one shot, of two of them five, one twice; a part has an index."""
    shelf.put({f"k{n}": f"text {n}" for n in range(50)})
    shelf.put({f"a{n}": f"text 3 ~ {n}" for n in range(4)} | {"a4": "text 3 ~ 0"})
    maintenance.run()
    shelf.put({f"b{n}": f"text 17 ~ {n}" for n in range(5)})
    return shelf


def test_they_are_the_same_where_nothing_may_be_written(shots: Shelf, database_url: str) -> None:
    found = shots.sql(GROUPS)
    assert {key for number, key, _ in found if number == 1} == {"k3", *(f"a{n}" for n in range(5))}
    assert {key for number, key, _ in found if number == 2} == {"k17", *(f"b{n}" for n in range(5))}
    assert {key for _, key, tier in found if tier == "identical"} == {"a0", "a4"}
    with psycopg2.connect(database_url) as other:
        other.set_session(readonly=True)
        with other.cursor() as cursor:
            cursor.execute(GROUPS)
            assert cursor.fetchall() == found
    other.close()


def test_nothing_is_left_of_the_index(shots: Shelf) -> None:
    shots.sql("BEGIN")
    before = shots.sql("SELECT current_setting('hnsw.ef_search', true)")
    shots.sql(GROUPS)
    shots.sql(GROUPS)
    assert shots.sql("SELECT current_setting('hnsw.ef_search', true)") == before
    shots.sql("COMMIT")
    left = "SELECT count(*) FROM pg_class WHERE relname LIKE 'duplicates_%%' AND relkind = 'r'"
    assert shots.sql(left) == [(0,)]


def test_a_collection_that_is_not_there(shots: Shelf, sql: Callable[..., list[Any]]) -> None:
    with pytest.raises(psycopg2.Error, match="there is no collection named nix"):
        sql("SELECT * FROM pgclip.duplicate_groups(collection => 'nix')")
