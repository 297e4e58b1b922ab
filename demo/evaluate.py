"""Measures the demo model on pictures drawn from seeds that training never uses.

`python demo/evaluate.py` prints the figures and writes demo/model/figures.json. The model is
loaded as any CLIP is, from its folder.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from captions import with_article
from categories import CATEGORIES
from emoji_data import Emoji, load_emoji
from PIL import Image
from render import EVALUATE, Style, draw, encode_jpeg, sprite
from templates import HELD_OUT, TEMPLATES
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModel, AutoProcessor

HERE = Path(__file__).parent
LABELS = (
    "person", "face", "animal", "bird", "fish", "insect", "plant", "flower", "fruit", "food",
    "drink", "vehicle", "boat", "aircraft", "building", "landscape", "weather", "sport",
    "clothing", "tool", "document", "weapon", "musical instrument", "electronic device",
    "sign or symbol",
)  # fmt: skip
LABEL_TEMPLATES = ("a photo of a {}", "a picture of {}", "a drawing of {}")
QUERIES = (
    "a cat", "a black cat", "something to eat", "something to drink", "a red car", "an insect",
    "a musical instrument", "a yellow fruit", "people in love", "bad weather",
)  # fmt: skip


class Clip:
    """The model and its processor, giving unit vectors."""

    def __init__(self, folder: Path) -> None:
        self.model = AutoModel.from_pretrained(folder).eval()
        self.processor = AutoProcessor.from_pretrained(folder)
        self.scale = self.model.logit_scale.exp().item()

    @torch.inference_mode()
    def images(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Pictures to (n, dimension) unit vectors."""
        found = []
        for start in range(0, len(pictures), 256):
            inputs = self.processor(images=list(pictures[start : start + 256]), return_tensors="pt")
            found.append(self.model.get_image_features(**inputs).pooler_output)
        return F.normalize(torch.cat(found), dim=-1)

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Texts to (n, dimension) unit vectors."""
        inputs = self.processor(
            text=list(texts), padding=True, truncation=True, return_tensors="pt"
        )
        return F.normalize(self.model.get_text_features(**inputs).pooler_output, dim=-1)

    def labels(self, labels: Sequence[str], templates: Sequence[str]) -> Tensor:
        """The ensemble of the CLIP paper: the normalised mean over templates, for each label."""
        vectors = [self.texts([t.format(label) for label in labels]) for t in templates]
        return F.normalize(torch.stack(vectors).mean(0), dim=-1)


def fresh_pictures(emoji: list[Emoji], number: int) -> list[Image.Image]:
    """One picture of each emoji, from an evaluation seed, through JPEG."""
    pictures = []
    for index, item in enumerate(emoji):
        rng = np.random.default_rng([EVALUATE, index, number])
        data = encode_jpeg(draw(item.char, rng, Style()), rng)
        pictures.append(Image.open(io.BytesIO(data)).convert("RGB"))
    return pictures


def recall(texts: Tensor, images: Tensor, same: Tensor) -> dict[str, float]:
    """The share of texts with a right picture first, and among the first five."""
    best = (texts @ images.T).topk(5).indices
    right = same.gather(1, best)
    return {
        "recall@1": round(right[:, 0].float().mean().item(), 4),
        "recall@5": round(right.any(1).float().mean().item(), 4),
    }


def drawn_alike(emoji: list[Emoji]) -> Tensor:
    """(n, n) bool: the font draws both emoji with the very same bitmap."""
    drawings = [sprite(item.char).tobytes() for item in emoji]
    return torch.tensor([[a == b for b in drawings] for a in drawings])


def retrieval(clip: Clip, emoji: list[Emoji], rounds: int) -> dict[str, dict[str, float]]:
    """Text to picture over all emoji, mean over rounds of fresh pictures and over templates."""
    same = drawn_alike(emoji)
    kinds = {
        "bare name": ("{}",),
        "templates of training": TEMPLATES[:: len(TEMPLATES) // 10],
        "held-out templates": HELD_OUT,
        "held-out templates, no article": HELD_OUT,
    }
    images = [clip.images(fresh_pictures(emoji, number)) for number in range(rounds)]
    figures = {}
    for kind, templates in kinds.items():
        article = "" if kind == "bare name" or kind.endswith("no article") else "a"
        phrases = [with_article(item.name, article) for item in emoji]
        results = [
            recall(clip.texts([t.format(p) for p in phrases]), pictures, same)
            for t in templates
            for pictures in images
        ]
        figures[kind] = {
            name: round(float(np.mean([r[name] for r in results])), 4) for name in results[0]
        }
    return figures


def fitting_labels(emoji: Emoji) -> list[str]:
    """The labels of LABELS that are right for an emoji; often none, sometimes several."""
    words = {word for kind in CATEGORIES if kind.covers(emoji) for word in kind.words}
    return [label for label in LABELS if label in words]


def labelling(clip: Clip, emoji: list[Emoji], rounds: int) -> dict[str, float]:
    """Zero-shot labels of fresh pictures, over the emoji that some label fits."""
    known = [(index, fits) for index, e in enumerate(emoji) if (fits := fitting_labels(e))]
    labels = clip.labels(LABELS, LABEL_TEMPLATES)
    right, confidence = [], []
    for number in range(rounds):
        images = clip.images(fresh_pictures(emoji, number))
        shares = (clip.scale * images @ labels.T).softmax(-1)
        top, best = shares.max(-1)
        right += [LABELS[int(best[index])] in fits for index, fits in known]
        confidence += [float(top[index]) for index, _ in known]
    return {
        "labels": len(LABELS),
        "pictures": len(right),
        "accuracy": round(float(np.mean(right)), 4),
        "mean softmax of the first label": round(float(np.mean(confidence)), 4),
    }


def searches(clip: Clip, emoji: list[Emoji]) -> dict[str, list[str]]:
    """What queries with more than one answer find first among fresh pictures, to read."""
    images = clip.images(fresh_pictures(emoji, 0))
    best = (clip.texts(QUERIES) @ images.T).topk(5).indices
    return {
        query: [emoji[int(index)].name for index in row]
        for query, row in zip(QUERIES, best, strict=True)
    }


def shipped(clip: Clip, folder: Path) -> dict[str, float]:
    """Retrieval by bare name among the pictures shipped for the demo."""
    listed = json.loads((folder / "pictures.json").read_text(encoding="utf-8"))
    images = clip.images([Image.open(folder / name).convert("RGB") for name in listed])
    texts = clip.texts([entry["name"] for entry in listed.values()])
    return {"pictures": len(listed), **recall(texts, images, torch.eye(len(listed)).bool())}


def main() -> None:
    """Measures, prints, writes figures.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=HERE / "model")
    parser.add_argument("--rounds", type=int, default=3, help="fresh pictures of each emoji")
    options = parser.parse_args()
    clip, emoji = Clip(options.model), load_emoji()
    figures: dict[str, object] = {
        "emoji": len(emoji),
        "rounds": options.rounds,
        "logit scale": round(clip.scale, 2),
        "text to picture": retrieval(clip, emoji, options.rounds),
        "zero-shot labels": labelling(clip, emoji, options.rounds),
        "searches": searches(clip, emoji),
    }
    if (HERE / "pictures" / "pictures.json").exists():
        figures["shipped pictures, bare name"] = shipped(clip, HERE / "pictures")
    text = json.dumps(figures, indent=2)
    print(text)
    (options.model / "figures.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
