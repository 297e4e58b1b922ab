"""Is what is there found? Vectors as people have them, through the product's own indexes.

    python benchmarks/found.py                       results/found.json
    python benchmarks/found.py --only floods --seed 3 --queries 100

Planted as a worker leaves them, in the order in which they came, indexed by the product, at rest. A
hit counts if its exact score reaches that of the tenth best, less the rounding of half precision.
Recall is that of ten; "met nothing" are queries that found none of their ten.
"""

import argparse
import json
import sys
import time
from io import BytesIO, StringIO
from typing import Any, NamedTuple

import numpy as np
import people
import psycopg2
from figures import Figure, keep, quantile, show, timed
from people import Holding, best
from system import fresh_system, run_sql
from vectors import DIMENSION, Floats

from pgclip.searching.segments import Maintenance, maintenance_connections
from pgclip.settings import Settings

_K = 10
# Half precision: of 512 products, each rounded to 11 bits.
_ROUNDING = 2e-3


class Found(NamedTuple):
    """Of one query: the share of its ten, whether its best was there, seconds."""

    recall: float
    has_best: bool
    seconds: float


def main() -> int:
    """Prints the table, keeps the JSON if all was measured."""
    options = argparse.ArgumentParser(prog="found", description=__doc__)
    options.add_argument("--only", nargs="*", choices=people.ALL, default=list(people.ALL))
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--queries", type=int, default=1000)
    chosen = options.parse_args()
    figures: list[Figure] = []
    for name in chosen.only:
        figures += show(measured(people.ALL[name](chosen.seed), chosen.queries))
    if len(chosen.only) == len(people.ALL):
        keep(figures, f"python benchmarks/found.py --seed {chosen.seed}", "found")
    return 0


def measured(holding: Holding, queries: int) -> list[Figure]:
    """Recall and time of each direction; of tenants within a collection, too."""
    figures = []
    with fresh_system() as urls:
        url = urls["database_url"]
        plant(url, holding)
        settings = Settings.load(database_url=url)
        database = maintenance_connections(settings)
        maintenance = Maintenance(settings, database, 1)
        took = timed(maintenance.run)
        for _ in range(2):  # until nothing is left that quiet times bring
            run_sql(url, "UPDATE pgclip.segment SET created_at = now() - interval '2 min'")
            maintenance.run()
        database.close()
        run_sql(url, "VACUUM ANALYZE")
        efforts = look(url, holding, queries)
        name = f"{holding.name}, {len(holding.vectors):,} {holding.kind} vectors"
        figures.append(Figure(f"{name}: built, in haste", len(holding.vectors) / took, "/s", ""))
        with psycopg2.connect(url) as connection:
            connection.autocommit = True
            for kind, every in holding.queries.items():
                asked = every[_shuffled(every)[:queries]]
                figures.append(Figure(f"{name}, by {kind}: effort", efforts[kind], "", ""))
                for _ in range(20):
                    ask(connection, holding, asked[0], kind)
                found = [ask(connection, holding, query, kind) for query in asked]
                figures += _of(f"{name}, by {kind}", found)
                if holding.collections.any():
                    within = [ask(connection, holding, query, kind, collection=n % 50)
                              for n, query in enumerate(asked)]  # fmt: skip
                    figures += _of(f"{name}, by {kind}, in a collection", within)
    return figures


def look(url: str, holding: Holding, queries: int) -> dict[str, int]:
    """What a worker finds out from queries that it has seen, others than those that follow."""
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        for kind, every in holding.queries.items():
            for n, query in enumerate(every[_shuffled(every)[queries : queries + 400]]):
                literal = str([round(float(value), 6) for value in query])
                cursor.execute(
                    "INSERT INTO pgclip.query_vector (model_id, kind, hash, embedding)"
                    " VALUES (1, %s, sha256(%s::text::bytea), %s)", (kind, n, literal),
                )  # fmt: skip
    connection.close()
    for _ in range(2):
        run_sql(url, "SELECT pgclip.measure_recall(1::smallint, 0.99, true)")
    found = run_sql(url, "SELECT query_kind, effort FROM pgclip.recall WHERE share = 1")
    return {str(kind): int(effort) for kind, effort in found}


