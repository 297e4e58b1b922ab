"""Searches and filters are read from indexes, and narrow filters still give k rows."""

import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg2
import pytest

Sql = Callable[..., list[Any]]
DIMENSION = 16
SEALED = 10_000  # vectors of each sealed segment: more than an index scan looks at
HOT = 500
ITEMS = 2 * SEALED + HOT
NEAREST, FEW = "pgclip._nearest_by_index", "pgclip._few_that_match"


@dataclass(frozen=True)
class Store:
    """Two sealed segments and a hot one; the metadata say how near an item is to the query."""

    sql: Sql
    query: str


def unit(values: "np.ndarray[Any, Any]") -> "np.ndarray[Any, np.dtype[np.float64]]":
    return np.asarray(values / np.linalg.norm(values, axis=-1, keepdims=True))


@pytest.fixture(scope="module")
def store(new_database: Callable[[], str]) -> Iterator[Store]:
    connection = psycopg2.connect(new_database())
    connection.autocommit = True

    def sql(statement: str, *arguments: Any) -> list[Any]:
        with connection.cursor() as cursor:
            cursor.execute(statement, arguments or None)
            return cursor.fetchall() if cursor.description else []

    random = np.random.default_rng(3)
    vectors = unit(random.standard_normal((ITEMS, DIMENSION)))
    query = unit(random.standard_normal(DIMENSION))
    rank = np.argsort(np.argsort(-vectors @ query))
    sql(f"SELECT pgclip.register_model('m', {DIMENSION}, 10, '{{\"fatal\": {{}}}}')")
    sql("INSERT INTO pgclip.collection (name) VALUES ('even'), ('odd')")
    columns = io.StringIO()
    for n in range(ITEMS):
        metadata = {
            "rank": int(rank[n]),
            "percent": n * 7919 % 100,
            "size": n * 6151 % 1000,
            "far": bool(rank[n] >= 0.99 * ITEMS),
            "tags": [f"t{n % 100}"],
            "half": n % 2 == 0,
        }
        row = (1 + n % 2, f"i{n}", "image", f"file:///{n}", json.dumps(metadata), f"{n} minutes")
        columns.write("\t".join(map(str, row)) + "\n")
    columns.seek(0)
    with connection.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE given (collection int, key text, kind pgclip.kind, "
                       "source text, metadata jsonb, age interval, n serial)")  # fmt: skip
        cursor.copy_from(columns, "given", columns=("collection", "key", "kind", "source",
                                                    "metadata", "age"))  # fmt: skip
    sql(
        "INSERT INTO pgclip.item (collection_id, key, kind, source, metadata, created_at)"
        " SELECT collection, key, kind, source, metadata, now() - age FROM given ORDER BY n"
    )
    plant(connection, vectors[:SEALED], 1)
    seal(sql)
    plant(connection, vectors[SEALED : 2 * SEALED], 1 + SEALED)
    seal(sql)
    plant(connection, vectors[2 * SEALED :], 1 + 2 * SEALED)
    sql("INSERT INTO pgclip.item_label (item_id, model_id, label_id, version, score)"
        " SELECT i.id, 1, 1 + i.id % 20, 1, (i.id % 97) / 97.0 FROM pgclip.item i")  # fmt: skip
    texts = "SELECT convert_to('w' || n || repeat(' common words', 50) || n, 'UTF8') AS data, n"
    texts += " FROM generate_series(1, 5000) n"
    sql(
        "INSERT INTO pgclip.content (kind, hash, size, data)"
        f" SELECT 'text', sha256(data), length(data), data FROM ({texts}) t"
    )
    sql(
        "INSERT INTO pgclip.item (collection_id, key, kind, content_hash)"
        f" SELECT 1, 'text ' || n, 'text', sha256(data) FROM ({texts}) t"
    )
    sql("VACUUM ANALYZE")
    states = sql("SELECT state, count(*) FROM pgclip.segment GROUP BY state ORDER BY state")
    assert states == [("hot", 1), ("retired", 2), ("sealed", 2)]
    yield Store(sql, str(query.tolist()))
    connection.close()


def plant(connection: Any, vectors: "np.ndarray[Any, Any]", first: int) -> None:
    """Vectors of items from this number on, into the hot segment."""
    lines = io.StringIO()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pgclip._segment_table(1::smallint, number) FROM pgclip.segment"
                       " WHERE state = 'hot'")  # fmt: skip
        ((table,),) = cursor.fetchall()
        for n, vector in enumerate(vectors, first):
            lines.write(f"{n}\t{n}\t{2 - n % 2}\timage\t{vector.tolist()}\n")
        lines.seek(0)
        cursor.copy_expert(f"COPY {table} (id, item_id, collection_id, kind, embedding) FROM STDIN",
                           lines)  # fmt: skip
        cursor.execute(
            "INSERT INTO pgclip.embedding_set"
            " (item_id, model_id, generation, kind, content_hash, vector_ids)"
            " SELECT n, 1, 1, 'image', sha256(n::text::bytea), ARRAY[n]"
            " FROM generate_series(%s, %s) n",
            (first, first + len(vectors) - 1),
        )


