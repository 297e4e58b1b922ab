"""The patch embedding as one matrix product of pixels that are 128ths, from -1 to 127/128.

A convolution whose stride is its kernel is a product of patches with a matrix. Normalising pixels
is linear too, so it goes into that matrix, in float32: W (f x + o) + b = (W f) x + (W o + b). The
pixels are exact in bfloat16 and float16, and a pass in float32 over every pixel and a slow layout
are saved, a twentieth of ViT-B/32's time on a processor. They are centred, because what rounding
does to the matrix counts by their size, and 128ths, so that it is not too small for float16.
"""

from typing import Any

import torch
from torch import nn

_HALF = 128


def centred(pixels: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """uint8 → (pixel - 128) / 128, exactly."""
    return pixels.to(dtype).sub_(_HALF).mul_(1 / _HALF)


class PatchProduct(nn.Module):
    """Takes the place of a Conv2d, for pixels that are centred and not normalised."""

    def __init__(self, convolution: Any, factor: torch.Tensor, offset: torch.Tensor) -> None:
        super().__init__()
        weight = convolution.weight.detach().float()  # (width, 3, patch, patch)
        self._patch = int(convolution.kernel_size[0])
        bias = (weight * (offset + factor * _HALF).view(3, 1, 1)).sum(dim=(1, 2, 3))
        if convolution.bias is not None:
            bias += convolution.bias.detach().float()
        matrix = (weight * (factor * _HALF).view(3, 1, 1)).permute(0, 2, 3, 1).flatten(1)
        self.product = nn.Linear(matrix.shape[1], matrix.shape[0])
        self.product.weight.data, self.product.bias.data = matrix.contiguous(), bias
        # Vision towers look at the dtype of their patch embedding's weight.
        self.register_buffer("weight", torch.empty(0))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(n, 3, height, width) → (n, width, rows, columns)."""
        count, _, height, width = pixels.shape
        rows, columns = height // self._patch, width // self._patch
        shape = (count, rows, self._patch, columns, self._patch, 3)
        used = pixels.permute(0, 2, 3, 1)[:, : rows * self._patch, : columns * self._patch]
        patches = used.reshape(shape).transpose(2, 3).reshape(count, rows * columns, -1)
        embedded: torch.Tensor = self.product(patches)
        return embedded.transpose(1, 2).view(count, -1, rows, columns)


def fold_normalisation(model: nn.Module, factor: torch.Tensor, offset: torch.Tensor) -> bool:
    """Replaces the model's patch embedding in place; False if it has none of this kind.

    `factor` and `offset` are (3,): pixel · factor + offset is what the model was trained on.
    """
    for block in model.modules():
        convolution = getattr(block, "patch_embedding", None)
        if (
            isinstance(convolution, nn.Conv2d)
            and convolution.kernel_size == convolution.stride
            and convolution.kernel_size[0] == convolution.kernel_size[1]
            and convolution.in_channels == 3
            and convolution.padding in (0, (0, 0), "valid")
        ):
            block.patch_embedding = PatchProduct(convolution, factor, offset)
            return True
    return False
