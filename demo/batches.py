"""What training sees: pictures drawn ahead, varied as tensors, with captions and labels."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from captions import CaptionWriter, Lexicon, target_matrix
from emoji_data import Emoji, load_emoji
from model import IMAGE_SIZE
from render import TRAIN, render
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPProcessor

BATCH, CAPTIONS, LABELS = 192, 72, 24  # more pictures than texts: they are harder to learn


@lru_cache(maxsize=1)
def all_emoji() -> list[Emoji]:
    """The emoji, read once in each drawing process."""
    return load_emoji()


def draw_one(index: int, count: int) -> np.ndarray:
    """The training pictures of one emoji: (count, size, size, 3) uint8."""
    char = all_emoji()[index].char
    return np.stack([render(char, index, k, TRAIN, IMAGE_SIZE) for k in range(count)])


def draw_ahead(path: Path, count: int) -> np.ndarray:
    """Every training picture, drawn once: (emoji, count, size, size, 3) uint8, memory-mapped."""
    shape = (len(all_emoji()), count, IMAGE_SIZE, IMAGE_SIZE, 3)
    if not (path.exists() and np.load(path, mmap_mode="r").shape == shape):
        part = path.with_suffix(".part")
        pictures = np.lib.format.open_memmap(part, "w+", np.uint8, shape)
        with get_context("spawn").Pool() as pool:
            drawn = pool.starmap(draw_one, zip(range(shape[0]), repeat(count)), chunksize=8)
            for index, rows in enumerate(drawn):
                pictures[index] = rows
        pictures.flush()
        part.rename(path)
    return np.load(path, mmap_mode="r")


def vary(pictures: Tensor) -> Tensor:
    """Turns, shifts, scales, brightens and tints a batch (n, 3, h, w) in 0..1, at random."""
    n = len(pictures)
    angle, scale = (torch.rand(n) - 0.5) * 0.16, 0.85 + torch.rand(n) * 0.25
    affine = torch.zeros(n, 2, 3)
    affine[:, 0, 0] = affine[:, 1, 1] = scale * angle.cos()
    affine[:, 1, 0] = scale * angle.sin()
    affine[:, 0, 1] = -affine[:, 1, 0]
    affine[:, :, 2] = (torch.rand(n, 2) - 0.5) * 0.2
    grid = F.affine_grid(affine, list(pictures.shape), align_corners=False)
    pictures = F.grid_sample(pictures, grid, padding_mode="reflection", align_corners=False)
    light = 1 + (torch.rand(n, 1, 1, 1) - 0.5) * 0.5
    tint = 1 + (torch.rand(n, 3, 1, 1) - 0.5) * 0.16
    return (pictures * light * tint).clamp(0, 1)


@dataclass(frozen=True)
class Texts:
    """Captions of the first emoji of a batch, then one text for each label of a set."""

    tokens: dict[str, Tensor]
    meaning: Tensor  # (captions + labels, emoji): what each text means, rows sum to one
    captions: int


@dataclass(frozen=True)
class Batch:
    """One step's input: pictures, the emoji on them, and texts."""

    pixels: Tensor  # (BATCH, 3, size, size), normalised
    emoji: Tensor  # (BATCH,) indices
    texts: Texts


class Batches:
    """Makes batches, in a thread of its own when iterated over, one ahead."""

    def __init__(
        self, pictures: np.ndarray, lexicon: Lexicon, processor: CLIPProcessor, seed: int
    ) -> None:
        self.pictures, self.lexicon, self.processor = pictures, lexicon, processor
        self.writer = CaptionWriter(lexicon, seed)
        self.rng = np.random.default_rng(seed)
        images = processor.image_processor
        self.mean = torch.tensor(images.image_mean).view(3, 1, 1)
        self.std = torch.tensor(images.image_std).view(3, 1, 1)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Pixels (n, 3, h, w) in 0..1 as the model takes them."""
        return (pixels - self.mean) / self.std

    def some_emoji(self) -> np.ndarray:
        """BATCH different emoji."""
        return self.rng.permutation(len(self.pictures))[:BATCH]

    def some_texts(self, emoji: np.ndarray) -> Texts:
        """A caption for each emoji, then LABELS texts for categories drawn at random."""
        kinds = self.rng.permutation(len(self.lexicon.categories))[:LABELS]
        ids = [self.writer.pick_term(int(index)) for index in emoji]
        ids += [int(self.rng.choice(self.lexicon.categories[kind])) for kind in kinds]
        terms = [self.lexicon.terms[number] for number in ids]
        tokens = self.processor.tokenizer(
            [self.writer.write(term.text) for term in terms],
            padding=True,
            truncation=True,
            return_tensors="pt",
        )
        meaning = torch.from_numpy(target_matrix(terms, len(self.pictures)))
        return Texts(dict(tokens), meaning, len(emoji))

    def make(self) -> Batch:
        """One batch for both towers, with captions for the first CAPTIONS pictures."""
        emoji = self.some_emoji()
        number = self.rng.integers(0, self.pictures.shape[1], BATCH)
        pixels = torch.from_numpy(self.pictures[emoji, number]).permute(0, 3, 1, 2).float() / 255
        texts = self.some_texts(emoji[:CAPTIONS])
        return Batch(self.normalise(vary(pixels)), torch.from_numpy(emoji), texts)

    def __iter__(self) -> Iterator[Batch]:
        with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as thread:
            coming = thread.submit(self.make)
            while True:
                batch, coming = coming.result(), thread.submit(self.make)
                yield batch
