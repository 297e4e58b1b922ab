"""Pictures of different shapes in one batch: as rows of patches, with a mask (SigLIP 2 NaFlex)."""

from collections.abc import Sequence

import numpy as np
import torch

from pgclip_workers.models.encoder import Bytes
from pgclip_workers.models.tensors import Tensors


def patches(picture: Bytes, patch: int) -> Bytes:
    """uint8 (height, width, 3), multiples of `patch` → (patches, patch · patch · 3), by rows."""
    rows, columns = picture.shape[0] // patch, picture.shape[1] // patch
    blocks = picture.reshape(rows, patch, columns, patch, 3).transpose(0, 2, 1, 3, 4)
    return blocks.reshape(rows * columns, patch * patch * 3)


def stack(pictures: Sequence[Bytes], patch: int) -> Tensors:
    """The model's inputs, padded to the picture with the most patches.

    `pixel_values` uint8 (n, most, patch · patch · 3), `pixel_attention_mask` (n, most), and
    `spatial_shapes` (n, 2), rows and columns of patches.
    """
    flat = [patches(picture, patch) for picture in pictures]
    most = max(map(len, flat))
    values = np.zeros((len(flat), most, flat[0].shape[1]), np.uint8)
    mask = np.zeros((len(flat), most), np.int32)
    for n, rows in enumerate(flat):
        values[n, : len(rows)] = rows
        mask[n, : len(rows)] = 1
    shapes = np.array([picture.shape[:2] for picture in pictures], np.int64) // patch
    return {
        "pixel_values": torch.from_numpy(values),
        "pixel_attention_mask": torch.from_numpy(mask),
        "spatial_shapes": torch.from_numpy(shapes),
    }
