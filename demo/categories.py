"""What kinds of thing there are: words such as "animal" or "boat", and which emoji they cover.

Unicode's subgroups carry most of it; a few categories are picked by name. A category teaches
the model the words that people use for a kind of thing, in searches and as labels.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from emoji_data import Emoji

ANIMAL = "animal-mammal animal-bird animal-amphibian animal-reptile animal-marine animal-bug"
FACE = (
    "face-smiling face-affection face-tongue face-hand face-neutral-skeptical face-sleepy "
    "face-unwell face-hat face-glasses face-concerned face-negative face-costume"
)
PERSON = (
    "person person-gesture person-role person-fantasy person-activity person-sport "
    "person-resting family person-symbol"
)
FOOD = "food-fruit food-vegetable food-prepared food-asian food-marine food-sweet"
HANDS = (
    "hand-fingers-open hand-fingers-partial hand-single-finger hand-fingers-closed hands hand-prop"
)
SYMBOL = (
    "transport-sign warning arrow religion zodiac av-symbol gender math punctuation currency "
    "other-symbol keycap alphanum geometric"
)


@dataclass(frozen=True)
class Category:
    """Words for one kind of thing, the subgroups it covers and a pattern for further names."""

    words: tuple[str, ...]
    subgroups: frozenset[str]
    names: re.Pattern[str] | None

    def covers(self, emoji: Emoji) -> bool:
        """Whether the emoji is of this kind."""
        subgroup = emoji.subgroup.replace(" & ", "-")
        return subgroup in self.subgroups or bool(self.names and self.names.search(emoji.name))


def category(words: str, subgroups: str = "", names: str = "") -> Category:
    """A category from comma-separated words, space-separated subgroups and a name pattern."""
    pattern = re.compile(rf"\b(?:{names})\b") if names else None
    return Category(tuple(words.split(", ")), frozenset(subgroups.split()), pattern)


CATEGORIES = (
    category("weapon, arms, dangerous weapon", "", "dagger|swords|pistol|bomb|bow and arrow|axe"),
    category("alcohol, alcoholic drink", "", "beer|wine|cocktail|tropical drink|sake|tumbler"),
    category("gambling, casino", "", "slot machine|game die|joker"),
    category("hand, hand gesture, fingers", HANDS),
    category("body part, part of the body", "body-parts"),
    category("heart, love", "heart"),
    category("fish", "", "^fish|tropical fish|blowfish|shark"),
    category("sea animal, marine animal", "animal-marine"),
    category("bird", "animal-bird"),
    category("insect, bug", "animal-bug"),
    category("reptile, amphibian", "animal-amphibian animal-reptile"),
    category("cat, kitten", "cat-face", "cat|cat face"),
    category("dog, puppy", "", "dog|dog face|poodle|guide dog"),
    category("mammal", "animal-mammal"),
    category("animal, creature, pet, wildlife, something alive", f"{ANIMAL} cat-face monkey-face"),
    category("flower, blossom", "plant-flower"),
    category("tree", "", "tree"),
    category("plant, greenery", "plant-flower plant-other"),
    category("fruit", "food-fruit"),
    category("vegetable", "food-vegetable"),
    category("dessert, something sweet, candy", "food-sweet"),
    category("seafood", "food-marine"),
    category("drink, beverage, something to drink", "drink"),
    category("food, meal, something to eat, dish", FOOD),
    category("tableware, kitchenware, cutlery", "dishware"),
    category("car", "", "automobile|car|taxi|utility vehicle"),
    category("train, railway", "", "train|locomotive|railway|metro|tram|monorail|tram car"),
    category("boat, ship, vessel", "transport-water"),
    category("aircraft, something that flies", "transport-air"),
    category("vehicle, transport, traffic", "transport-ground transport-water transport-air"),
    category("church, temple, place of worship", "place-religious"),
    category("building, house, architecture", "place-building place-religious"),
    category(
        "landscape, scenery, place, view",
        "place-geographic",
        "sunrise|sunset|cityscape|night with stars|bridge at night|foggy|milky way",
    ),
    category("map, globe", "place-map"),
    category("clock, time, watch", "time"),
    category("moon, planet, astronomy", "", "moon|planet|sun with face|star|comet|galaxy"),
    category("weather, sky", "sky-weather"),
    category("celebration, party, holiday", "event"),
    category("medal, prize, award", "award-medal"),
    category("sport, sports equipment, playing sports", "sport person-sport"),
    category("game, toy, something to play with", "game"),
    category("art, craft", "arts-crafts"),
    category("musical instrument, instrument", "musical-instrument"),
    category("music, sound", "music sound musical-instrument"),
    category("clothing, clothes, something to wear, accessory", "clothing"),
    category("telephone, phone", "phone"),
    category("computer, computer hardware", "computer"),
    category("camera, film, light", "light-video"),
    category(
        "electronic device, device, gadget, electronics",
        "phone computer",
        "camera|television|radio",
    ),
    category("book, paper, something to read", "book-paper"),
    category("letter, mail, post", "mail"),
    category("writing, pen, writing tool", "writing"),
    category("document, office supplies, stationery, paperwork", "book-paper mail office"),
    category("money, finance", "money currency"),
    category("lock, key, security", "lock"),
    category("tool, hardware", "tool"),
    category("science, scientific instrument, laboratory", "science"),
    category("medicine, medical equipment, health", "medical"),
    category("furniture, household item, thing at home", "household"),
    category("arrow, direction", "arrow"),
    category("warning sign, prohibition sign, warning", "warning"),
    category("religious symbol, religion", "religion"),
    category("zodiac sign, star sign, horoscope", "zodiac"),
    category("player button, media control", "av-symbol"),
    category("number, digit", "keycap"),
    category("letters, text button, writing on a button", "alphanum"),
    category("shape, geometric shape", "geometric"),
    category("punctuation, mark", "punctuation"),
    category("sign or symbol, symbol, sign, icon", SYMBOL),
    category("family, parents and children", "family"),
    category("fantasy creature, fairy tale figure, mythical being", "person-fantasy"),
    category("worker, profession, someone at work", "person-role"),
    category("couple, two people", "", "couple|kiss|holding hands|people with bunny ears"),
    category("man, male person", "", "man|men|boy|prince|santa claus"),
    category("woman, female person", "", "woman|women|girl|princess|mrs"),
    category("face, smiley, facial expression, emotion", FACE),
    category("person, human, human being, people, someone", PERSON),
)
