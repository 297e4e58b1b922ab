"""What a client offers for zero-shot labels: the sets that items are labelled with."""

from collections.abc import Sequence
from typing import Literal

from pgclip import statements
from pgclip.arguments import name_text, number, text_list, whole_number
from pgclip.database import Database
from pgclip.errors import NotFound
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
        arguments = (
            name_text(name, "label set"),
            text_list(labels, "labels"),
            None if templates is None else text_list(templates, "templates"),
            whole_number(top_k, "top_k"),
            number(threshold, "threshold"),
        )
        with self._database.transaction(f"label set {name!r}") as cursor:
            cursor.execute(statements.DEFINE_LABEL_SET, (*arguments, applies_to, active))

    def drop_label_set(self, name: str) -> None:
        """Deletes a label set and its labels on all items. Raises NotFound."""
        name_text(name, "label set")
        with self._database.transaction(f"label set {name!r}") as cursor:
            cursor.execute(statements.DROP_LABEL_SET, (name,))
            if cursor.fetchone() != (True,):
                raise NotFound(f"there is no label set {name!r}")
