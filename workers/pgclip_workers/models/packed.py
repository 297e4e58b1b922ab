"""The same model, faster on a processor: weights laid out for it, activations where they arise.

On x86-64, oneDNN multiplies with weights in an order of its own, which depends on the processor.
As torch stores them they are put into that order in every forward pass; here it is done once. The
activation between the two halves of a feed-forward block is computed on the product while that is
in the processor's cache. These are the operators that torch.compile emits with freezing; used
directly they need no compiler, no waiting and no batch size fixed in advance, and are as fast
(docs/decisions.md has the figures).
"""

import logging
import platform

import torch
from torch import nn
from transformers.activations import ACT2FN

log = logging.getLogger(__name__)

# Rows of the products to expect, a hint for the layout: a batch of 64 with 50 tokens each.
_ROWS = 3200
# What oneDNN calls the activations: the operator, and the way to compute it.
_FUSED = {
    nn.SiLU: ("swish", ""),
    type(ACT2FN["gelu"]): ("gelu", "none"),
    type(ACT2FN["gelu_pytorch_tanh"]): ("gelu", "tanh"),
}


class PackedLinear(nn.Module):
    """A linear layer in oneDNN's layout, with an activation on its result. For inference only."""

    def __init__(self, linear: nn.Linear, activation: str = "none", algorithm: str = "") -> None:
        super().__init__()
        reorder = torch.ops.mkldnn._reorder_linear_weight
        self._weight = reorder(linear.weight.detach(), _ROWS)
        self._bias = linear.bias
        self._activation, self._algorithm = activation, algorithm

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """(…, in) → (…, out)."""
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            rows, self._weight, self._bias, self._activation, [], self._algorithm
        )
        return product


def pack(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Replaces the model's linear layers in place and converts it; returns it.

    What torch does not offer here, on another processor or in a later version, is left as it is.
    """
    if not _offered(dtype):
        return model.to(dtype)
    model.to(dtype)
    for block in list(model.modules()):
        fused = _FUSED.get(type(getattr(block, "activation_fn", None)))
        if fused and type(block.fc1) is nn.Linear:
            block.fc1, block.activation_fn = PackedLinear(block.fc1, *fused), nn.Identity()
        for name, layer in list(block.named_children()):
            # SigLIP 2 looks at the dtype of its patch embedding's weight.
            if type(layer) is nn.Linear and name != "patch_embedding":
                setattr(block, name, PackedLinear(layer))
    return model


def _offered(dtype: torch.dtype) -> bool:
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    try:
        with torch.inference_mode():
            PackedLinear(nn.Linear(16, 16).to(dtype), "swish")(torch.ones(2, 16, dtype=dtype))
    except (AttributeError, NotImplementedError, RuntimeError) as error:
        log.info("weights stay as they are, torch can't pack them: %s", error)
        return False
    return True
