"""The store path alone: claims what is queued, then stores it in a worker's batches when told to.

Prints "ready", waits for a line, prints the seconds that storing took, and keeps the segments in
order until it is ended.
"""

import sys
import time

import pgclip_workers  # isort: skip  # sets what torch and numpy read on import
from figures import timed
from stub_worker import StubEncoder

from pgclip.database import Database
from pgclip.settings import Settings
from pgclip_workers.labelling.shelf import LabelShelf
from pgclip_workers.pipeline.batch import Batch, ContentId
from pgclip_workers.pipeline.leases import Leases
from pgclip_workers.pipeline.store import Store
from pgclip_workers.upkeep.presence import Presence
from pgclip_workers.upkeep.sealer import Sealer
from pgclip_workers.upkeep.watchdog import Watchdog

assert pgclip_workers


def main() -> int:
    """Its standard input and output are the benchmark's."""
    settings = Settings.load()
    encoder = StubEncoder(settings)
    database = Database(settings.required("database_url"))
    with database.transaction("model") as cursor:
        cursor.execute("SELECT id FROM pgclip.model")
        (model,) = cursor.fetchone() or (0,)
    watchdog = Watchdog(settings, time.monotonic)
    presence = Presence(settings, database, model, encoder, watchdog, lambda: None, lambda _: None)
    leases = Leases(database, presence, model, encoder.batch_size)
    batches = [encoded(batch, leases, encoder) for batch in iter(leases.claim, None)]
    store = Store(
        database,
        LabelShelf(database, encoder, model, watchdog.encoding),
        encoder.dimension,
        settings.fetch_retry_for,
    )
    sealer = Sealer(settings, database, model)
    print("ready", flush=True)
    sys.stdin.readline()
    print(timed(lambda: [store.store(batch) for batch in batches]), flush=True)
    sys.stdin.readline()
    sealer.stop()
    presence.stop()
    return 0


def encoded(batch: Batch, leases: Leases, encoder: StubEncoder) -> Batch:
    """A batch as it comes to the store."""
    batch.content_of = {
        job.id: ContentId(job.kind, job.content_hash) for job in batch.jobs if job.content_hash
    }
    contents = list(batch.content_of.values())
    fetched = leases.fetch(contents)
    texts = [(fetched[content] or b"").decode() for content in contents]
    batch.embeddings = dict(zip(contents, encoder.encode_texts(texts), strict=True))
    return batch


if __name__ == "__main__":
    sys.exit(main())
