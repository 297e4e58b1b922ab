"""What a client offers for zero-shot labels: the sets that items are labelled with."""

from collections.abc import Sequence
from typing import Literal

from pgclip import statements
from pgclip.database import Database
from pgclip.errors import InvalidItem, NotFound
from pgclip.items import LabelSet


class Labelling:
    """The part of Client that defines label sets."""

    _database: Database

    def label_sets(self) -> list[LabelSet]:
        """Every label set."""
        with self._database.transaction("label sets") as cursor:
            cursor.execute(statements.LABEL_SETS)
            return [
                LabelSet(name, tuple(labels), tuple(templates), *rest)
                for name, labels, templates, *rest in cursor.fetchall()
            ]

    def define_label_set(
        self,
        name: str,
        labels: Sequence[str],
        *,
        templates: Sequence[str] | None = None,
        top_k: int = 3,
        threshold: float = 0.1,
        applies_to: Literal["image", "text", "both"] = "both",
        active: bool = True,
    ) -> None:
        """Creates or replaces a set of zero-shot labels for what is encoded from now on.

        A template holds {} where the label goes; a label's vector is the mean over templates.
        Of each set an item gets at most `top_k` labels of probability ≥ `threshold`.
        Raises InvalidItem.
        """
        for what, words in (("labels", labels), ("templates", templates)):
            if isinstance(words, str):
                raise InvalidItem(f"{what} is a list of texts, not one: [{words!r:.100}]")
        arguments = (name, list(labels), templates and list(templates), top_k, threshold)
        with self._database.transaction(f"label set {name!r}") as cursor:
            cursor.execute(statements.DEFINE_LABEL_SET, (*arguments, applies_to, active))

    def drop_label_set(self, name: str) -> None:
        """Deletes a label set and its labels on all items. Raises NotFound."""
        with self._database.transaction(f"label set {name!r}") as cursor:
            cursor.execute(statements.DROP_LABEL_SET, (name,))
            if cursor.fetchone() != (True,):
                raise NotFound(f"there is no label set {name!r}")
