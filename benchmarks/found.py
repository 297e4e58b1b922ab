"""Is what is there found? Vectors as people have them, through the product's own indexes.

    python benchmarks/found.py                       results/found-*.json
    python benchmarks/found.py --only floods --seed 3 --queries 100 --builds 1

Planted as a worker leaves them, in the order in which they came, and indexed by the product, anew
for each build, of which the worst counts. A hit counts if its exact score reaches that of the tenth
best, less the rounding of half precision. Recall is that of ten; "met nothing" are queries that
found none of their ten.
"""

import argparse
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import people
import psycopg2
import truth
from asking import ask
from figures import Figure, keep, quantile, show, timed
from people import Holding, People
from planting import planted, settle
from system import run_sql
from truth import Found
from under_load import under_load
from vectors import Floats

_LARGE = ("albums", "million")  # built once
_MEASURING = 400  # queries that workers had seen before


class Way(NamedTuple):
    """To search: what the n-th query says besides, and which items count for it, (q, items)."""

    name: str
    rest: list[str]
    among: Any = None


def main() -> int:
    """Prints the table, keeps the JSON of each kind of data."""
    options = argparse.ArgumentParser(prog="found", description=__doc__)
    options.add_argument("--only", nargs="*", choices=people.ALL, default=list(people.ALL))
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--queries", type=int, default=1000)
    options.add_argument("--builds", type=int, default=5)
    chosen = options.parse_args()
    for name in chosen.only:
        builds = 1 if name in _LARGE else chosen.builds
        figures = measured(people.ALL[name](People(chosen.seed)), chosen.queries, builds)
        told = f"--seed {chosen.seed} --queries {chosen.queries} --builds {builds}"
        keep(figures, f"python benchmarks/found.py --only {name} {told}", f"found-{name}")
    return 0


def measured(holding: Holding, queries: int, builds: int) -> list[Figure]:
    """Recall and time of each direction, alone and narrowed, at rest and under load."""
    name = f"{holding.name}, {len(holding.vectors):,}"
    figures = []
    with planted(holding) as (url, maintenance):
        took = timed(maintenance.run)
        figures += show([Figure(f"{name}: built, in haste", len(holding.vectors) / took, "/s")])
        found: dict[str, list[list[Found]]] = {}
        efforts: dict[str, list[int]] = {}
        for _ in range(builds):
            settle(url, maintenance)
            for kind, effort in look(url, holding, queries).items():
                efforts.setdefault(kind, []).append(effort)
            for kind, way, asked, best in ways(holding, queries):
                answers = at_rest(url, holding, kind, way, asked, best)
                found.setdefault(f"{name}, by {kind}{way.name}", []).append(answers)
        for kind, each in efforts.items():
            figures += show([Figure(f"{name}, by {kind}: effort, most", max(each), "")])
        for what, answers_of in found.items():
            figures += show(worst(what, answers_of))
        _, _, asked, best = next(ways(holding, queries))
        figures += show(under_load(url, maintenance, name, holding, asked, best))
    return figures


def ways(holding: Holding, queries: int) -> Iterator[tuple[str, Way, Floats, Floats]]:
    """What asks, how, the queries, and the scores of the best that there are for each."""
    chosen = [Way("", [""] * queries)]
    sizes = np.round(np.bincount(holding.collections), -1)
    for size in np.unique(sizes)[::-1] if len(sizes) > 1 else ():
        own = np.resize(np.flatnonzero(sizes == size), queries)
        chosen.append(Way(f", in a collection of {size:,}",
                          [f", collection => 'c{each}'" for each in own],
                          own[:, None] == holding.collections))  # fmt: skip
    for name, share in (("tenth", 10), ("hundredth", 100), ("thousandth", 1000)):
        chosen.append(Way(f", filter of one in {share:,}",
                          [f""", filter => '{{"{name}": 3}}'"""] * queries,
                          (np.arange(len(holding.kinds)) + 1) % share == 3))  # fmt: skip
    if len(np.unique(holding.kinds)) > 1:
        chosen += [Way(f", {kind}s only", [f", kind => '{kind}'"] * queries, holding.kinds == kind)
                   for kind in ("image", "text")]  # fmt: skip
    for kind, every in holding.queries.items():
        asked = every[_shuffled(every)[:queries]]
        for way in chosen:
            among = way.among
            if among is not None:
                among = np.broadcast_to(among, (queries, len(holding.kinds)))[: len(asked)]
            yield kind, way, asked, truth.ten_best(holding, asked, among)


def look(url: str, holding: Holding, queries: int) -> dict[str, int]:
    """What a worker finds out from queries that it has seen, others than those that follow."""
    run_sql(url, "DELETE FROM pgclip.query_vector")
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        for kind in {"text", "image"} & set(holding.queries):
            every = holding.queries[kind]
            for n, query in enumerate(every[_shuffled(every)[queries : queries + _MEASURING]]):
                cursor.execute(
                    "INSERT INTO pgclip.query_vector (model_id, kind, hash, embedding)"
                    " VALUES (1, %s, sha256(%s::text::bytea), %s)", (kind, n, str(query.tolist())),
                )  # fmt: skip
    connection.close()
    for _ in range(4):
        run_sql(url, "SELECT pgclip.measure_recall(1::smallint, 0.99, true)")
    found = run_sql(url, "SELECT query_kind || ' for ' || kind, effort FROM pgclip.recall"
                         " WHERE share = 1 AND recall IS NOT NULL")  # fmt: skip
    return {str(kind): int(effort) for kind, effort in found}


def _shuffled(queries: Floats) -> Any:
    return np.random.default_rng(1).permutation(len(queries))


def at_rest(
    url: str, holding: Holding, kind: str, way: Way, asked: Floats, best: Floats
) -> list[Found]:
    """One search after the other."""
    with psycopg2.connect(url) as connection:
        connection.autocommit = True
        for _ in range(20):
            ask(connection, asked[0], way.rest[0], kind)
        return [
            truth.of(holding, query, scores, *ask(connection, query, rest, kind))
            for query, scores, rest in zip(asked, best, way.rest, strict=False)
        ]


def worst(name: str, builds: list[list[Found]]) -> list[Figure]:
    """Of several builds."""
    recalls = np.array([[each.recall for each in found] for found in builds])
    lowest = np.sort(recalls, axis=1)[:, : max(1, recalls.shape[1] // 10)].mean(axis=1)
    best = [np.mean([each.has_best for each in found]) for found in builds]
    seconds = [[each.seconds for each in found] for found in builds]
    return [
        Figure(f"{name}: recall@10", recalls.mean(axis=1).min(), "", "≥ 0.99"),
        Figure(f"{name}: recall@10, lowest decile", lowest.min(), ""),
        Figure(f"{name}: met nothing", (recalls == 0).sum(axis=1).max(),
               f"of {recalls.shape[1]}", "0"),
        Figure(f"{name}: best hit right", float(min(best)), "", "≥ 0.995"),
        Figure(f"{name}: p50", max(quantile(each, 50) for each in seconds), "ms"),
        Figure(f"{name}: p95", max(quantile(each, 95) for each in seconds), "ms"),
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
