"""What a client offers for labels: the sets that items are labelled with."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from pgclip import statements
from pgclip.arguments import flag, name_text, number, text_list, whole_number
from pgclip.database import Database
from pgclip.errors import InvalidItem, NotFound
from pgclip.items import LabelSet

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

# A set's labels, or each with other words for it.
Labels = Sequence[str] | Mapping[str, Sequence[str]]


class Labelling:
    """The part of Client that defines label sets."""

    _database: Database

    def label_sets(self) -> list[LabelSet]:
        """Every label set."""
        with self._database.transaction("label sets") as cursor:
            cursor.execute(statements.LABEL_SETS)
            return [_label_set(*row) for row in cursor.fetchall()]

    def define_label_set(
        self,
        name: str,
        labels: Labels,
        *,
        templates: Sequence[str] | str | None = None,
        top_k: int = 3,
        threshold: float = 0.1,
        applies_to: Literal["image", "text", "both"] = "both",
        active: bool = True,
        exclusive: bool = True,
        background: Sequence[str] | str = (),
        collections: Sequence[str] | None = None,
        relabel: bool = True,
        decide: bool = False,
    ) -> None:
        """Creates or replaces a label set; the same definition once more changes nothing.

        `labels` may say other words for each, {"sofa": ["couch", "settee"], "chair": []}. A
        template holds {} where the label goes; a label's vector is the mean over templates and
        words. `templates` may be the name of an ensemble: "one", "seven" or "eighty". Of each set
        an item gets at most `top_k` labels of probability ≥ `threshold`.

        The probabilities of exclusive labels make 1, with those of the `background`, words that
        take part and are never given ("common": 250 common ones). Of others each is a question of
        its own against the background, which is "common" if none is given.

        Items of `collections`, or all, get labels; those that are there are labelled anew unless
        `relabel` is False. Labels that are left out come back with what people said of them. Those
        of a set that is to `decide` are decisions: to be reviewed until a promise or people decide.
        Raises InvalidItem.
        """
        words, forms = _words(labels)
        rules = (whole_number(top_k, "top_k"), number(threshold, "threshold"))
        bound = None if collections is None else text_list(collections, "collections")
        flags = (flag(active, "active"), flag(exclusive, "exclusive"))
        with self._database.transaction(f"label set {name!r}") as cursor:
            named = _named(cursor, templates, background)
            arguments = (name_text(name, "label set"), words, named[0], *rules, applies_to, *flags)
            more = (named[1], json.dumps(forms), bound)
            more_flags = (flag(relabel, "relabel"), flag(decide, "decide"))
            cursor.execute(statements.DEFINE_LABEL_SET, (*arguments, *more, *more_flags))

    def drop_label_set(self, name: str) -> None:
        """Deletes a label set, its labels on all items, and what people said of them. Raises
        NotFound."""
        name_text(name, "label set")
        with self._database.transaction(f"label set {name!r}") as cursor:
            cursor.execute(statements.DROP_LABEL_SET, (name,))
            if cursor.fetchone() != (True,):
                raise NotFound(f"there is no label set {name!r}")

    def relabel(self, name: str, *, stop: bool = False) -> None:
        """Has all items labelled as the set says now, and from now on whenever it changes; with
        `stop` neither, as for a set that is being tried out. Raises NotFound."""
        with self._database.transaction(f"label set {name!r}") as cursor:
            cursor.execute(statements.RELABEL, (name_text(name, "label set"), flag(stop, "stop")))


def _label_set(
    name: str, labels: list[str], templates: list[str], top_k: int, threshold: float,
    applies_to: Literal["image", "text", "both"], active: bool, version: int, exclusive: bool,
    background: list[str], forms: dict[str, list[str]], collections: list[str] | None,
    relabel: bool, taught: int, decide: bool,
) -> LabelSet:  # fmt: skip
    return LabelSet(
        name, tuple(labels), tuple(templates), top_k, threshold, applies_to, active, version,
        exclusive, tuple(background), {label: tuple(words) for label, words in forms.items()},
        None if collections is None else tuple(collections), relabel, taught,
        decide,
    )  # fmt: skip


def _words(labels: Labels) -> tuple[list[str], dict[str, list[str]]]:
    """Labels, and the other words for those that have some. Raises InvalidItem."""
    if not isinstance(labels, Mapping):
        return text_list(labels, "labels"), {}
    forms = {
        label: text_list(words, f"the words for {label!r:.100}")
        for label, words in labels.items()
        if words
    }
    return text_list(list(labels), "labels"), forms


def _named(
    cursor: "Cursor", templates: Sequence[str] | str | None, background: Sequence[str] | str
) -> tuple[list[str] | None, list[str]]:
    """Templates and background, by their names if they are given so. Raises InvalidItem."""
    found = None if templates is None else templates
    if isinstance(found, str):
        cursor.execute(statements.LABEL_TEMPLATES, (found,))
        ((found,),) = cursor.fetchall()
    if background == "common":
        cursor.execute(statements.BACKGROUND_WORDS)
        ((background,),) = cursor.fetchall()
    elif isinstance(background, str):
        raise InvalidItem(f'background is "common" or a list of words, not {background!r:.100}')
    words = text_list(background, "background") if background else []
    return None if found is None else text_list(found, "templates"), words
