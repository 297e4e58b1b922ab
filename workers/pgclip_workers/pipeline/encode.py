"""The second stage: one forward pass over a batch's images, one over its texts."""

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from pgclip_workers.models.encoder import DeviceLost, Encoder, Floats, TooLarge
from pgclip_workers.pipeline.batch import Batch, ContentId, Failure

log = logging.getLogger(__name__)

Input = TypeVar("Input")


def encode(batch: Batch, encoder: Encoder) -> None:
    """Fills in the embeddings of the batch's images and texts. Raises DeviceLost."""
    _encode(batch, batch.images, lambda pixels: [v[None] for v in encoder.encode_images(pixels)])
    _encode(batch, batch.texts, encoder.encode_texts)
    batch.images.clear()
    batch.texts.clear()


def _encode(
    batch: Batch,
    inputs: dict[ContentId, Input],
    run: Callable[[Sequence[Input]], list[Floats]],
) -> None:
    contents = list(inputs)
    if not contents:
        return
    outcomes = _outcomes(list(inputs.values()), run)
    vectors = [each for each in outcomes if not isinstance(each, Failure)]
    finite = not vectors or bool(np.isfinite(np.concatenate(vectors)).all())
    for content, outcome in zip(contents, outcomes, strict=True):
        if isinstance(outcome, Failure):
            batch.fail(content, outcome)
        elif finite or np.isfinite(outcome).all():
            batch.embeddings[content] = outcome
        else:
            message = "the model made a vector that is not finite of it"
            batch.fail(content, Failure("not_finite", message))


def _outcomes(
    inputs: Sequence[Input], run: Callable[[Sequence[Input]], list[Floats]]
) -> list[Floats | Failure]:
    """Vectors or a failure for each input. One that makes the model fail is found by halving."""
    try:
        return list(run(inputs))
    except DeviceLost:
        raise
    except Exception as error:
        if len(inputs) > 1:
            log.warning("a batch of %d failed and is halved: %s", len(inputs), error)
            half = len(inputs) // 2
            return _outcomes(inputs[:half], run) + _outcomes(inputs[half:], run)
        if isinstance(error, TooLarge):
            return [Failure("out_of_memory", str(error))]
        log.exception("the model failed on a single input")
        return [Failure("encoding_failed", f"{type(error).__name__}: {error}")]
