"""The first stage: contents of a batch from Postgres and from sources, pictures decoded."""

from collections.abc import Callable

from pgclip_workers.batch import Batch, ContentId, Failure
from pgclip_workers.decode import Pixels
from pgclip_workers.decoders import Decoders
from pgclip_workers.leases import Leases
from pgclip_workers.preprocessing import Preprocessing
from pgclip_workers.refused import Refused

_DROPPED = Failure(
    "content_dropped", "its bytes were not kept (keep_source); submit it again to have it encoded"
)


def fetch(batch: Batch, leases: Leases, decoders: Decoders, preprocessing: Preprocessing) -> None:
    """Fills in images and texts to encode, and embeddings where a content has them already."""
    for job in batch.jobs:
        if job.content_hash is not None:
            batch.content_of[job.id] = ContentId(job.kind, job.content_hash)
    inline = set(batch.content_of.values())
    batch.embeddings.update(leases.known(inline))
    contents = leases.fetch(inline - batch.embeddings.keys())

    sources = {
        job.source: decoders.begin(None, job.source, preprocessing)
        for job in batch.jobs
        if job.source is not None
    }
    images: dict[ContentId, Callable[[], Pixels | Refused]] = {}
    for content, data in contents.items():
        if data is None:
            batch.fail(content, _DROPPED)
        elif content.kind == "image":
            images[content] = decoders.begin(data, None, preprocessing)
        else:
            batch.texts[content] = data.decode()
    for content, wait in images.items():
        decoded = wait()
        if isinstance(decoded, Refused):
            batch.fail(content, Failure(decoded.reason, decoded.message))
        else:
            batch.images[content] = decoded.array

    read = {source: wait() for source, wait in sources.items()}
    for job in batch.jobs:
        if job.source is not None:
            decoded = read[job.source]
            if isinstance(decoded, Refused):
                batch.failures[job.id] = Failure(decoded.reason, decoded.message)
                continue
            content = ContentId("image", decoded.hash)
            batch.content_of[job.id] = content
            batch.images[content] = decoded.array
    # What was behind the sources is known only now. Nothing is encoded twice.
    batch.embeddings.update(leases.known(batch.images.keys() - inline))
    for content in batch.embeddings:
        batch.images.pop(content, None)
