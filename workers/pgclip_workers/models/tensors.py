"""A model's inputs by name, as tokenizers and processors make them."""

import torch

Tensors = dict[str, torch.Tensor]
