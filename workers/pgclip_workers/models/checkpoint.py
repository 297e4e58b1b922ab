"""A model by its name: what the encoder asks of it, whichever library it comes from."""

import hashlib
from collections.abc import Sequence
from typing import Protocol

import torch

from pgclip_workers.models.tensors import Tensors
from pgclip_workers.pictures.preprocessing import Preprocessing

# The names that the models were published under, by OpenAI.
_KNOWN_AS = {
    "ViT-B/32": "openai/clip-vit-base-patch32",
    "ViT-B/16": "openai/clip-vit-base-patch16",
    "ViT-L/14": "openai/clip-vit-large-patch14",
    "ViT-L/14@336px": "openai/clip-vit-large-patch14-336",
    **{name: f"open_clip:{name}/openai" for name in ("RN50", "RN101", "RN50x4", "RN50x16")},
    "RN50x64": "open_clip:RN50x64/openai",
}
OPEN_CLIP = "open_clip:"


class Checkpoint(Protocol):
    """Weights, and how pictures and texts are made ready for them.

    `packable`: linear layers are only called, so that others can take their place (packed.py).
    `bfloat16`: its eight bits of mantissa are enough for the vectors to be the reference's.
    `context` is the most tokens of a text, `logit_scale` the factor of a cosine and `logit_bias`
    what is added to it: None in models whose scores of several texts are softmaxed, a number in
    those in which each is for itself (sigmoid).
    """

    source: str
    module: torch.nn.Module
    preprocessing: Preprocessing
    packable: bool
    bfloat16: bool
    context: int
    logit_scale: float
    logit_bias: float | None

    def tokenize(self, texts: Sequence[str]) -> tuple[list[list[int]], list[int]]:
        """Windows of token ids, and for each the position of its text in `texts`."""
        ...

    def pad(self, windows: Sequence[list[int]]) -> Tensors:
        """Windows as the model takes them, padded as it was trained."""
        ...

    def image_features(self, pixels: Tensors) -> torch.Tensor:
        """`pixel_values`, normalised, and what NaFlex adds, on the device → (n, dimension)."""
        ...

    def text_features(self, tokens: Tensors) -> torch.Tensor:
        """What `pad` made, on the device → (n, dimension)."""
        ...


def resolve(name: str) -> str:
    """The hub id, folder or open_clip name behind a name that people know."""
    return _KNOWN_AS.get(name, name)


def load(name: str, fast_decode: bool) -> Checkpoint:
    """Loads a checkpoint onto the CPU. Raises ConfigurationError."""
    source = resolve(name)
    if source.startswith(OPEN_CLIP):
        from pgclip_workers.models.open_clip_checkpoint import OpenClipCheckpoint

        return OpenClipCheckpoint(source.removeprefix(OPEN_CLIP), fast_decode)
    from pgclip_workers.models.transformers_checkpoint import TransformersCheckpoint

    return TransformersCheckpoint(source, fast_decode)


def weights_hash(module: torch.nn.Module) -> str:
    """SHA-256 over the weights as the checkpoint has them, by name: the same in every format."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
