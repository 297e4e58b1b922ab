"""Vectors as people have them, made by the demo's renderer and model from seeds of their own.

    drawings     folders of pictures, all of one thing after the other
    documents    long texts in many languages, each of many windows
    floods       captions, beside one text many times and many that nearly are the same
    bursts       a camera's: twenty shots of each picture
    tenants      collections that have a subject each
    albums       a third of a million drawings in collections of 100 to 150,000
    both         pictures and texts, mixed
    million      more drawings than anybody has time to draw: between two of the same thing

Text queries have forms that training did not use. The demo's vectors have 128 dimensions, those of
its second model 160; a random rotation into 512 keeps every cosine. Needs Debian's
fonts-noto-color-emoji, unicode-data and unicode-cldr-core, and the demo's folder.
"""

import io
import os
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from here import DATA, HERE
from vectors import DIMENSION, Floats

DEMO = HERE.parent / "demo"
sys.path.insert(0, str(DEMO))
import emoji_data  # noqa: E402
import evaluate  # noqa: E402
import render  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

# Numbers of drawings: those of data and of picture queries are never the same.
_OF_DATA, _OF_QUERIES = 5_000, 9_000
_EACH = 20
_DOCUMENTS, _WINDOWS = 952, 76
_EQUAL, _NEARLY = 20_000, 15_000
_SHOTS = 20
_OF_THE_DEMO = 128  # dimensions of its first model
_ALBUMS = {150_000: 1, 30_000: 1, 6_000: 10, 2_000: 20, 100: 200}  # so many of a size
DRAWN = 500  # of a change
_TENANTS = 50
_SENTENCES = (
    "chapter {n}: {name} and {other}", "{name}, seen by {other}", "{other} again, page {n}",
    "nothing more about {name}", "note {n} on {other}: {name}", "{name} {name} {other}",
)  # fmt: skip


@dataclass(frozen=True)
class Holding:
    """Items in the order in which they were submitted, and what is asked for.

    `vectors` is (n, 512), `items` the item of each, (n,), rising from 0 without gaps; `kinds` and
    `collections` are those of each item. `queries` are (q, 512), by what asks: "text", "image", or
    "both", weighted alike.
    """

    name: str
    vectors: Floats
    items: Any
    kinds: Any
    collections: Any
    queries: dict[str, Floats]

    def more(self, count: int) -> "Holding":
        """The same, and after it `count` more items, each nearly one that is there."""
        random = np.random.default_rng(6)
        like = random.integers(len(self.vectors), size=count)
        items = self.items[like]
        return replace(
            self, vectors=np.concatenate([self.vectors, _varied(self.vectors[like], random)]),
            items=np.concatenate([self.items, len(self.kinds) + np.arange(count)]),
            kinds=np.concatenate([self.kinds, self.kinds[items]]),
            collections=np.concatenate([self.collections, self.collections[items]]),
        )  # fmt: skip


