"""Changing the model of a million items while everything runs.

    python benchmarks/models.py        results/models.json

Items' vectors are those of the demo's two models: of drawings, and between two drawings of the same
thing, the same two for both models. Stub workers deal them out, so that filling is as fast as the
database; what a real model would take follows from its rate. While it goes on somebody submits and
somebody searches.
"""

import argparse
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from burst import wait_for
from figures import Figure, keep, quantile, show, timed
from here import DATA
from maps import MODELS
from people import People
from system import STUB_WORKER, fresh_system, run_sql, worker
from vectors import Floats

from pgclip import Client, PgclipError

CALLERS = 8
QUERIES = 200
EACH = 20  # drawings of a thing
RATE = 37  # pictures a second, of ViT-B/32 on two cores: results/encode.json
QUIET = {"PGCLIP_SEGMENT_ROWS": "20000", "PGCLIP_KEEP_QUERIES": "1000"}
# What is built at leisure goes on for an hour, beside whatever comes.
INDEXED = """
    SELECT NOT EXISTS (SELECT FROM pgclip.segment WHERE state = 'closed')
       AND EXISTS (SELECT FROM pgclip.direction)
"""
STATE = "SELECT state FROM pgclip.model_mapping"
# Of what was there: somebody goes on submitting.
FILLED = """
    SELECT NOT EXISTS (SELECT FROM pgclip.model_walk)
       AND NOT EXISTS (SELECT FROM pgclip.job WHERE item_id <= (SELECT last_item FROM pgclip.model
                                                                WHERE name = 'new'))
"""


