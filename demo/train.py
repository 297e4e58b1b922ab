"""Trains the demo CLIP from scratch on drawn emoji: `python demo/train.py`.

Beside CLIP's loss there is a table of one learned vector per emoji that pictures and texts are
both drawn to; it makes every step see every emoji. It is dropped at the end: what is saved is
plain CLIP.
"""

from __future__ import annotations

import argparse
import math
import shutil
import time
from pathlib import Path

import numpy as np
import torch
from batches import Batch, Batches, all_emoji, draw_ahead
from captions import CaptionWriter, Lexicon, build_lexicon
from emoji_data import Emoji
from losses import text_losses
from model import (
    DIMENSION,
    WIDTH,
    make_model,
    make_processor,
    make_tokenizer,
    save_processor,
    save_weights,
    start_from_patches,
)
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPModel, CLIPProcessor

PEAK_RATE, POLISH_RATE, WARM_UP, WEIGHT_DECAY = 1.2e-3, 8e-4, 200, 0.05
LARGEST_LOGIT_SCALE = math.log(100)  # as in the CLIP paper
SAVE_EVERY = 1000  # steps


def text_vectors(model: CLIPModel, tokens: dict[str, Tensor]) -> Tensor:
    """Texts to unit vectors."""
    return F.normalize(model.text_projection(model.text_model(**tokens).pooler_output), dim=-1)


def picture_vectors(model: CLIPModel, pixels: Tensor) -> Tensor:
    """Pictures to unit vectors; the tower in bfloat16, a little faster here."""
    with torch.autocast("cpu", torch.bfloat16):
        pooled = model.vision_model(pixels).pooler_output
    return F.normalize(model.visual_projection(pooled.float()), dim=-1)


def losses_of(model: CLIPModel, table: Tensor, batch: Batch) -> dict[str, Tensor]:
    """The parts of the loss of both towers."""
    pictures, table = picture_vectors(model, batch.pixels), F.normalize(table, dim=-1)
    texts, scale = text_vectors(model, batch.texts.tokens), model.logit_scale.exp()
    of_pictures = F.cross_entropy(scale * pictures @ table.T, batch.emoji, label_smoothing=0.02)
    of_texts = text_losses(pictures, batch.emoji, texts, table, scale, batch.texts)
    return {"picture": of_pictures, **of_texts}


class Descent:
    """AdamW for a number of minutes: a warm-up by steps, then a cosine over the time spent."""

    def __init__(
        self,
        parameters: list[nn.Parameter],
        logit_scale: nn.Parameter,
        minutes: float,
        peak_rate: float,
    ) -> None:
        self.parameters, self.logit_scale = parameters, logit_scale
        self.minutes, self.peak_rate = minutes, peak_rate
        matrices = [p for p in parameters if p.ndim > 1]
        rest = [p for p in parameters if p.ndim <= 1]
        groups = [
            {"params": matrices, "weight_decay": WEIGHT_DECAY},
            {"params": rest, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), eps=1e-6, fused=True)
        self.start, self.steps = time.monotonic(), 0

    @property
    def elapsed(self) -> float:
        """Minutes since the start."""
        return (time.monotonic() - self.start) / 60

    def step(self, parts: dict[str, Tensor]) -> None:
        """One step down the sum of losses."""
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, self.elapsed / self.minutes)))
        for group in self.optimizer.param_groups:
            warm = min(1.0, (self.steps + 1) / WARM_UP)
            group["lr"] = self.peak_rate * warm * (0.005 + 0.995 * cosine)
        self.optimizer.zero_grad()
        sum(parts.values()).backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.logit_scale.data.clamp_(0, LARGEST_LOGIT_SCALE)
        if self.steps % 50 == 0:
            shown = "  ".join(f"{name} {value.item():.3f}" for name, value in parts.items())
            scale = self.logit_scale.exp().item()
            print(
                f"{self.elapsed:5.1f} min {self.steps:6d}  {shown}  scale {scale:.1f}", flush=True
            )
        self.steps += 1


def new_table(rows: int, dimension: int) -> nn.Parameter:
    """One random vector an emoji, short so that it turns quickly.

    Only its direction counts, and Adam's steps are of one size: in a trial, vectors twenty times as
    long took twice the steps to the same loss.
    """
    return nn.Parameter(torch.randn(rows, dimension) * 0.03)