def seal(sql: Sql) -> None:
    """The hot segment gets its index, and another becomes hot."""
    ((hot,),) = sql("SELECT number FROM pgclip.segment WHERE state = 'hot'")
    assert sql("SELECT pgclip.close_segment(1::smallint, %s)", SEALED) == [(True,)]
    built = sql("SELECT pgclip.build_segment(1::smallint, %s, '64MB', 0)", [hot])
    assert sql("SELECT pgclip.announce_segments(1::smallint)") == [(True,)]
    assert sql("SELECT pgclip.exchange_segments(1::smallint)") == built


def statement_of(sql: Sql, function: str) -> str:
    """The statement that a function makes: what stands between $q$ and $q$, or is formatted."""
    ((source,),) = sql("SELECT prosrc FROM pg_proc WHERE oid = %s::regproc", function)
    (found,) = re.findall(r"format\(\$q\$(.*?)\$q\$|format\('(SELECT .*?)'", source, re.S)
    return str(found[0] or found[1])


def plan_of(sql: Sql, function: str, statement: str) -> dict[str, Any]:
    """The plan of a statement under the settings that the function has."""
    ((settings,),) = sql("SELECT proconfig FROM pg_proc WHERE oid = %s::regproc", function)
    sql("BEGIN")
    try:
        for setting in settings or ():
            sql("SELECT set_config(%s, %s, true)", *setting.split("=", 1))
        ((((explained),),),) = sql(f"EXPLAIN (FORMAT JSON) {statement}")
        plan: dict[str, Any] = explained["Plan"]
        return plan
    finally:
        sql("ROLLBACK")


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def indexes(plan: dict[str, Any]) -> set[str]:
    return {node["Index Name"] for node in nodes(plan) if "Index Name" in node}


def narrowing(
    sql: Sql, collection: str | None, kind: str | None, filter: dict[str, Any] | None
) -> str:
    found = (
        "SELECT concat_ws(' AND ', coalesce(of_near, 'true'), 'n.collection_id = ' || collection)"
        " FROM pgclip._narrowing(1::smallint, %s, %s, %s, NULL)"
    )
    ((of_near,),) = sql(found, collection, kind, filter and json.dumps(filter))
    return str(of_near)


@pytest.mark.parametrize(
    ("collection", "kind", "filter"),
    [
        (None, None, None),
        ("odd", None, None),
        ("odd", "image", None),
        (None, None, {"rank": {"ge": 100}}),
        (None, None, {"percent": 5, "tags": {"contains": "t5"}}),
        (None, "image", {"$or": [{"$label": "animal"}, {"$not": {"size": {"lt": 5}}}]}),
        ("even", "image", {"$key": {"starts_with": "i1"}, "$created_at": {"within": "3 days"}}),
    ],
)
@pytest.mark.parametrize("limit", [40, 2020])
def test_a_search_merges_what_the_indexes_give(
    store: Store, collection: str | None, kind: str | None, filter: Any, limit: int
) -> None:
    (parts,) = store.sql(
        "SELECT points, followers, others FROM pgclip._points(1::smallint, %s, NULL)", kind
    )
    statement = statement_of(store.sql, NEAREST)
    where = narrowing(store.sql, collection, kind, filter)
    for number, part in enumerate((*parts, where), 1):
        statement = statement.replace(f"%{number}$s", part)
    given = (
        f"'{store.query}'::halfvec",
        str(limit),
        "ROW(1, 0)::pgclip.gauge",
        "NULL::real",
        "NULL::bigint",
    )
    for number, value in enumerate(given, 1):
        statement = statement.replace(f"${number}", value)
    plan = plan_of(store.sql, NEAREST, statement)
    # None are equal here, and hardly any nearly equal.
    assert not {name for name in indexes(plan) if "twins" in name or "cluster" in name}
    (merge, *_) = [node for node in nodes(plan) if node["Node Type"] == "Merge Append"]
    hnsw = store.sql("SELECT indexname FROM pg_indexes WHERE indexdef LIKE '%USING hnsw%'")
    assert len(hnsw) == 2
    parts = merge["Plans"]
    assert sorted(part["Node Type"] for part in parts) == ["Index Scan", "Index Scan", "Sort"]
    assert {part["Index Name"] for part in parts if "Index Name" in part} == {n for (n,) in hnsw}
    (hot,) = [part for part in parts if part["Node Type"] == "Sort"]
    assert [node["Node Type"] for node in hot["Plans"]] == ["Seq Scan"]