def main() -> int:
    """Prints the table, keeps the JSON."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--items", type=int, default=1_000_000)
    chosen = options.parse_args()
    DATA.mkdir(parents=True, exist_ok=True)
    files = [_vectors(model, chosen.items) for model in MODELS]
    figures: list[Figure] = []
    with fresh_system() as urls, Client(**urls) as client, _stub(urls, "old", files[0]):
        client.submit_many(
            {"text": f"vector {n}", "key": str(n)} for n in range(chosen.items)
        ).wait(7200)
        wait_for(INDEXED, urls["database_url"], 1)
        run_sql(urls["database_url"], "VACUUM ANALYZE")
        with Submitter(client, "quiet") as submitter:
            time.sleep(20)
        figures += show(submitter.figures("a quiet time"))
        figures += filling(client, urls, files[1], chosen.items)
    keep(figures, f"python benchmarks/models.py --items {chosen.items}", "models")
    return 0


def filling(client: Client, urls: dict[str, str], new: Path, items: int) -> list[Figure]:
    """From add to the last vector, and then the changes."""
    url = urls["database_url"]
    begin = time.perf_counter()
    # Whatever its map finds, so that what answers by a map cost is measured.
    client.add_model("new", map_bound=0.001)
    with Submitter(client, "filling") as submitter, _stub(urls, "new", new):
        wait_for(f"SELECT NOT coalesce(({STATE}) = 'waits', false)", url)  # few have no map
        mapped = time.perf_counter() - begin
        figures = early(client, url, new, items)
        resumed = time.perf_counter()
        wait_for(FILLED, url, 1)
        took = mapped + time.perf_counter() - resumed
        figures += show([
            Figure("from add to early answers for all", mapped, "s", ""),
            Figure("… were its sample encoded at 37 a second", mapped + 20_000 / RATE, "s",
                   "≈ 1,200"),
            Figure("from add to the last vector", took, "s", ""),
            Figure("… were all encoded at 37 a second", items / RATE, "s", ""),
            *submitter.figures("filling at once"),
        ])  # fmt: skip
        return figures + changing(client, url, new)


def early(client: Client, url: str, new: Path, items: int) -> list[Figure]:
    """What is answered by a map, while filling pauses; then a minute of it at RATE."""
    client.pause_model("new")
    wait_for("SELECT NOT EXISTS (SELECT FROM pgclip.job WHERE lease IS NOT NULL)", url)
    queries = _queries()
    found, times = _answers(client, queries, "new")
    filled = next(model for model in client.models() if model.name == "new").items / items
    judged = min((each.recall or 0 for each in client.model_maps("new")), default=0)
    client.resume_model("new")
    client.pace_model("new", RATE)
    with Submitter(client, "paced") as paced:
        time.sleep(60)
    client.pace_model("new", None)
    return show([
        Figure("filled when early answers were judged here", filled, ""),
        Figure("early answers, as the worker judged them: recall@10", judged, "", "≥ 0.9"),
        Figure("early answers against the model's own: recall@10",
               _recall(found, queries, np.load(new, mmap_mode="r")), "", "≥ 0.9"),
        Figure("a search by a map, p50", quantile(times, 50), "ms"),
        *paced.figures("filling at 37 a second"),
    ])  # fmt: skip


def changing(client: Client, url: str, new: Path) -> list[Figure]:
    """There, back, there again; and then the old one is retired."""
    wait_for("SELECT bool_and(is_ready) FROM pgclip.readiness('new')", url, 5)
    queries = _queries()
    found, times = _answers(client, queries, "new")
    figures = show([
        Figure("answers when it is filled: recall@10",
               _recall(found, queries, np.load(new, mmap_mode="r")), ""),
        Figure("a search without a map, p50", quantile(times, 50), "ms"),
    ])  # fmt: skip
    for what, change in (
        ("promote", lambda: client.promote_model("new")),
        ("rollback", client.rollback_model),
        ("promote again", lambda: client.promote_model("new")),
    ):
        figures += show(changed(client, what, change))
    gone = time.perf_counter()
    client.retire_model("old", anyway=True)
    wait_for("SELECT bool_and(state <> 'dropping') FROM pgclip.models", url, 1)
    return figures + show([Figure("retired, until all is gone", time.perf_counter() - gone, "s")])


def changed(client: Client, what: str, change: Callable[[], Any]) -> list[Figure]:
    """A change beside callers who search without a pause."""
    ended = threading.Event()
    times: list[tuple[float, float]] = []
    errors: list[str] = []

    def call(caller: int) -> None:
        n = caller
        while not ended.is_set():
            n += CALLERS
            begin = time.perf_counter()
            try:
                client.search(f"vector {n % 5000}", k=10)
            except PgclipError as error:
                errors.append(str(error))
            times.append((begin, time.perf_counter() - begin))

    with ThreadPoolExecutor() as pool:
        callers = [pool.submit(call, n) for n in range(CALLERS)]
        try:
            time.sleep(8)
            at = time.perf_counter()
            took = timed(change)
            time.sleep(8)
        finally:
            ended.set()
    for each in callers:
        each.result()
    if errors:
        print(errors[0], file=sys.stderr)
    before = [seconds for begin, seconds in times if begin + seconds < at]
    after = [seconds for begin, seconds in times if begin + seconds >= at]
    return [
        Figure(f"{what}: the transaction and what it asks first", 1000 * took, "ms"),
        Figure(f"{what}: searches", len(times), ""),
        Figure(f"{what}: errors", len(errors), "", "0"),
        Figure(f"{what}: slowest search before", 1000 * max(before), "ms"),
        Figure(f"{what}: slowest search from then on", 1000 * max(after), "ms"),
        Figure(f"{what}: search before, p50", quantile(before, 50), "ms"),
        Figure(f"{what}: search from then on, p50", quantile(after, 50), "ms"),
    ]


class Submitter:
    """Somebody who submits a text twenty times a second."""

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self._name = name
        self._times: list[float] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Submitter":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        n = 0
        while not self._stopping.wait(0.05):
            n += 1
            key = f"{self._name} {n}"
            self._times.append(timed(lambda: self._client.submit_text(key, key=key)))  # noqa: B023

    def figures(self, when: str) -> list[Figure]:
        """Of all until now."""
        return [
            Figure(f"{when}: submit_text, p50", 1000 * statistics.median(self._times), "ms"),
            Figure(f"{when}: submit_text, p99", quantile(self._times, 99), "ms", "< 50"),
        ]


@contextmanager
def _stub(urls: dict[str, str], name: str, vectors: Path) -> Iterator[None]:
    """A worker of a model that deals out vectors."""
    alive = f"SELECT count(*) > 0 FROM pgclip.workers WHERE alive AND model = '{name}'"
    with worker(urls, STUB_WORKER, PGCLIP_MODEL_NAME=name, STUB_VECTORS=str(vectors), **QUIET):
        wait_for(alive, urls["database_url"])
        yield


def _answers(client: Client, queries: Floats, model: str) -> tuple[list[list[int]], list[float]]:
    """Of each query the numbers of the ten items found, and the time."""
    found, times = [], []
    for query in queries:
        begin = time.perf_counter()
        hits = client.search_vector(query, k=10, model=model, query_kind="text")
        times.append(time.perf_counter() - begin)
        found.append([int(hit.key) for hit in hits if hit.key.isdigit()])
    return found, times


def _recall(found: list[list[int]], queries: Floats, vectors: Any) -> float:
    """Of the ten nearest; whatever ties with the tenth counts."""
    best = np.full((len(queries), 0), 0, np.float32)
    for part in np.array_split(np.arange(len(vectors)), 1 + len(vectors) // 50_000):
        scores = queries @ np.asarray(vectors[part], np.float32).T
        best = -np.sort(-np.concatenate([best, scores], axis=1), axis=1)[:, :10]
    hits = [
        (np.asarray(vectors[keys], np.float32) @ query >= least - 1e-3).sum() / 10
        for keys, query, least in zip(found, queries, best[:, -1], strict=True)
    ]
    return float(np.mean(hits))


def _queries() -> Floats:
    """Texts that ask for drawings, by the second model."""
    return People(0, 1, MODELS[1]).asked()[:QUERIES]


def _vectors(model: str, count: int) -> Path:
    """A file of (count, 512) halves."""
    file = DATA / f"changed-{model}-{count}.npy"
    if not file.exists():
        random = np.random.default_rng(8)
        drawn = People(0, 1, model).drawn(5_000, EACH)
        found = np.empty((count, drawn.shape[1]), np.float16)
        for part in np.array_split(np.arange(count), 1 + count // 50_000):
            one = random.integers(len(drawn), size=len(part))
            other = one // EACH * EACH + random.integers(EACH, size=len(part))
            share = random.random((len(part), 1), np.float32) / 2
            made = (1 - share) * drawn[one] + share * drawn[other]
            found[part] = made / np.linalg.norm(made, axis=1, keepdims=True)
        np.save(file, found)
    return file


if __name__ == "__main__":
    sys.exit(main())