@torch.no_grad()
def table_of_names(model: CLIPModel, processor: CLIPProcessor, emoji: list[Emoji]) -> nn.Parameter:
    """The table that a trained model starts from: what it makes of the names."""
    names = [item.name for item in emoji]
    tokens = processor.tokenizer(names, padding=True, truncation=True, return_tensors="pt")
    vectors = model.text_projection(model.text_model(**tokens).pooler_output)
    return nn.Parameter(F.normalize(vectors, dim=-1) * 0.35)


def train(
    model: CLIPModel, table: nn.Parameter, batches: Batches, minutes: float, folder: Path
) -> None:
    """Trains both towers for so many minutes, saving now and then and at the end."""
    descent = Descent([*model.parameters(), table], model.logit_scale, minutes, PEAK_RATE)
    for batch in batches:
        if descent.elapsed >= minutes:
            break
        descent.step(losses_of(model, table, batch))
        if descent.steps % SAVE_EVERY == 0:
            save_weights(model, folder)
    save_weights(model, folder)


@torch.no_grad()
def all_picture_vectors(model: CLIPModel, batches: Batches) -> Tensor:
    """(emoji, count, dimension) unit vectors of the training pictures as they were drawn."""
    found = []
    for pictures in batches.pictures:
        pixels = torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float() / 255
        found.append(picture_vectors(model, batches.normalise(pixels)))
    return torch.stack(found)


def polish_texts(model: CLIPModel, batches: Batches, minutes: float, folder: Path) -> None:
    """Trains the text tower alone, against what the picture tower now makes of the pictures.

    Without the costly tower a minute holds many more captions, which is what teaches the model
    to keep to the words it knows and to pass over the others.
    """
    vectors = all_picture_vectors(model, batches)
    table = F.normalize(vectors.mean(1), dim=-1)
    parameters = [
        *model.text_model.parameters(),
        *model.text_projection.parameters(),
        model.logit_scale,
    ]
    descent = Descent(parameters, model.logit_scale, minutes, POLISH_RATE)
    while descent.elapsed < minutes:
        emoji = batches.some_emoji()
        pictures = vectors[emoji, batches.rng.integers(0, vectors.shape[1], len(emoji))]
        batch = batches.some_texts(emoji)
        texts, scale = text_vectors(model, batch.tokens), model.logit_scale.exp()
        descent.step(text_losses(pictures, torch.from_numpy(emoji), texts, table, scale, batch))
    save_weights(model, folder)


def corpus(lexicon: Lexicon) -> list[str]:
    """What the tokenizer learns from: every term often, captions, and some plain words."""
    writer = CaptionWriter(lexicon, seed=1)
    texts = [term.text for term in lexicon.terms]
    return texts * 20 + [writer.write(text) for text in texts] + list(lexicon.noise[::3])


def main() -> None:
    """Draws, trains, saves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=75)
    parser.add_argument("--text-minutes", type=float, default=15)
    parser.add_argument("--pictures", type=int, default=40, help="drawn ahead for each emoji")
    parser.add_argument("--cache", type=Path, default=Path("/tmp/pgclip_demo_training.npy"))
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "model")
    parser.add_argument("--start", type=Path, help="a trained folder to go on from")
    parser.add_argument("--seed", type=int, default=0, help="of batches and first weights")
    parser.add_argument("--width", type=int, default=WIDTH, help="of both towers")
    parser.add_argument("--dimension", type=int, default=DIMENSION, help="of vectors")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    pictures = draw_ahead(options.cache, options.pictures)
    emoji = all_emoji()
    lexicon = build_lexicon(emoji)
    if options.start:
        shutil.copytree(options.start, options.output, dirs_exist_ok=True)
        processor = CLIPProcessor.from_pretrained(options.start)
        model = CLIPModel.from_pretrained(options.start).train()
        table = table_of_names(model, processor, emoji)
    else:
        processor = make_processor(make_tokenizer(corpus(lexicon)))
        save_processor(processor, options.output)
        model = make_model(processor.tokenizer, options.width, options.dimension)
        table = new_table(len(emoji), model.config.projection_dim)
    batches = Batches(pictures, lexicon, processor, options.seed)
    if not options.start:
        start_from_patches(model, torch.cat([batches.make().pixels for _ in range(4)]))
    train(model, table, batches, options.minutes, options.output)
    polish_texts(model, batches, options.text_minutes, options.output)
    print(f"saved in {options.output}")


if __name__ == "__main__":
    main()