def _shuffled(queries: Floats) -> Any:
    return np.random.default_rng(1).permutation(len(queries))


def ask(
    connection: Any, holding: Holding, query: Floats, kind: str, collection: int | None = None
) -> Found:
    """One search in SQL, compared with all vectors."""
    narrowed = "" if collection is None else f", collection => 'c{collection}'"
    statement = (
        f"SELECT key::int FROM pgclip.search_vector(%s::halfvec, query_kind => %s{narrowed})"
    )
    with connection.cursor() as cursor:
        literal = str([round(float(value), 6) for value in query])
        start = time.perf_counter()
        cursor.execute(statement, (literal, kind))
        keys = [key for (key,) in cursor.fetchall()]
        seconds = time.perf_counter() - start
    among = None if collection is None else holding.collections == collection
    truth = best(holding, query, _K, among)
    of_keys = np.isin(holding.items, keys)
    scores = np.where(of_keys, holding.vectors @ query, -2)
    starts = np.flatnonzero(np.diff(holding.items, prepend=-1))
    hits = np.sort(np.maximum.reduceat(scores, starts))[::-1][: len(keys)]
    right = hits >= truth[-1] - _ROUNDING
    return Found(float(right.sum()) / _K, bool(hits[:1] >= truth[0] - _ROUNDING), seconds)


def _of(name: str, found: list[Found]) -> list[Figure]:
    recalls = np.array([each.recall for each in found])
    seconds = [each.seconds for each in found]
    lowest = np.sort(recalls)[: max(1, len(recalls) // 10)].mean()
    return [
        Figure(f"{name}: recall@10", float(recalls.mean()), "", "≥ 0.99"),
        Figure(f"{name}: recall@10, lowest decile", float(lowest), "", ""),
        Figure(f"{name}: met nothing", float((recalls == 0).sum()), f"of {len(found)}", "0"),
        Figure(
            f"{name}: best hit right", float(np.mean([f.has_best for f in found])), "", "≥ 0.995"
        ),
        Figure(f"{name}: p50", quantile(seconds, 50), "ms", "≤ 5"),
        Figure(f"{name}: p95", quantile(seconds, 95), "ms", ""),
    ]


def plant(url: str, holding: Holding) -> None:
    """Items 0, 1, … with their vectors, in the hot segment and the ledger."""
    fingerprint = json.dumps({"fatal": {}})
    run_sql(url, f"SELECT pgclip.register_model('stub', {DIMENSION}, 100, '{fingerprint}')")
    lines = StringIO()
    for n, (item, vector) in enumerate(zip(holding.items, holding.vectors, strict=True), 1):
        numbers = ",".join(f"{value:.6f}" for value in vector)
        collection = holding.collections[item] + 1
        lines.write(f"{n}\t{item + 1}\t{collection}\t{holding.kind}\t[{numbers}]\n")
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO pgclip.collection (name) SELECT 'c' || n FROM generate_series(0, %s) n",
            (int(holding.collections.max()),),
        )
        cursor.execute(
            "INSERT INTO pgclip.item (collection_id, key, kind, source)"
            " SELECT c + 1, n - 1, %s, 'file:///' || n"
            " FROM unnest(%s::int[]) WITH ORDINALITY t(c, n)",
            (holding.kind, holding.collections.tolist()),
        )
        cursor.copy_expert(
            "COPY pgclip.embedding_1_1 (id, item_id, collection_id, kind, embedding) FROM STDIN",
            BytesIO(lines.getvalue().encode()),
        )
        cursor.execute(
            """INSERT INTO pgclip.embedding_set
                      (item_id, model_id, generation, kind, content_hash, vector_ids)
               SELECT item_id, 1, 1, %s, sha256(item_id::text::bytea), array_agg(id ORDER BY id)
               FROM pgclip.embedding_1_1 GROUP BY item_id""",
            (holding.kind,),
        )
        cursor.execute("SELECT setval('pgclip.vector_id', %s)", (len(holding.vectors),))
    connection.close()


if __name__ == "__main__":
    sys.exit(main())
