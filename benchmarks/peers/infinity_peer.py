"""infinity-emb's engine, run in an environment of its own; see benchmarks/peers.py.

    python infinity_peer.py CHECKPOINT WORKLOAD --batch-size N

The engine queues what it is asked for and has a thread each for decoding with preprocessing, for
the model and for the rest. The server around it is left out: no HTTP, no JSON.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timing
import torch
from infinity_emb import AsyncEmbeddingEngine, EngineArgs

IN_FLIGHT = 2  # one request is decoded while another is computed


class Infinity:
    """An engine, and the event loop that it lives in."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        if arguments.precision != "float32" and not torch.cuda.is_available():
            sys.exit("On a CPU infinity computes CLIP in float32, whatever dtype it is given.")
        if arguments.processes != 1:
            # More `device_id` make more replicas, but not more threads to run them: on few
            # processors the engine waits for itself for ever.
            sys.exit("infinity has no pool of processes.")
        self._batch_size = arguments.batch_size
        with tempfile.TemporaryDirectory() as folder:
            self._engine = AsyncEmbeddingEngine.from_args(
                EngineArgs(
                    model_name_or_path=str(adapted(arguments.checkpoint, Path(folder))),
                    engine="torch",
                    dtype=arguments.precision,  # the default, "auto", is float32 on a CPU
                    batch_size=arguments.batch_size,
                    model_warmup=False,  # takes long; timing.py does its own
                )
            )
        self._runner = asyncio.Runner()
        self._runner.run(self._engine.astart())

    def photos(self, photos: Sequence[bytes]) -> timing.Vectors:
        """The engine decodes bytes."""
        return self._runner.run(self._images(photos, bytes))

    def large(self, paths: Sequence[Path]) -> timing.Vectors:
        """The engine takes addresses but no paths, so files are read here."""
        return self._runner.run(self._images(paths, Path.read_bytes))

    def texts(self, texts: Sequence[str]) -> timing.Vectors:
        """All at once: the engine sorts eight batches by length, and pads to a batch's longest."""
        vectors, _ = self._runner.run(self._engine.embed(list(texts)))
        return np.stack(vectors)

    def close(self) -> None:
        """Stops the engine's threads."""
        self._runner.run(self._engine.astop())
        self._runner.close()

    async def _images(self, given: Sequence[Any], read: Callable[[Any], bytes]) -> timing.Vectors:
        """A batch a request. All in one would keep every decoded picture in memory to the end."""
        free = asyncio.Semaphore(IN_FLIGHT)

        async def request(batch: Sequence[Any]) -> list[timing.Vectors]:
            async with free:
                vectors, _ = await self._engine.image_embed(images=[read(item) for item in batch])
                return vectors

        size = self._batch_size
        batches = [given[at : at + size] for at in range(0, len(given), size)]
        return np.concatenate(await asyncio.gather(*map(request, batches)))


def adapted(checkpoint: Path, folder: Path) -> Path:
    """The checkpoint with the text's length in its configuration; the rest are links.

    transformers 4 gives each configuration a `max_length` of 20, meant for generated text. infinity
    takes it for the model's and cuts texts there: less work than its peers', and other vectors.
    """
    for file in checkpoint.iterdir():
        (folder / file.name).symlink_to(file.resolve())
    config = json.loads((checkpoint / "config.json").read_text())
    config["max_length"] = config["text_config"]["max_position_embeddings"]
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps(config))
    return folder


if __name__ == "__main__":
    timing.main("infinity-emb", Infinity)
