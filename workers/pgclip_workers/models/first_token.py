"""The last layer of a vision tower, for the one token that is looked at.

CLIP's picture vector is made of the first token of the last layer alone. Its other tokens, 49 of
50 in ViT-B/32, need keys and values there, but neither a query nor the feed-forward block: a
fifteenth of the whole tower's work.
"""

from typing import Any

import torch
from torch import nn

# Towers of this build that take the first token: model types of transformers.
_TOWERS = ("clip_vision_model", "metaclip_2_vision_model", "chinese_clip_vision_model")


class FirstTokenLayer(nn.Module):
    """An encoder layer that returns its first token only, (n, 1, width)."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self._layer = layer

    def forward(self, tokens: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        """(n, tokens, width) → (n, 1, width). Towers for pictures have no attention mask."""
        layer, attention = self._layer, self._layer.self_attn
        normed = layer.layer_norm1(tokens)

        def heads(rows: torch.Tensor) -> torch.Tensor:
            return rows.view(*rows.shape[:2], attention.num_heads, -1).transpose(1, 2)

        seen = nn.functional.scaled_dot_product_attention(
            heads(attention.q_proj(normed[:, :1])),
            heads(attention.k_proj(normed)),
            heads(attention.v_proj(normed)),
            scale=attention.scale,
        )
        first = tokens[:, :1] + attention.out_proj(seen.transpose(1, 2).flatten(2))
        result: torch.Tensor = first + layer.mlp(layer.layer_norm2(first))
        return result


def shorten(model: Any) -> None:
    """Replaces the last layer of the model's vision tower where only its first token counts."""
    vision = getattr(getattr(model, "config", None), "vision_config", None)
    if getattr(vision, "model_type", None) in _TOWERS:
        layers = model.vision_model.encoder.layers
        layers[-1] = FirstTokenLayer(layers[-1])
