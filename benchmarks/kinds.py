"""Texts that ask for pictures, among texts: a model puts texts nearer to texts than to pictures."""

from io import BytesIO, StringIO

import numpy as np
import psycopg2
from asking import ask, recall
from figures import Figure, quantile
from system import fresh_system, run_sql
from vectors import DIMENSION, Floats, clustered

from pgclip.searching.segments import Maintenance, maintenance_connections
from pgclip.settings import Settings

_GAP = 1.0  # between the two kinds, in lengths of a vector
_QUERIES = 100


def across_kinds(rows: int) -> list[Figure]:
    """Half of the rows are texts and half pictures, planted, and indexed as a worker does."""
    directions = np.random.default_rng(7).standard_normal((2, DIMENSION), np.float32)
    texts, pictures = (
        moved(clustered(rows // 2, seed=seed), direction)
        for seed, direction in zip((8, 9), directions, strict=True)
    )
    asked = moved(clustered(_QUERIES, seed=10), directions[0])
    with fresh_system() as urls:
        url = urls["database_url"]
        model = f"'stub', {DIMENSION}, 100, '{{\"fatal\": {{}}}}'"
        run_sql(url, f"SELECT pgclip.register_model({model})")
        plant(url, texts, pictures)
        settings = Settings.load(database_url=url)
        database = maintenance_connections(settings)
        Maintenance(settings, database, 1).run()
        database.close()
        run_sql(url, "VACUUM ANALYZE")
        with psycopg2.connect(url) as connection:
            answers = [ask(connection, query, ", kind => 'image'") for query in asked]
    truth = [rows // 2 + np.argsort(-(pictures @ query))[:10] for query in asked]
    recalls = [recall(found, best) for (found, _), best in zip(answers, truth, strict=True)]
    name = f"pictures only, of {rows:,} half of which are texts"
    return [
        Figure(f"{name}: search, p50", quantile([seconds for _, seconds in answers], 50), "ms"),
        Figure(f"{name}: recall@10", float(np.mean(recalls)), ""),
    ]


def moved(vectors: Floats, direction: Floats) -> Floats:
    """Unit vectors, all of them nearer to a direction."""
    nearer = vectors + _GAP * direction / np.linalg.norm(direction)
    unit: Floats = nearer / np.linalg.norm(nearer, axis=1, keepdims=True)
    return unit


def plant(url: str, texts: Floats, pictures: Floats) -> None:
    """Items 0, 1, … with these vectors, in the hot segment and the ledger."""
    lines = StringIO()
    for n, vector in enumerate(np.concatenate([texts, pictures])):
        kind = "text" if n < len(texts) else "image"
        numbers = ",".join(f"{value:.6f}" for value in vector)
        lines.write(f"{n + 1}\t{n + 1}\t1\t{kind}\t[{numbers}]\n")
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO pgclip.collection (name) VALUES ('default')")
        cursor.execute(
            f"""INSERT INTO pgclip.item (collection_id, key, kind, source)
                SELECT 1, n - 1, (enum_range(NULL::pgclip.kind))[1 + (n <= {len(texts)})::int],
                       'file:///' || n FROM generate_series(1, {len(texts) + len(pictures)}) n"""
        )
        cursor.copy_expert(
            "COPY pgclip.embedding_1_1 (id, item_id, collection_id, kind, embedding) FROM STDIN",
            BytesIO(lines.getvalue().encode()),
        )
        cursor.execute(
            """INSERT INTO pgclip.embedding_set
                      (item_id, model_id, generation, kind, content_hash, vector_ids)
               SELECT id, 1, 1, kind, sha256(id::text::bytea), ARRAY[id]
               FROM pgclip.embedding_1_1"""
        )