def few_plan(sql: Sql, filter: dict[str, Any]) -> dict[str, Any]:
    condition = "SELECT pgclip._condition(%s, 1::smallint, false)"
    ((where,),) = sql(condition, json.dumps(filter))
    statement = statement_of(sql, FEW).replace("%s", "{}").format(where, 2001)
    return plan_of(sql, FEW, statement)


@pytest.mark.parametrize(
    ("filter", "index"),
    [
        ({"percent": 5}, "item_metadata"),
        ({"percent": {"eq": 5}}, "item_metadata"),
        ({"percent": {"in": [5, 6]}}, "item_metadata"),
        ({"tags": {"contains": "t5"}}, "item_metadata"),
        ({"tags": {"eq": ["t5"]}}, "item_metadata"),
        ({"percent": 5, "size": {"lt": 500}}, "item_metadata"),
        ({"$and": [{"percent": 5}, {"half": True}]}, "item_metadata"),
        ({"$or": [{"percent": 5}, {"percent": 7}]}, "item_metadata"),
        ({"$created_at": {"within": "3 hours"}}, "item_created"),
        ({"$created_at": {"lt": "2000-01-01"}}, "item_created"),
        ({"$label": {"name": "animal", "min_score": 0.9}}, "item_label_score"),
        ({"$key": "i5"}, "item_collection_id_key_key"),
        ({"$key": {"in": ["i5", "i6"]}}, "item_collection_id_key_key"),
    ],
)
def test_a_filter_reads_its_index(store: Store, filter: dict[str, Any], index: str) -> None:
    ((indexed,),) = store.sql("SELECT pgclip._is_indexed(%s)", json.dumps(filter))
    assert indexed is True
    plan = few_plan(store.sql, filter)
    assert index in indexes(plan)
    on_items = {"Seq Scan"} & {n["Node Type"] for n in nodes(plan) if n.get("Alias") == "i"}
    assert not on_items


@pytest.fixture
def size_index(store: Store) -> Iterator[str]:
    store.sql("SELECT pgclip.index_metadata('size')")
    ((name,),) = store.sql("SELECT name FROM pgclip.metadata_index WHERE path = 'size'")
    yield str(name)
    store.sql("SELECT pgclip.drop_metadata_index('size')")


RANGES: list[dict[str, Any]] = [
    {"size": {"ge": 990}},
    {"size": {"gt": 10, "le": 15}},
    {"size": {"lt": 5}, "half": {"ne": True}},
    {"$and": [{"size": {"lt": 5}}]},
]


@pytest.mark.parametrize("filter", RANGES)
def test_a_range_reads_the_index_of_its_field(
    store: Store, size_index: str, filter: dict[str, Any]
) -> None:
    assert indexes(few_plan(store.sql, filter)) == {size_index}


@pytest.mark.parametrize("filter", RANGES)
def test_a_range_of_an_indexed_field_counts_as_indexed(
    store: Store, size_index: str, filter: dict[str, Any]
) -> None:
    assert store.sql("SELECT pgclip._is_indexed(%s)", json.dumps(filter)) == [(True,)]


@pytest.mark.parametrize(
    "filter",
    [
        {"size": {"ge": 990}},
        {"percent": {"ne": 5}},
        {"size": {"exists": True}},
        {"$key": {"starts_with": "i5"}},
        {"$source": "file:///5"},
        {"$not": {"percent": 5}},
        {"$or": [{"percent": 5}, {"size": {"ge": 990}}]},
        {},
    ],
)
def test_what_has_no_index_does_not_count_as_indexed(store: Store, filter: dict[str, Any]) -> None:
    assert store.sql("SELECT pgclip._is_indexed(%s)", json.dumps(filter)) == [(False,)]


def test_words_read_their_index(store: Store) -> None:
    statement = statement_of(store.sql, "pgclip.hybrid").replace("%s", "true")
    words = "SELECT ranking::text, narrowest::text FROM pgclip._words_wanted('w17 w18')"
    ((ranking, narrowest),) = store.sql(words)
    statement = statement.replace("$2", "'{1}'").replace("$3", "100")
    statement = statement.replace("$1", f"$w${ranking}$w$::tsquery")
    statement = statement.replace("$4", f"$w${narrowest}$w$::tsquery[]")
    plan = plan_of(store.sql, "pgclip.hybrid", statement)
    assert "item_text_words" in indexes(plan)


