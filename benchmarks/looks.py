"""What people and machines look at again and again, at sizes that grow.

    python benchmarks/looks.py          results/looks.json

Items of a thousand collections, one in a hundred failed, one in twenty queued, the rest done; then
somebody submits a thousand, of which nothing is added up yet. The worst of ten looks counts.
"""

import argparse
import json
import sys

from figures import Figure, keep, show, timed
from system import fresh_system, run_sql

from pgclip import Client
from pgclip.cli.status import look
from pgclip.database import Database

SIZES = (30_000, 300_000, 3_000_000)
TIMES = 10
PLANT = """
    INSERT INTO pgclip.collection (name) SELECT 'c' || n FROM generate_series(1, 1000) n;
    INSERT INTO pgclip.item (collection_id, key, kind, source)
    SELECT 1 + n % 1000, n, CASE n % 3 WHEN 0 THEN 'text' ELSE 'image' END::pgclip.kind,
           'file:///' || n
    FROM generate_series(1, {items}) n;
    INSERT INTO pgclip.job (item_id, model_id, generation, kind, rank)
    SELECT id, 1, 1, kind, now() FROM pgclip.item WHERE id % 20 = 0;
    INSERT INTO pgclip.failure (item_id, model_id, generation, reason, message)
    SELECT id, 1, 1, 'reason ' || id % 7, 'm' FROM pgclip.item WHERE id % 100 = 1;
    INSERT INTO pgclip.embedding_set
           (item_id, model_id, generation, kind, content_hash, vector_ids, label_epoch)
    SELECT id, 1, 1, kind, sha256(id::text::bytea), ARRAY[id],
           (SELECT epoch FROM pgclip.label_epoch)
    FROM pgclip.item WHERE id % 20 <> 0 AND id % 100 <> 1;
"""


def main() -> int:
    """Prints the table, keeps the JSON."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    chosen = options.parse_args()
    figures: list[Figure] = []
    for size in chosen.sizes:
        figures += looks(size)
    keep(figures, "python benchmarks/looks.py", "looks")
    return 0


def looks(items: int) -> list[Figure]:
    """Of a database with so many items."""
    with fresh_system() as urls, Client(**urls) as client:
        url = urls["database_url"]
        fingerprint = json.dumps({"fatal": {}})
        run_sql(url, f"SELECT pgclip.register_model('stub', 4, 100, '{fingerprint}')")
        run_sql(url, PLANT.format(items=items))
        run_sql(url, "VACUUM ANALYZE")
        counting = timed(lambda: run_sql(url, "SELECT pgclip.add_up_tallies(10000)"))
        while run_sql(url, "SELECT pgclip.add_up_tallies(10000)") == [(True,)]:
            pass
        for n in range(1000):
            client.submit_text(f"new {n}", collection=f"c{n + 1}")
        database = Database(url, pool_size=1)
        times = {
            "count()": lambda: client.count(),
            "count(collection=…)": lambda: client.count(collection="c7"),
            "collections(), of a thousand": lambda: client.collections(),
            "models()": lambda: client.models(),
            "what pgclip status asks": lambda: look(database),
            "what pgclip.heal would bring": lambda: run_sql(url, "SELECT pgclip.healable()"),
        }
        figures = [
            Figure(f"{items:,} items: {name}", 1000 * max(timed(call) for _ in range(TIMES)),
                   "ms", "≤ 50")
            for name, call in times.items()
        ]  # fmt: skip
        database.close()
    return show([*figures, Figure(f"{items:,} items: counted once", counting, "s")])


if __name__ == "__main__":
    sys.exit(main())
