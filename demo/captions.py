"""Captions: which words go with an emoji, and the sentences they are put into.

A `Term` is a text with the emoji it means: a name means one, "animal" means many. Sentences
come from many templates; half of them get words that mean nothing here, so that the model
learns to pick out the ones that do.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
from categories import CATEGORIES
from colours import colours
from emoji_data import Emoji
from render import sprite
from templates import ADJECTIVES, DETERMINERS, HELD_OUT, PREFIXES, SUFFIXES, TEMPLATES

WORD_LIST = Path("/usr/share/dict/words")  # Debian: wamerican
OWN_NAME = 0.8  # the share of a text's meaning that belongs to the emoji so named


@dataclass(frozen=True)
class Term:
    """A text and what it means: emoji indices with weights that sum to one."""

    text: str
    members: tuple[int, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class Lexicon:
    """All terms; for each emoji its own name and the other terms that cover it."""

    terms: tuple[Term, ...]
    name_of: tuple[int, ...]
    others_of: tuple[tuple[int, ...], ...]
    categories: tuple[tuple[int, ...], ...]  # term ids of each category's words
    noise: tuple[str, ...]


def twins(emoji: list[Emoji]) -> list[tuple[int, ...]]:
    """For each emoji the ones, itself included, that the font draws exactly alike."""
    by_picture: dict[bytes, list[int]] = defaultdict(list)
    for index, item in enumerate(emoji):
        by_picture[sprite(item.char).tobytes()].append(index)
    return [tuple(by_picture[sprite(item.char).tobytes()]) for item in emoji]


def meanings(emoji: list[Emoji]) -> dict[str, set[int]]:
    """Keywords, category words and "colour noun" phrases, with the emoji they cover."""
    found: dict[str, set[int]] = defaultdict(set)
    for index, item in enumerate(emoji):
        kinds = {word for kind in CATEGORIES if kind.covers(item) for word in kind.words}
        nouns = {*item.keywords, *kinds}
        for word in nouns:
            found[word].add(index)
        if item.group not in ("Smileys & Emotion", "People & Body", "Symbols"):
            for colour in colours(sprite(item.char)):
                for noun in {item.name, *(n for n in nouns if not n.startswith("some"))}:
                    found[f"{colour} {noun}"].add(index)
    return found


def build_lexicon(emoji: list[Emoji]) -> Lexicon:
    """Every text the model is taught, once, with one meaning."""
    named = {item.name: twin for item, twin in zip(emoji, twins(emoji), strict=True)}
    covered = meanings(emoji)
    terms: list[Term] = []
    others: list[list[int]] = [[] for _ in emoji]
    for text in {**named, **covered}:
        own = set(named.get(text, ()))
        rest = covered.get(text, set()) - own
        weight = {index: (OWN_NAME if rest else 1.0) / len(own) for index in own}
        weight |= {index: ((1 - OWN_NAME) if own else 1.0) / len(rest) for index in rest}
        for index in rest:
            others[index].append(len(terms))
        terms.append(Term(text, tuple(weight), tuple(weight.values())))
    at = {term.text: number for number, term in enumerate(terms)}
    return Lexicon(
        tuple(terms),
        tuple(at[item.name] for item in emoji),
        tuple(map(tuple, others)),
        tuple(tuple(at[word] for word in kind.words if word in at) for kind in CATEGORIES),
        noise_words(terms),
    )


def noise_words(terms: list[Term]) -> tuple[str, ...]:
    """Dictionary words that mean no emoji and occur in no held-out template."""
    taken = set(re.findall(r"[a-z]+", " ".join([*HELD_OUT, *(term.text for term in terms)])))
    words = WORD_LIST.read_text(encoding="utf-8").splitlines()
    return tuple(w for w in words if re.fullmatch(r"[a-z]{3,12}", w) and w not in taken)


def with_article(text: str, article: str) -> str:
    """The text after an article; "a" becomes "an" where it should."""
    if article == "a" and text[:1] in "aeiou":
        article = "an"
    return f"{article} {text}".strip()


def plural(text: str) -> str:
    """A plain English plural of the last word."""
    if text.endswith("y") and text[-2:-1] not in tuple("aeiou"):
        return text[:-1] + "ies"
    return text + ("es" if text.endswith(("s", "x", "ch", "sh")) else "s")


class CaptionWriter:
    """Writes random captions for emoji and terms."""

    def __init__(self, lexicon: Lexicon, seed: int) -> None:
        self.lexicon = lexicon
        self.random = Random(seed)

    def pick_term(self, index: int) -> int:
        """The number of a term for an emoji: its name more often than anything wider."""
        others = self.lexicon.others_of[index]
        if not others or self.random.random() < 0.6:
            return self.lexicon.name_of[index]
        return self.random.choice(others)

    def phrase(self, text: str) -> str:
        """The words with a determiner, perhaps an adjective, perhaps in the plural."""
        random = self.random
        if text.startswith("some") or random.random() < 0.35:
            return text
        article = random.choice(DETERMINERS)
        if article in ("two", "three", "many", "some") and random.random() < 0.7:
            text = plural(text)
        if random.random() < 0.2:
            text = f"{random.choice(ADJECTIVES)} {text}"
        return with_article(text, article)

    def noise(self, most: int) -> str:
        """Up to `most` words that mean nothing here."""
        return " ".join(self.random.choices(self.lexicon.noise, k=self.random.randint(0, most)))

    def write(self, text: str) -> str:
        """A sentence around a term's text."""
        random, kind = self.random, self.random.random()
        if kind < 0.15:
            return text
        phrase = self.phrase(text)
        if kind < 0.5:
            caption = random.choice(TEMPLATES).format(phrase)
        else:
            before = random.choice(PREFIXES) if random.random() < 0.6 else ""
            after = random.choice(SUFFIXES) if random.random() < 0.6 else ""
            caption = f"{before} {phrase} {after}"
        if random.random() < 0.5:
            caption = f"{self.noise(3)} {caption} {self.noise(3)}"
        if random.random() < 0.15:
            caption += random.choice("?!.,:")
        if random.random() < 0.4:
            words = caption.replace(phrase, "\0").split()
            words = [w if w == "\0" or random.random() < 0.5 else self.noise(1) for w in words]
            caption = " ".join(words).replace("\0", phrase)
        return re.sub(r"\s+", " ", caption).strip()


def target_matrix(terms: list[Term], columns: int) -> np.ndarray:
    """(terms, columns) float32: row i is what term i means, summing to one."""
    matrix = np.zeros((len(terms), columns), np.float32)
    for row, term in enumerate(terms):
        matrix[row, list(term.members)] = term.weights
    return matrix
