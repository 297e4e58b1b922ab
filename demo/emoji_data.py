"""The emoji the demo model knows: characters, names, synonyms, groups.

Read from the Unicode data that Debian ships (packages unicode-data and unicode-cldr-core).
Flags and skin-tone variants are left out. Nothing here draws or trains.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

EMOJI_TEST = Path("/usr/share/unicode/emoji/emoji-test.txt")
CLDR = Path("/usr/share/unicode/cldr/common")
ANNOTATIONS = (CLDR / "annotations/en.xml", CLDR / "annotationsDerived/en.xml")
VARIATION_SELECTOR = "\ufe0f"

# "1F408 200D 2B1B ; fully-qualified # 🐈‍⬛ E13.0 black cat"
_LINE = re.compile(r"^([0-9A-F ]+); fully-qualified +# \S+ E[\d.]+ (.+)$")


@dataclass(frozen=True)
class Emoji:
    """One emoji: what it is called and where Unicode files it."""

    char: str
    name: str
    group: str
    subgroup: str
    keywords: tuple[str, ...]


def clean(text: str) -> str:
    """Lower-case words as a person types them: no quotes, no punctuation marks."""
    text = text.lower().replace("’", "'").replace("“", "").replace("”", "")
    text = re.sub(r"[:,!?⊛()]", " ", text)
    return re.sub(r"\s+", " ", text).strip()


def read_annotations() -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """CLDR's English short names and keywords, by emoji without variation selectors."""
    names: dict[str, str] = {}
    keywords: dict[str, tuple[str, ...]] = {}
    for path in ANNOTATIONS:
        for node in ElementTree.parse(path).iter("annotation"):
            char, text = node.get("cp", ""), node.text or ""
            if node.get("type") == "tts":
                names[char] = clean(text)
            else:
                keywords[char] = tuple(clean(word) for word in text.split("|"))
    return names, keywords


def load_emoji() -> list[Emoji]:
    """Every fully-qualified emoji that is neither a flag nor a skin-tone variant."""
    cldr_names, cldr_keywords = read_annotations()
    found: list[Emoji] = []
    group = subgroup = ""
    for line in EMOJI_TEST.read_text(encoding="utf-8").splitlines():
        if line.startswith("# group: "):
            group = line.removeprefix("# group: ")
        elif line.startswith("# subgroup: "):
            subgroup = line.removeprefix("# subgroup: ")
        elif (match := _LINE.match(line)) and group != "Flags" and "skin tone" not in line:
            char = "".join(chr(int(code, 16)) for code in match[1].split())
            bare = char.replace(VARIATION_SELECTOR, "")
            name = cldr_names.get(bare) or clean(match[2])
            keywords = dict.fromkeys((clean(match[2]), *cldr_keywords.get(bare, ())))
            keywords.pop(name, None)
            found.append(Emoji(char, name, group, subgroup, tuple(filter(None, keywords))))
    return found