class People:
    """What they have, drawn with a seed; of the things that there are, one in `part`. `model` is a
    folder of the demo's, by which it is encoded."""

    def __init__(self, seed: int = 0, part: int = 1, model: str = "model") -> None:
        self._seed = seed
        self._part = part
        self._model = model

    @property
    def _clip(self) -> Any:
        return _clip(self._model)

    def drawings(self) -> Holding:
        """Twenty of every emoji, one emoji after the other; texts and pictures ask."""
        return self._pictures_of("drawings", self.drawn(_OF_DATA + _EACH * self._seed, _EACH))

    def documents(self) -> Holding:
        """Each in one of the languages, about one thing, with windows that often are alike."""
        random = np.random.default_rng([2, self._seed])
        names = _names()
        texts, items = [], []
        for document in range(_DOCUMENTS // self._part):
            here = names[random.integers(len(names))]
            name = here[random.integers(len(here))]
            for window in range(_WINDOWS):
                sentence = _SENTENCES[random.integers(len(_SENTENCES))]
                other = here[random.integers(len(here))]
                texts.append(sentence.format(n=window, name=name, other=other))
                items.append(document)
        return self._texts_of("documents", self.texts(texts, "documents"), np.array(items))

    def floods(self) -> Holding:
        """Captions between one text 20,000 times and 15,000 that differ in a number."""
        captions = [f"a picture of {name}" for name in self._english()[:_DOCUMENTS]]
        few = self.texts([*captions, "no description available"], "captions")
        nearly = [f"product number {n + self._seed}, new" for n in range(_NEARLY // self._part)]
        vectors = np.concatenate([np.repeat(few[-1:], _EQUAL // self._part, axis=0), few[:-1],
                                  self.texts(nearly, "nearly")])  # fmt: skip
        return self._texts_of("floods", vectors, np.arange(len(vectors)))

    def bursts(self) -> Holding:
        """Twenty shots of each drawing: moved by a little, saved anew."""

        def shots(index: int, char: str) -> Iterable[Image.Image]:
            random = np.random.default_rng([render.EVALUATE, index, _OF_DATA + 900 + self._seed])
            drawn = render.draw(char, random, render.Style())
            for _ in range(_SHOTS):
                x, y = random.integers(0, 6, 2)
                moved = drawn.crop((x, y, drawn.width - 6 + x, drawn.height - 6 + y))
                yield _saved(moved, int(random.integers(60, 95)))

        return self._pictures_of("bursts", self._pictures(shots, "bursts"))

    def tenants(self) -> Holding:
        """The drawings in fifty collections, each of neighbouring emoji: their subjects."""
        whole = self.drawings()
        collections = np.arange(len(whole.vectors)) * _TENANTS // len(whole.vectors)
        return replace(whole, name="tenants", collections=collections)

    def albums(self) -> Holding:
        """Drawings in collections of several sizes, each of neighbouring emoji."""
        sizes = np.repeat(list(_ALBUMS), list(_ALBUMS.values()))
        whole = self._pictures_of("albums", self.many(int(sizes.sum()), ordered=True))
        collections = np.repeat(np.arange(len(sizes)), sizes)
        return replace(whole, collections=collections, queries={"text": whole.queries["text"]})

    def both(self) -> Holding:
        """The drawings and as many windows, each a text of its own, in a random order."""
        pictures, texts = self.drawings(), self.documents()
        random = np.random.default_rng([3, self._seed])
        count = len(pictures.vectors)
        vectors = np.concatenate([pictures.vectors, texts.vectors[:count]])
        order = random.permutation(2 * count)
        return replace(
            pictures, name="both", vectors=vectors[order], items=np.arange(2 * count),
            kinds=np.repeat(["image", "text"], count)[order], collections=np.zeros(2 * count, int),
        )  # fmt: skip

    def million(self, count: int = 1_000_000) -> Holding:
        """Asked for with texts."""
        whole = self._pictures_of("million", self.many(count))
        return replace(whole, queries={"text": whole.queries["text"]})

    def many(self, count: int, ordered: bool = False) -> Floats:
        """Vectors of drawings, (count, 512), each between two of a thing; those of a thing apart,
        or one after the other if ordered.
        """
        random = np.random.default_rng([4, self._seed])
        drawn = self.drawn(_OF_DATA, _EACH)
        found = np.empty((count, DIMENSION), np.float32)
        for part in np.array_split(np.arange(count), 1 + count // 50_000):
            one = random.integers(len(drawn), size=len(part))
            if ordered:
                one = part * len(drawn) // count
            other = one // _EACH * _EACH + random.integers(_EACH, size=len(part))
            share = random.random((len(part), 1), np.float32) / 2
            found[part] = _varied((1 - share) * drawn[one] + share * drawn[other], random)
        return found

    def names(self) -> list[str]:
        """What each thing is called."""
        return self._english()

    def kinds(self) -> list[str]:
        """What each thing is, in Unicode's groups."""
        return [each.subgroup for each in _emoji()]

    def scale(self) -> float:
        """The model's logit scale."""
        return float(self._clip.scale)

    def pictures(self) -> Floats:
        """Of each thing in turn 21 drawings, (21 things, 512)."""
        each = self.drawn(_OF_DATA, _EACH).reshape(-1, _EACH, DIMENSION)
        more = self.drawn(_OF_QUERIES + self._seed, 1)[:, None]
        return np.concatenate([each, more], axis=1).reshape(-1, DIMENSION)

    def prompts(self, words: Sequence[str], templates: Sequence[str]) -> Floats:
        """The vectors of labels, (words, 512), as a worker makes them."""
        texts = [template.replace("{}", word) for word in words for template in templates]
        parts = [self._clip.texts(texts[n : n + 256]).numpy() for n in range(0, len(texts), 256)]
        vectors = _unit(np.concatenate(parts)).reshape(len(words), len(templates), -1)
        return _rotated(_unit(vectors.mean(axis=1)))

    def changed(
        self, change: Callable[[Image.Image], Image.Image], number: int, group: str = ""
    ) -> Floats:
        """DRAWN drawings of things chosen at random, all or a subgroup of Unicode's, changed before
        they are saved: (DRAWN, 512)."""
        random = np.random.default_rng([7, self._seed, number])
        things = [each for each in _emoji() if each.subgroup.startswith(group)]
        drawn = []
        for index in random.integers(len(things), size=DRAWN):
            picture = render.draw(things[index].char, random, render.Style())
            drawn.append(_saved(change(picture), int(random.integers(60, 95))))
        return _rotated(self._clip.images(drawn).numpy())

    def asked(self) -> Floats:
        """Texts that ask for drawings, (q, 512), in a random order."""
        return np.random.default_rng([5, self._seed]).permutation(self._asked())

    def _pictures_of(self, name: str, vectors: Floats) -> Holding:
        texts, pictures = self._asked(), self.drawn(_OF_QUERIES + self._seed, 1)
        return Holding(name, vectors, np.arange(len(vectors)), np.full(len(vectors), "image"),
                       np.zeros(len(vectors), int),
                       {"text": texts, "image": pictures, "both": _unit(texts + pictures)},
                       )  # fmt: skip

    def _texts_of(self, name: str, vectors: Floats, items: Any) -> Holding:
        count = items[-1] + 1
        return Holding(name, vectors, items, np.full(count, "text"), np.zeros(count, int),
                       {"text": self._asked()})  # fmt: skip

    def _asked(self) -> Floats:
        """A query for everything, in forms that training did not use."""
        random = np.random.default_rng([1, self._seed])
        names = self._english()
        forms = random.choice(evaluate.HELD_OUT, len(names))
        phrases = (evaluate.with_article(name, "a") for name in names)
        texts = [form.format(phrase) for form, phrase in zip(forms, phrases, strict=True)]
        return self.texts(texts, "asked")

    def drawn(self, first: int, each: int) -> Floats:
        """Of each thing in turn so many drawings, from a number on: (things times each, 512)."""

        def pictures(index: int, char: str) -> Iterable[Image.Image]:
            for number in range(first, first + each):
                random = np.random.default_rng([render.EVALUATE, index, number])
                data = render.encode_jpeg(render.draw(char, random, render.Style()), random)
                yield Image.open(io.BytesIO(data)).convert("RGB")

        return self._pictures(pictures, f"drawn-{first}-{each}")

    def _english(self) -> list[str]:
        return [each.name for each in _emoji()[:: self._part]]

    def _pictures(self, drawn: Callable[[int, str], Iterable[Image.Image]], name: str) -> Floats:
        def made() -> Floats:
            chosen = list(enumerate(_emoji()))[:: self._part]
            found = [self._clip.images(list(drawn(index, each.char))).numpy()
                     for index, each in chosen]  # fmt: skip
            return _rotated(np.concatenate(found))

        return self._kept(name, made)

    def texts(self, texts: Sequence[str], name: str) -> Floats:
        """(texts, 512), kept under a name."""

        def made() -> Floats:
            parts = [
                self._clip.texts(texts[n : n + 256]).numpy() for n in range(0, len(texts), 256)
            ]
            return _rotated(np.concatenate(parts))

        return self._kept(name, made)

    def _kept(self, name: str, make: Callable[[], Floats]) -> Floats:
        """Made once; drawing and encoding takes minutes."""
        of = "" if self._model == "model" else f"-{self._model}"
        folder = DATA / "people" / f"{self._seed}-{self._part}{of}"
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / f"{name}.npy"
        if not file.exists():
            torch.set_num_threads(2)
            unfinished = file.with_suffix(f".{os.getpid()}.npy")
            np.save(unfinished, make())
            unfinished.replace(file)
        found: Floats = np.load(file)
        return found


ALL: dict[str, Callable[[People], Holding]] = {
    "drawings": People.drawings, "documents": People.documents, "floods": People.floods,
    "bursts": People.bursts, "tenants": People.tenants, "albums": People.albums,
    "both": People.both,
    "million": People.million,
}  # fmt: skip


def _varied(vectors: Floats, random: np.random.Generator) -> Floats:
    """Moved by a tenth of their length, within the few dimensions that the demo's vectors have."""
    rotation = _rotation(_OF_THE_DEMO)
    moved = random.standard_normal((len(vectors), len(rotation)), np.float32) @ rotation
    return _unit(vectors + 0.1 * _unit(moved))


def _unit(vectors: Floats) -> Floats:
    unit: Floats = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


@cache
def _clip(model: str) -> Any:
    return evaluate.Clip(DEMO / model)


@cache
def _emoji() -> Any:
    return emoji_data.load_emoji()


def _names() -> list[list[str]]:
    """Names of things, in each language that has a name for most."""
    languages = []
    for file in sorted((emoji_data.CLDR / "annotations").glob("*.xml")):
        found = [each.text or "" for each in ElementTree.parse(file).iter("annotation")
                 if each.get("type") == "tts"]  # fmt: skip
        if len(found) > 1000:
            languages.append(found)
    return languages


def _saved(picture: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def _rotated(vectors: Floats) -> Floats:
    """Into more dimensions: cosines stay."""
    return np.ascontiguousarray(vectors @ _rotation(vectors.shape[1]))


@cache
def _rotation(dimension: int) -> Floats:
    """(dimension, 512), rows of norm 1 that are orthogonal."""
    random = np.random.default_rng(5)
    rotation, _ = np.linalg.qr(random.standard_normal((DIMENSION, dimension)))
    found: Floats = np.ascontiguousarray(rotation.T.astype(np.float32))
    return found
