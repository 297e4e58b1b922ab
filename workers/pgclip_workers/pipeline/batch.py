"""What travels through the pipeline: jobs under one lease, their contents, what became of them."""

import time
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from pgclip.items import Kind
from pgclip.settings import masked
from pgclip_workers.models.encoder import Bytes, Floats
from pgclip_workers.pictures.thumbnails import Thumbnail


class ContentId(NamedTuple):
    """A content: what is the same in several jobs is encoded once."""

    kind: Kind
    hash: bytes


@dataclass(frozen=True, slots=True)
class Job:
    """A leased job. Its content is inline, by hash, or behind a source."""

    id: int
    item_id: int
    collection: str
    key: str
    kind: Kind
    content_hash: bytes | None
    source: str | None

    def __str__(self) -> str:
        return f"item {masked(self.key)!r} in collection {self.collection!r}"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an item ends as failed: `reason` is a short code, `message` is for a person.

    `retry_after`: or why it is tried again, in so many seconds or later.
    """

    reason: str
    message: str
    retry_after: float | None = None


@dataclass(slots=True)
class Batch:
    """Jobs that run together. Each ends in `failures`, or has its content in `embeddings`.

    `thumbnails` are those that were made, by the picture's hash. `settled` are the jobs whose end
    is stored.
    """

    lease: UUID
    jobs: list[Job]
    content_of: dict[int, ContentId] = field(default_factory=dict)
    images: dict[ContentId, Bytes] = field(default_factory=dict)
    texts: dict[ContentId, str] = field(default_factory=dict)
    thumbnails: dict[bytes, Thumbnail] = field(default_factory=dict)
    embeddings: dict[ContentId, Floats] = field(default_factory=dict)
    failures: dict[int, Failure] = field(default_factory=dict)
    settled: set[int] = field(default_factory=set)
    claimed_at: float = field(default_factory=time.monotonic)

    def fail(self, content: ContentId, failure: Failure) -> None:
        """All jobs with this content fail."""
        for job_id, of_job in self.content_of.items():
            if of_job == content:
                self.failures.setdefault(job_id, failure)

    def done(self) -> list[Job]:
        """The jobs whose embeddings are there."""
        return [
            job
            for job in self.jobs
            if job.id not in self.failures and self.content_of.get(job.id) in self.embeddings
        ]
