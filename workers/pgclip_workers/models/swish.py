"""QuickGELU in one pass over memory instead of three.

transformers computes x · sigmoid(1.702 x) by a product, a sigmoid and a product, and each reads
and writes all that a feed-forward block's wide half holds: on a GPU a fifth of ViT-L/14's time.
swish is x · sigmoid(x), which every library has in one pass.
"""

from typing import Any

import torch
from torch import nn
from transformers.activations import ACT2FN

# QuickGELU(x) = x · sigmoid(1.702 x), arXiv:1606.08415 section 2.
_QUICK = 1.702
_QUICK_GELU = type(ACT2FN["quick_gelu"])


@torch.no_grad()
def turn_into_swish(model: nn.Module) -> None:
    """Replaces QuickGELU in place: it is swish(1.702 x) / 1.702, both factors go into the weights.

    The weights should be float32, so that the factors are rounded once, with them.
    """
    block: Any
    for block in model.modules():
        if isinstance(getattr(block, "activation_fn", None), _QUICK_GELU):
            block.fc1.weight *= _QUICK
            block.fc1.bias *= _QUICK
            block.fc2.weight /= _QUICK
            block.activation_fn = nn.SiLU(inplace=True)
