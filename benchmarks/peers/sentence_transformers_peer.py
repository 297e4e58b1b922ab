"""sentence-transformers, run in an environment of its own; see benchmarks/peers.py.

    python sentence_transformers_peer.py CHECKPOINT WORKLOAD --batch-size N

`encode` does everything, batch after batch: it decodes, preprocesses and computes. It decodes on
one thread; `--processes` asks for its pool, in which each process decodes and computes.
"""

import argparse
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timing
from PIL import Image
from sentence_transformers import SentenceTransformer

WARM = "a photo"


class SentenceTransformers:
    """Loads transformers' checkpoints as they are."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._model = SentenceTransformer(
            str(arguments.checkpoint), model_kwargs={"dtype": arguments.precision}
        )
        self._batch_size = arguments.batch_size
        # The processor prefers a max_length that a tokenizer was saved with to the model's.
        self._processing = {"text": {"max_length": self._model.max_seq_length}}
        self._pool: dict[str, Any] | None = None
        if arguments.processes > 1:
            devices = [str(self._model.device)] * arguments.processes
            self._pool = self._model.start_multi_process_pool(devices)
            # Enough for the last process to be up: the first would do the few of timing.py alone.
            self._model.encode([WARM] * 20 * arguments.processes, pool=self._pool, chunk_size=1)

    def photos(self, photos: Sequence[bytes]) -> timing.Vectors:
        """Opened here, which reads the headers; decoded in `encode`."""
        return self._encode([Image.open(io.BytesIO(data)) for data in photos])

    def large(self, paths: Sequence[Path]) -> timing.Vectors:
        """As paths, which `encode` opens a batch at a time: few pictures are in memory."""
        return self._encode([str(path) for path in paths])

    def texts(self, texts: Sequence[str]) -> timing.Vectors:
        """Sorted by length in `encode`, and padded to the longest of the batch."""
        return self._encode(list(texts))

    def close(self) -> None:
        """Ends the pool."""
        if self._pool:
            self._model.stop_multi_process_pool(self._pool)

    def _encode(self, given: list[Any]) -> timing.Vectors:
        # The pool cuts the items in ten chunks a process; a batch is no larger than a chunk.
        return self._model.encode(
            given,
            batch_size=self._batch_size,
            normalize_embeddings=True,
            show_progress_bar=False,
            processing_kwargs=self._processing,
            pool=self._pool,
        )


if __name__ == "__main__":
    timing.main("sentence-transformers", SentenceTransformers)
