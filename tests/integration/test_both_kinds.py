"""A search of both kinds gives each the effort that it needs, and is one search."""

from typing import Any

import numpy as np
import pytest
from support.databases import run_sql
from support.shelf import Shelf

from pgclip.searching.segments import Maintenance, maintenance_connections
from pgclip.settings import Settings


def query(n: int) -> str:
    """A vector between the kinds, nearer to texts."""
    values = np.random.default_rng(n).standard_normal(8) + np.eye(8)[1]
    return str((values / np.linalg.norm(values)).tolist())


@pytest.fixture(scope="module", params=["text first", "image first", "mixed"])
def library(request: pytest.FixtureRequest, new_database: Any) -> Any:
    """2,000 of each kind around points of their own, with indexes of which one needs more."""
    url = new_database()
    run_sql(url, "SELECT pgclip.register_model('m', 8, 10, '{\"fatal\": {}}')")
    shelf = Shelf(url)
    towards = {"text first": "kind = 'text'", "image first": "kind = 'image'", "mixed": "true"}
    shelf.sql("INSERT INTO pgclip.collection (name) VALUES ('default')")
    shelf.sql(
        f"""WITH item AS (
               INSERT INTO pgclip.item (collection_id, key, kind, source, metadata)
               SELECT 1, kind::text || n, kind, 'file:///' || n, jsonb_build_object('n', n % 50)
               FROM generate_series(1, 2000) n, unnest(enum_range(NULL::pgclip.kind)) kind
               RETURNING id, kind
           ), vector AS (
               INSERT INTO pgclip.embedding_1_1 (item_id, collection_id, kind, embedding)
               SELECT id, 1, kind, l2_normalize(ARRAY(
                   SELECT (hashint8extended(id, d) % 1000)::real
                          + CASE WHEN d = 2 AND {towards[request.param]} THEN 700 ELSE 0 END
                   FROM generate_series(1, 8) d)::vector)::halfvec FROM item
               RETURNING id, item_id, kind
           )
           INSERT INTO pgclip.embedding_set
                  (item_id, model_id, generation, kind, content_hash, vector_ids)
           SELECT item_id, 1, 1, kind, sha256(item_id::text::bytea), ARRAY[id] FROM vector"""
    )
    build(url)
    for kind, effort in (("image", 60), ("text", 400)):
        shelf.sql(
            """INSERT INTO pgclip.direction
               SELECT 1, q, %s, %s, pgclip._efforts(), array_fill(1::real, ARRAY[7]), '{9,9,9}',
                      '{1,1,1}', '{0,0,0}', 9, 0.99, ARRAY(
                          SELECT number FROM pgclip.segment WHERE kind = %s AND state = 'sealed'),
                      now(), 1 FROM unnest(enum_range(NULL::pgclip.kind)) q""",
            *(kind, effort, kind),
        )
    yield shelf
    shelf.connection.close()


def build(url: str) -> None:
    settings = Settings.load(database_url=url, segment_rows=100)
    database = maintenance_connections(settings)
    Maintenance(settings, database, 1).run()
    database.close()


def hits(shelf: Shelf, n: int, **options: Any) -> list[tuple[str, float]]:
    extra = "".join(f", {name} => {value}" for name, value in options.items())
    return shelf.sql(f"SELECT key, score FROM pgclip.search_vector(%s::halfvec{extra})", query(n))


@pytest.mark.parametrize("asks", ["'text'", "'image'", "NULL"])
@pytest.mark.parametrize(
    "narrowed",
    [
        {},
        {"k": 1},
        {"k": 300},
        {"filter": """'{"n": {"lt": 5}}'"""},
        {"filter": """'{"n": 7}'""", "k": 40},
        {"min_score": 0.8, "k": 200},
        {"collection": "'default'"},
        {"filter": """'{"n": 99}'"""},
    ],
)
def test_the_best_of_both_come_in_order(library: Shelf, asks: str, narrowed: Any) -> None:
    found = wanted = 0
    for n in range(10):
        truth = hits(library, n, query_kind=asks, exact="true", **narrowed)
        given = hits(library, n, query_kind=asks, **narrowed)
        assert [score for _, score in given] == sorted((s for _, s in given), reverse=True)
        assert len(given) == len(truth)
        found += len(set(truth) & set(given))
        wanted += len(truth)
    assert found >= 0.99 * wanted


def test_pages_of_both_give_each_once(library: Shelf) -> None:
    given: list[tuple[str, float]] = []
    after: dict[str, Any] = {}
    for _ in range(8):
        page = library.sql(
            """SELECT key, score, item_id FROM pgclip.search_vector(%s::halfvec, 25,
                query_kind => 'text', after_score => %s, after_item => %s)""",
            *(query(1), after.get("score"), after.get("item")),
        )
        after = {"score": page[-1][1], "item": page[-1][2]}
        given += [(key, score) for key, score, _ in page]
    assert len(set(given)) == 200
    truth = hits(library, 1, query_kind="'text'", exact="true", k=200)
    assert len(set(truth) & set(given)) >= 198


def test_each_kind_is_scanned_with_its_own_effort(library: Shelf) -> None:
    assert scans(library, 0, query_kind="'text'") == 2
    assert scans(library, 0, query_kind="'text'", kind="'image'") == 1
    library.sql("UPDATE pgclip.direction SET effort = 400")
    assert scans(library, 0, query_kind="'text'") == 1
    library.sql("UPDATE pgclip.direction SET effort = 60 WHERE kind = 'image'")


def scans(shelf: Shelf, n: int, **options: Any) -> int:
    """How often a search scanned indexes."""
    counted = """SELECT coalesce(sum(calls), 0) FROM pg_stat_xact_user_functions
                 WHERE schemaname = 'pgclip' AND funcname = '_nearest_by_index'"""
    with shelf.connection.cursor() as cursor:
        cursor.execute("BEGIN; SET LOCAL track_functions = 'all'")
        cursor.execute(counted)  # what others of this session were is kept for a while
        ((before,),) = cursor.fetchall()
        hits(shelf, n, **options)
        cursor.execute(counted)
        ((after,),) = cursor.fetchall()
        cursor.execute("ROLLBACK")
    return int(after - before)
