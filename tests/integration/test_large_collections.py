"""A search within a collection looks at that one, however large it is and however far."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from support.databases import run_sql
from support.shelf import Shelf

from pgclip.searching.segments import Maintenance, maintenance_connections
from pgclip.settings import Settings

# Of each collection so many; the vectors of one lie around a point of its own.
SIZES = {"large": 9000, "larger": 12000, "small": 3000, "tiny": 4}
DIMENSION = 48


def vector_of(text: str) -> str:
    """A unit vector made of a text; those of "a ~ 1" and "a ~ 2" are near."""
    base, _, variant = text.partition(" ~ ")
    values = np.random.default_rng(list(base.encode())).standard_normal(DIMENSION)
    if variant:
        values += 0.5 * np.random.default_rng(list(variant.encode())).standard_normal(DIMENSION)
    return str((values / np.linalg.norm(values)).tolist())


@pytest.fixture(scope="module")
def tenants(new_database: Callable[[], str]) -> Iterator[Shelf]:
    """One segment, built in quiet times, with all of them; some texts are in each."""
    url = new_database()
    run_sql(url, "SELECT pgclip.register_model('m', 48, 10, '{\"fatal\": {}}')")
    shelf = Shelf(url)
    shelf.sql("SELECT setseed(0.5)")
    shelf.sql("INSERT INTO pgclip.collection (name) SELECT unnest(%s::text[])", list(SIZES))
    for name, size in SIZES.items():
        shelf.sql(
            """WITH item AS (
                   INSERT INTO pgclip.item (collection_id, key, kind, source, metadata)
                   SELECT c.id, c.name || n, 'image', 'file:///' || n, jsonb_build_object('n', n)
                   FROM pgclip.collection c, generate_series(1, %s) n WHERE c.name = %s
                   RETURNING id, collection_id, (metadata->>'n')::int AS n
               ), vector AS (
                   INSERT INTO pgclip.embedding_1_1 (item_id, collection_id, kind, embedding)
                   SELECT id, collection_id, 'image', CASE
                       WHEN n <= 4 THEN %s::halfvec  -- the same everywhere
                       ELSE l2_normalize(%s::vector + ARRAY(
                           SELECT 0.4 * (random() - 0.5) FROM generate_series(1, 48) d WHERE n > 0
                       )::vector)::halfvec END
                   FROM item RETURNING id, item_id
               )
               INSERT INTO pgclip.embedding_set
                      (item_id, model_id, generation, kind, content_hash, vector_ids)
               SELECT item_id, 1, 1, 'image', sha256(item_id::text::bytea), ARRAY[id]
               FROM vector""",
            *(size, name, vector_of("the same"), vector_of(name)),
        )
    build_at_leisure(url)
    assert set(shelf.states().values()) == {"hot", "retired", "sealed"}
    yield shelf
    shelf.connection.close()


def build_at_leisure(url: str) -> None:
    """In haste, and again in quiet times."""
    settings = Settings.load(database_url=url, segment_rows=100)
    database = maintenance_connections(settings)
    for _ in range(2):
        Maintenance(settings, database, 1).run()
        run_sql(url, "UPDATE pgclip.segment SET created_at = now() - interval '2 min'")
    Maintenance(settings, database, 1).run()
    database.close()


def collection_id(shelf: Shelf, name: str) -> int:
    return int(shelf.sql("SELECT id FROM pgclip.collection WHERE name = %s", name)[0][0])


def found(shelf: Shelf, asked: str, **options: Any) -> list[tuple[str, float]]:
    extra = "".join(f", {name} => {value}" for name, value in options.items())
    return shelf.sql(
        f"SELECT key, score FROM pgclip.search_vector(%s::halfvec{extra})", vector_of(asked)
    )


def recall_of(shelf: Shelf, asked: str, **options: Any) -> float:
    truth = found(shelf, asked, **options, exact="true")
    hits = found(shelf, asked, **options)
    assert len(hits) == len(truth)
    return sum(score >= truth[-1][1] for _, score in hits) / len(truth)


def plan_within(shelf: Shelf, name: str) -> str:
    (points,) = shelf.sql("SELECT points FROM pgclip._points(1::smallint, NULL, %s)",
                          collection_id(shelf, name))[0]  # fmt: skip
    # Vectors as small as these are soon sorted.
    shelf.sql("SET enable_seqscan = off; SET enable_bitmapscan = off")
    try:
        return str(shelf.sql(f"EXPLAIN SELECT * FROM {points} e ORDER BY embedding <#> %s LIMIT 50",
                             vector_of("large")))  # fmt: skip
    finally:
        shelf.sql("RESET enable_seqscan; RESET enable_bitmapscan")


def test_large_ones_have_an_index_and_small_ones_are_compared(tenants: Shelf) -> None:
    large, larger = (collection_id(tenants, name) for name in ("large", "larger"))
    (segment,) = tenants.sql("SELECT large, own_index FROM pgclip.segment WHERE state = 'sealed'")
    assert segment[0] == sorted(segment[1]) == [large, larger]
    indexes = dict(
        tenants.sql(
            "SELECT indexdef, indexname FROM pg_indexes"
            " WHERE tablename = 'embedding_1_4' AND indexdef LIKE '%hnsw%'"
        )
    )
    assert len(indexes) == 3
    (own,) = [name for text, name in indexes.items() if text.endswith(f"collection_id = {large}))")]
    assert own in plan_within(tenants, "large")
    of_small = plan_within(tenants, "small")
    assert "collection_id_idx" in of_small
    assert not any(name in of_small for name in indexes.values())


@pytest.mark.parametrize("within", SIZES)
@pytest.mark.parametrize("asked", ["the same", "large", "small", "far from all of them"])
def test_all_are_found(tenants: Shelf, within: str, asked: str) -> None:
    collection = f"'{within}'"
    # An index has to find the nearest of a cloud that is far away: harder than what people have.
    recalls = [recall_of(tenants, f"{asked} ~ {n}", collection=collection) for n in range(20)]
    assert sum(recalls) / len(recalls) >= (0.8 if "large" in within else 1)
    some = """'{"n": {"gt": 100}}'"""
    if within != "tiny":
        assert recall_of(tenants, asked, collection=collection, filter=some) >= 0.6


def test_equal_ones_of_each_collection_stand_for_those_of_it(tenants: Shelf) -> None:
    leading = "SELECT count(*) FROM pgclip.embedding_1_4 WHERE leads AND embedding = %s::halfvec"
    assert tenants.sql(leading, vector_of("the same")) == [(3,)]  # small and tiny share one
    for name in ("small", "tiny"):
        hits = found(tenants, "the same", collection=f"'{name}'", k=4)
        assert [key for key, _ in hits] == [f"{name}{n}" for n in range(1, 5)]
    tenants.sql("SELECT pgclip.delete('tiny2', 'tiny')")
    assert [key for key, _ in found(tenants, "the same", collection="'tiny'")] == [
        "tiny1", "tiny3", "tiny4",
    ]  # fmt: skip


def test_where_a_large_one_has_no_index_the_others_are_passed_over(tenants: Shelf) -> None:
    """In a segment that was built in haste, or by an earlier version."""
    for change in ("own_index = '{}'", "large = NULL"):
        tenants.sql(f"UPDATE pgclip.segment SET {change} WHERE state = 'sealed'")
        (within,) = tenants.sql("SELECT is_within FROM pgclip._points(1::smallint, NULL, %s)",
                                collection_id(tenants, "large"))[0]  # fmt: skip
        assert not within
        assert recall_of(tenants, "large", collection="'large'") >= 0.8
        far = [recall_of(tenants, f"far from all of them ~ {n}", collection="'small'")
               for n in range(20)]  # fmt: skip
        assert sum(far) / len(far) >= 0.95


def test_one_that_nearly_all_belong_to_needs_none(shelf: Shelf, database_url: str) -> None:
    shelf.sql("INSERT INTO pgclip.collection (name) VALUES ('all')")
    shelf.sql(
        """INSERT INTO pgclip.embedding_1_1 (item_id, collection_id, kind, embedding)
           SELECT n, 1, 'text', l2_normalize(ARRAY(
               SELECT random() - 0.5 FROM generate_series(1, 8) d WHERE n > 0)::vector)::halfvec
           FROM generate_series(1, 8100) n"""
    )
    build_at_leisure(database_url)
    found_in = "SELECT large, own_index FROM pgclip.segment WHERE state = 'sealed'"
    assert shelf.sql(found_in) == [([1], [])]
