"""The first stage: contents of a batch from Postgres and from sources, pictures decoded."""

from pgclip_workers.pictures.decode import Picture, Pixels
from pgclip_workers.pictures.pools import Pools
from pgclip_workers.pictures.preprocessing import Preprocessing
from pgclip_workers.pictures.refused import Refused
from pgclip_workers.pipeline.batch import Batch, ContentId, Failure
from pgclip_workers.pipeline.leases import Leases
from pgclip_workers.pipeline.thumbnails import Thumbnails

_DROPPED = Failure(
    "content_dropped", "its bytes were not kept (keep_source); submit it again to have it encoded"
)


def fetch(
    batch: Batch,
    leases: Leases,
    pools: Pools,
    preprocessing: Preprocessing,
    thumbnails: Thumbnails,
) -> None:
    """Fills in images and texts to encode, and embeddings where a content has them already."""
    for job in batch.jobs:
        if job.content_hash is not None:
            batch.content_of[job.id] = ContentId(job.kind, job.content_hash)
    inline = set(batch.content_of.values())
    batch.embeddings.update(leases.known(inline))
    due = thumbnails.due(batch.jobs)
    contents = leases.fetch(
        content for content in inline if content in due or content not in batch.embeddings
    )

    for content, data in contents.items():
        if data is None and content not in batch.embeddings:
            batch.fail(content, _DROPPED)
        elif data is not None and content.kind == "text":
            batch.texts[content] = data.decode()
    pictures = {
        content: data
        for content, data in contents.items()
        if content.kind == "image" and data is not None
    }
    images = {
        content: Picture(data, None, due.get(content, 0)) for content, data in pictures.items()
    }
    sources = {
        job.source: Picture(None, job.source, due.get(job.source, 0))
        for job in batch.jobs
        if job.source
    }
    decoded = iter(pools.decode([*sources.values(), *images.values()], preprocessing))
    read = {source: next(decoded) for source in sources}
    for content in images:
        _take(batch, content, next(decoded))

    for job in batch.jobs:
        if job.source:
            found = read[job.source]
            if isinstance(found, Refused):
                batch.failures[job.id] = Failure(found.reason, found.message, found.retry_after)
            else:
                batch.content_of[job.id] = ContentId("image", found.hash)
                _take(batch, batch.content_of[job.id], found)
    # What was behind the sources is known only now. Nothing is encoded twice.
    batch.embeddings.update(leases.known(batch.images.keys() - inline))
    for content in batch.embeddings:
        batch.images.pop(content, None)


def _take(batch: Batch, content: ContentId, decoded: Pixels | Refused) -> None:
    if isinstance(decoded, Refused):
        if content in batch.embeddings:
            return  # it was to have a thumbnail, and has none
        batch.fail(content, Failure(decoded.reason, decoded.message))
    else:
        batch.images[content] = decoded.array
        if decoded.thumbnail:
            batch.thumbnails[content.hash] = decoded.thumbnail
