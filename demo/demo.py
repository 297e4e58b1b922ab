"""`make demo`: everything embedded, the shipped pictures and texts indexed, then searched.

python demo/demo.py            shows it and stops what it started
python demo/demo.py --keep     stays up until Ctrl-C, to be tried from Python and SQL
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2

from pgclip import Batch, Client, Hit, PgclipError
from pgclip.local import LocalServices, LocalServicesError
from pgclip.migrate import migrate

HERE = Path(__file__).resolve().parent
MODEL = HERE / "model"
# Vectors of another model do not mix: a new demo model gets a folder of its own.
DIGEST = hashlib.sha256((MODEL / "model.safetensors").read_bytes()).hexdigest()[:8]
DATA = HERE.parent / ".pgclip" / f"demo-{DIGEST}"
LOG = DATA / "worker.log"
PICTURES = HERE / "pictures"
COLLECTION = "demo"
QUERIES = ["a black cat", "something sweet to eat", "a musical instrument"]
LABELLED = ["guitar.jpg", "penguin.jpg", "airplane.jpg", "panda.jpg", "kitchen-knife.jpg"]
SAMPLE = "automobile.jpg"


def main() -> int:
    """Runs the demo; returns the exit status."""
    parser = argparse.ArgumentParser(description="Index and search the shipped pictures.")
    parser.add_argument("--keep", action="store_true", help="stay up until Ctrl-C")
    options = parser.parse_args()
    try:
        print("Starting embedded Postgres (with pgvector) and Redis …", flush=True)
        with LocalServices(DATA) as services:
            urls = {"database_url": services.database_url, "redis_url": services.redis_url}
            migrate(urls["database_url"])
            print("Starting a worker with the demo model …", flush=True)
            with worker(urls), Client(**urls) as client:
                index(client)
                show_labels(client)
                show_searches(client)
                show_how_to_go_on(urls, options.keep)
                if options.keep:
                    signal.pause()
    except (PgclipError, LocalServicesError) as error:
        print(f"\n{error}\nThe worker's log: {LOG}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    print(f"Stopped what was started; the data stay in {DATA}.")
    return 0


@contextmanager
def worker(urls: dict[str, str]) -> Iterator[None]:
    """A worker process with the demo model, ready to work."""
    environment = {
        **os.environ,
        "PGCLIP_DATABASE_URL": urls["database_url"],
        "PGCLIP_REDIS_URL": urls["redis_url"],
        "PGCLIP_MODEL": str(MODEL),
        "PGCLIP_MODEL_NAME": "demo",
        "PGCLIP_ROOTS": str(PICTURES),
    }
    command = [sys.executable, "-m", "pgclip", "worker"]
    with LOG.open("w") as log:
        # A session of its own: Ctrl-C is for us, who then stop it.
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_for(process, urls["database_url"])
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def wait_for(process: "subprocess.Popen[bytes]", database_url: str) -> None:
    """Returns when the process is among the living workers."""
    alive = "SELECT count(*) FROM pgclip.workers WHERE alive AND pid = %s"
    with psycopg2.connect(database_url) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        while process.poll() is None:
            cursor.execute(alive, (process.pid,))
            if cursor.fetchone() != (0,):
                return
            time.sleep(0.1)
    raise PgclipError("the worker ended before it was ready:\n" + LOG.read_text()[-2000:])


def items() -> list[dict[str, Any]]:
    """The shipped pictures, as references that the worker reads, and the texts."""
    pictures = json.loads((PICTURES / "pictures.json").read_text())
    texts = json.loads((HERE / "texts.json").read_text())
    return [
        {"image": PICTURES / name, "key": name, "collection": COLLECTION, "metadata": about}
        for name, about in pictures.items()
    ] + [
        {"text": text, "key": key, "collection": COLLECTION, "metadata": {"name": text}}
        for key, text in ((entry["key"], entry["text"]) for entry in texts)
    ]


def index(client: Client) -> None:
    """Submits everything and shows the progress."""
    todo = items()
    pictures = sum("image" in item for item in todo)
    started = time.monotonic()
    batch = client.submit_many(todo)
    show_progress(batch)
    batch.wait(timeout=60)
    took = time.monotonic() - started
    print(
        f"\n{pictures} pictures and {len(todo) - pictures} texts indexed in {took:.1f} s "
        f"({len(todo) / took:.0f} a second), with vectors and labels."
    )


def show_progress(batch: Batch) -> None:
    """Draws a bar until every item has ended."""
    while True:
        counts = batch.counts()
        ended = counts["done"] + counts["failed"]
        if sys.stdout.isatty():
            filled = 40 * ended // batch.submitted
            bar = "█" * filled + "·" * (40 - filled)
            print(f"\r  {bar} {ended} of {batch.submitted}", end="", flush=True)
        if ended == batch.submitted:
            return
        time.sleep(0.05)


def show_labels(client: Client) -> None:
    """The zero-shot labels of a few pictures."""
    print("\nLabels: what the model would sign; with a question mark, what somebody should see")
    for key in LABELLED:
        labels = client.get(key, collection=COLLECTION).labels
        best = [f"{label.name} {label.score:.2f}" for label in labels if label.set == "general"]
        # Of moderation nothing is decided: only that somebody should look.
        best += [f"{label.name}?" for label in labels if label.decision == "review"]
        print(f"  {key:<18} {', '.join(best) or 'none that the model would sign'}")


def show_searches(client: Client) -> None:
    """The best hits of three texts, among pictures, and of one picture, among everything."""
    for query in QUERIES:
        hits = client.search(query, k=5, collection=COLLECTION, kind="image")
        show_hits(f"“{query}”", hits)
    hits = client.search(image=PICTURES / SAMPLE, k=5, collection=COLLECTION)
    show_hits(f"the picture {SAMPLE}", hits)


def show_hits(query: str, hits: list[Hit]) -> None:
    """Prints hits as a table."""
    print(f"\nSearch for {query}")
    for hit in hits:
        print(f"  {hit.score:5.2f}  {hit.kind:<5}  {hit.key:<26} {hit.metadata['name']}")


def show_how_to_go_on(urls: dict[str, str], keep: bool) -> None:
    """Lines to try next."""
    if not keep:
        print("\nTo try it yourself, keep it running: .venv/bin/python demo/demo.py --keep\nThen:")
    else:
        print(f"\nRunning until Ctrl-C.\n  export PGCLIP_DATABASE_URL='{urls['database_url']}'")
        print(f"  export PGCLIP_REDIS_URL='{urls['redis_url']}'")
    print(
        """
  Python
    from pgclip import Client
    with Client() as client:                    # PGCLIP_DATABASE_URL, PGCLIP_REDIS_URL
        client.submit_text("a black cat asleep", key="note-7").wait(timeout=30)
        for hit in client.search("a cat on a sofa", k=5):
            print(hit.key, hit.score, hit.labels)

  SQL
    CALL pgclip.embed('a cat on a sofa');
    SELECT key, score, metadata FROM pgclip.search('a cat on a sofa', k => 5);
    SELECT key, score FROM pgclip.similar('penguin.jpg', of_collection => 'demo');
    SELECT key, label, score FROM pgclip.labels WHERE label = 'animal' ORDER BY score DESC;
"""
    )


if __name__ == "__main__":
    sys.exit(main())
