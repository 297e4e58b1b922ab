"""The losses: CLIP's, with texts that may mean several pictures, and one over label sets."""

from __future__ import annotations

import torch
from batches import Texts
from torch import Tensor
from torch.nn import functional as F

SPECIFIC = 0.8  # "bird" before "animal": the narrower label's share where several fit


def soft_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross entropy of rows of logits with rows of a distribution, both (n, m)."""
    return -(target * F.log_softmax(logits, dim=-1)).sum(-1).mean()


def normalised(weights: Tensor) -> Tensor:
    """Rows scaled to sum to one."""
    return weights / weights.sum(-1, keepdim=True).clamp_min(1e-8)


def contrastive(logits: Tensor, meaning: Tensor) -> Tensor:
    """CLIP's symmetric loss where text i means every picture j with meaning[i, j] > 0.

    With one text a picture and one meaning a text this is the loss of the CLIP paper. Pictures
    that no text means are only among the wrong answers. Both arguments (texts, pictures).
    """
    by_picture = normalised((meaning > 0).float().T / (meaning > 0).sum(-1))
    some = by_picture.any(-1)
    from_pictures = soft_cross_entropy(logits.T[some], by_picture[some])
    return (soft_cross_entropy(logits, normalised(meaning)) + from_pictures) / 2


def label_loss(logits: Tensor, meaning: Tensor, emoji: Tensor) -> Tensor:
    """Zero-shot labelling as a loss: each picture over a set of labels.

    `logits` (pictures, labels); `meaning` (labels, emoji) says what each label covers. Where
    several labels fit, the one that covers the fewest emoji should come first. Pictures that no
    label fits are left out.
    """
    fits = (meaning[:, emoji] > 0).T  # (pictures, labels)
    breadth = (meaning > 0).sum(-1).float()
    narrowest = torch.where(fits, breadth, torch.inf).argmin(-1)
    target = normalised(fits.float()) * (1 - SPECIFIC)
    target = target + SPECIFIC * F.one_hot(narrowest, logits.shape[1])
    some = fits.any(-1)
    return soft_cross_entropy(logits[some], target[some])


def text_losses(
    pictures: Tensor, emoji: Tensor, texts: Tensor, table: Tensor, scale: Tensor, batch: Texts
) -> dict[str, Tensor]:
    """What texts are trained on: to mean their emoji, their pictures, and to label pictures.

    All vectors are of unit length; `table` (emoji, dimension) has one for each emoji.
    """
    captions, labels = texts[: batch.captions], texts[batch.captions :]
    meaning, covers = batch.meaning[: batch.captions], batch.meaning[batch.captions :]
    return {
        "text": soft_cross_entropy(scale * texts @ table.T, batch.meaning),
        "clip": contrastive(scale * captions @ pictures.T, meaning[:, emoji]),
        "label": label_loss(scale * pictures @ labels.T, covers, emoji),
    }