def found(store: Store, rest: str, filter: dict[str, Any] | None = None) -> list[tuple[int, float]]:
    statement = (
        f"SELECT item_id, score FROM pgclip.search_vector(%s::halfvec, {rest}, filter => %s)"
    )
    return [(item, score) for item, score in store.sql(
        statement, store.query, filter and json.dumps(filter)
    )]  # fmt: skip


NARROW: dict[str, dict[str, Any]] = {
    "far 1 %": {"rank": {"ge": int(0.99 * ITEMS)}},
    "far 1 %, indexed": {"far": True},
    "far 10 %": {"rank": {"ge": int(0.9 * ITEMS)}},
    "far 0.1 %": {"rank": {"ge": int(0.999 * ITEMS)}},
    "middle 1 %": {"rank": {"ge": ITEMS // 2, "lt": ITEMS // 2 + ITEMS // 100}},
    "near 1 %": {"rank": {"lt": ITEMS // 100}},
    "near 10 %": {"rank": {"lt": ITEMS // 10}},
    "1 % at random": {"size": {"lt": 10}},
    "10 % at random": {"size": {"lt": 100}},
    "1 % at random, indexed": {"percent": 5},
    "10 % at random, indexed": {"percent": {"in": list(range(10))}},
    "half, indexed": {"half": True},
    "by key": {"$key": {"starts_with": "i77"}},
    "by label": {"$label": {"name": "animal", "min_score": 0.8}},
    "old": {"$created_at": {"lt": "2000-01-01"}},
}
NOTHING = {"old"}


@pytest.mark.parametrize("k", [1, 5, 10, 100])
@pytest.mark.parametrize("name", NARROW)
def test_a_narrow_filter_gives_k_rows(store: Store, name: str, k: int) -> None:
    exact = found(store, f"k => {k}, exact => true", NARROW[name])
    usual = found(store, f"k => {k}", NARROW[name])
    matching = len(found(store, "k => 10000, exact => true", NARROW[name]))
    assert matching == 0 if name in NOTHING else matching > 0
    assert len(exact) == len(usual) == min(k, matching)
    scores = dict(found(store, "k => 10000, exact => true", NARROW[name]))
    if matching < 10_000:
        assert {item for item, _ in usual} <= set(scores)
    # The index is approximate; most are the same, and their scores are.
    both = {item for item, _ in exact} & {item for item, _ in usual}
    assert len(both) >= 0.8 * len(exact) or k == 1
    for item, score in usual:
        assert scores.get(item, score) == score


@pytest.mark.parametrize("name", ["far 1 %", "far 1 %, indexed", "far 0.1 %"])
def test_what_the_index_does_not_reach_is_compared_exactly(store: Store, name: str) -> None:
    exact = found(store, "k => 20, exact => true", NARROW[name])
    assert len(exact) == 20
    assert found(store, "k => 20", NARROW[name]) == exact


def test_an_unfiltered_search_finds_nearly_what_an_exact_one_does(store: Store) -> None:
    for k in (1, 10, 100, 1000):
        exact = found(store, f"k => {k}, exact => true")
        usual = found(store, f"k => {k}")
        assert len(usual) == len(exact) == k
        assert len(set(exact) & set(usual)) >= 0.9 * k
        assert [score for _, score in usual] == sorted((s for _, s in usual), reverse=True)


def test_a_search_for_more_than_the_index_gives_is_complete(store: Store) -> None:
    usual = found(store, "k => 10000")
    assert len(usual) == 10_000
    assert usual == found(store, "k => 10000, exact => true")


def test_pages_through_the_index_give_every_item_once(store: Store) -> None:
    """Of the nearest three thousand, as one search gives them."""
    walked: list[tuple[int, float]] = []
    rest = ""
    while len(walked) < 3000:
        page = found(store, f"k => 250{rest}")
        assert len(page) == 250
        walked += page
        rest = f", after_score => '{page[-1][1]!r}', after_item => {page[-1][0]}"
    assert len({item for item, _ in walked}) == 3000
    assert [score for _, score in walked] == sorted((s for _, s in walked), reverse=True)
    exact = found(store, "k => 3000, exact => true")
    assert len(set(exact) & set(walked)) >= 0.9 * 3000


def test_min_score_through_the_index(store: Store) -> None:
    exact = found(store, "k => 10000, min_score => 0.6, exact => true")
    usual = found(store, "k => 10000, min_score => 0.6")
    assert 10 < len(exact) < 1000
    assert len(set(exact) & set(usual)) >= 0.9 * len(exact)
    assert set(usual) <= set(exact)
    assert found(store, "k => 10, min_score => 0.999") == []
