"""What the worker tells about its work, for whoever counts it."""

from contextlib import AbstractContextManager, nullcontext

from pgclip_workers.pipeline.batch import Batch


class Observer:
    """Counts nothing; `metrics.Metrics` does. What it is told must cost the pipeline no time."""

    def stage(self, name: str) -> AbstractContextManager[object]:
        """Surrounds one batch's passage through a stage: fetch, encode or store."""
        return nullcontext()

    def encoded(self, images: int, texts: int) -> None:
        """A batch's forward passes are over."""

    def settled(self, batch: Batch) -> None:
        """A batch is stored: its jobs in `settled` have ended."""

    def answered(self, seconds: float) -> None:
        """A query has its vector, or is refused."""

    def refused_message(self) -> None:
        """A message from Redis is no ticket, and is dropped."""

    def stop(self) -> None:
        """The worker ends."""
