"""What a client offers for labels that can be relied on: promises, reviews, decisions."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from pgclip import statements
from pgclip.arguments import collection_name, decision_of, name_text, number, whole_number
from pgclip.database import Database
from pgclip.errors import InvalidItem, NotFound
from pgclip.items import Decision, Kind

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Promise:
    """What a label is to keep, and how far that is.

    `state` is "waiting" while items get their scores or there are too few, "judging" until a
    threshold is shown to keep it, "kept", or "out of reach" if no more judgements of this head
    would help. `bound` is the share that `judged` draws, `right` of them so, leave no doubt of.
    `decides` of `contents` reach the `threshold`: their share is the `coverage`. `lacking`: how
    many more judgements it takes to tell, or, of a kept one, to try a threshold that decides more;
    None: no more would help.
    """

    set: str
    label: str
    what: Literal["precision", "recall"]
    share: float
    confidence: float
    opinions: int
    state: Literal["waiting", "judging", "kept", "out of reach"]
    model: str | None
    head_version: int | None
    threshold: float | None
    bound: float | None
    judged: int | None
    right: int | None
    decides: int | None
    contents: int | None
    coverage: float | None
    lacking: int | None
    begun_at: datetime | None
    kept_at: datetime | None


@dataclass(frozen=True, slots=True)
class Draw:
    """What a person is to look at: whether a label is right for an item.

    `purpose`: "precision" or "recall" if a promise rests on it, or "learn". `score` is None where
    nothing is known. `content_hash`, SHA-256, is what was drawn: given to judge(), it keeps a word
    from counting for something else.
    """

    item_id: int
    collection: str
    key: str
    kind: Kind
    label: str
    purpose: Literal["precision", "recall", "learn"]
    score: float | None
    content_hash: bytes


@dataclass(frozen=True, slots=True)
class Decided:
    """Whether a label is right for an item: "yes", "no", or "review", to be looked at.

    `rests_on`: "judgement", what people said; "precision" or "recall", a promise of that `share` at
    that `confidence`, by the `threshold` and the head of that version; None: nothing.
    """

    item_id: int
    collection: str
    key: str
    kind: Kind
    set: str
    label: str
    decision: Decision
    score: float | None
    rests_on: Literal["judgement", "precision", "recall"] | None
    share: float | None
    confidence: float | None
    threshold: float | None
    head_version: int | None
    decided_at: datetime | None


@dataclass(frozen=True, slots=True)
class DecisionChange:
    """A decision that has changed. `position` is where to go on after it."""

    position: int
    item_id: int
    collection: str
    key: str
    set: str
    label: str
    was: Decision
    now: Decision
    changed_at: datetime


class Promising:
    """The part of Client by which labels come to be relied on."""

    _database: Database

    def promise(
        self,
        label_set: str,
        label: str,
        *,
        precision: float | None = None,
        recall: float | None = None,
        confidence: float = 0.95,
        opinions: int = 1,
        judgements: int | None = None,
    ) -> list[Promise]:
        """Wants a label to keep a promise, of one kind or both, and says how far that is.

        Of what is called so, at least `precision` is; of what is so, at least `recall` is not
        denied: in `confidence` of all such promises. What it rests on is drawn at random by
        review(), and each draw is judged by so many people (`opinions`; the majority counts). One
        looks first after as few judgements as can be, of which none may be wrong, or after so many
        `judgements`. The same once more only says how far it is, and so does a call with neither.
        Raises NotFound, InvalidItem.
        """
        names = (name_text(label_set, "label set"), name_text(label, "label"))
        how = (number(confidence, "confidence"), whole_number(opinions, "opinions"))
        first = None if judgements is None else whole_number(judgements, "judgements")
        wanted = {"precision": number(precision, "precision"), "recall": number(recall, "recall")}
        with self._database.transaction(f"promise of {label!r}") as cursor:
            for what, share in wanted.items():
                if share is not None:
                    cursor.execute(statements.PROMISE, (*names, what, share, *how, first))
        return self._promises(*names)

    def promises(self, label_set: str | None = None) -> list[Promise]:
        """What was asked of labels, of a set or of all, and how far it is. Raises NotFound."""
        return self._promises(None if label_set is None else name_text(label_set, "label set"))

    def _promises(self, label_set: str | None, label: str | None = None) -> list[Promise]:
        with self._database.transaction("promises") as cursor:
            cursor.execute(statements.PROMISES, (label_set, label_set, label, label))
            found = [Promise(*row) for row in cursor.fetchall()]
            if not found and label_set is not None:
                cursor.execute(statements.IS_LABEL, (label_set, label, label))
                if cursor.fetchone() != (True,):
                    what = f"label set {label_set!r}"
                    raise NotFound(
                        f"there is no {what if label is None else f'{label!r} in {what}'}"
                    )
            return found

    def withdraw_promise(
        self, label_set: str, label: str, what: Literal["precision", "recall"] | None = None
    ) -> None:
        """Takes a label's promises back, of one kind or both: only people decide. Raises NotFound,
        InvalidItem."""
        names = (name_text(label_set, "label set"), name_text(label, "label"))
        with self._database.transaction(f"promise of {label!r}") as cursor:
            cursor.execute(statements.WITHDRAW_PROMISE, (*names, what))
            if cursor.fetchone() != (True,):
                raise NotFound(f"nothing is promised of label {label!r} of set {label_set!r}")

    def review(
        self,
        label_set: str,
        n: int = 20,
        *,
        label: str | None = None,
        by: str | None = None,
        purpose: Literal["promise", "learn"] | None = None,
    ) -> list[Draw]:
        """What a person should look at next, in an order that says nothing, to be judged.

        What promises rest on, drawn at random, and a quarter, or all where they need none, that
        labels learn from; or one of both. Nobody else gets the same within half an hour, unless
        more opinions are wanted. `by` is who looks. Raises NotFound, InvalidItem.
        """
        names = [None if name is None else name_text(name, what)
                 for name, what in ((by, "by"), (label, "label"))]  # fmt: skip
        if purpose not in (None, "promise", "learn"):
            raise InvalidItem(f'purpose is "promise" or "learn", not {purpose!r:.100}')
        arguments = (name_text(label_set, "label set"), whole_number(n, "n"), *names, purpose)
        with self._database.transaction("review") as cursor:
            cursor.execute(statements.REVIEW, arguments)
            draws = [Draw(*row) for row in cursor.fetchall()]
            return [replace(draw, content_hash=bytes(draw.content_hash)) for draw in draws]

    def leave_unsure(
        self,
        label_set: str,
        label: str,
        key: str,
        *,
        by: str | None = None,
        collection: str = "default",
        content_hash: bytes | None = None,
    ) -> None:
        """A person can't say: it counts against a promise that drew it, and they are not asked
        again. `content_hash` as in judge(). Raises NotFound; QueryFailed if the item has no vector
        yet, or other content."""
        names = (name_text(label_set, "label set"), name_text(label, "label"))
        whose = None if by is None else name_text(by, "by")
        where = (name_text(key, "key"), whose, name_text(collection, "collection"))
        with self._database.transaction(f"judgement of {key!r}") as cursor:
            cursor.execute(statements.LEAVE_UNSURE, (*names, *where, content_hash))

    def decisions(
        self,
        label_set: str,
        *,
        label: str | None = None,
        decision: Decision | None = None,
        collection: str | None = None,
    ) -> Iterator[Decided]:
        """Each item with each label of a set that decides, or of which something is promised, in
        pages as they are read. Raises NotFound, InvalidItem."""
        name = None if label is None else name_text(label, "label")
        which = (name, decision_of(decision), collection_name(collection))
        return self._decided((name_text(label_set, "label set"), *which))

    def _decided(self, arguments: tuple[Any, ...]) -> Iterator[Decided]:
        after, after_label = 0, ""
        while True:
            with self._database.transaction("decisions") as cursor:
                cursor.execute(statements.DECISIONS, (*arguments, after, after_label, _PAGE))
                rows = [Decided(*row) for row in cursor.fetchall()]
            yield from rows
            if len(rows) < _PAGE:
                return
            after, after_label = rows[-1].item_id, rows[-1].label

    def decisions_of(self, key: str, *, collection: str = "default") -> list[Decided]:
        """What is decided of an item, and what it rests on: of each label of a set that decides, or
        of which something is promised. None of an item that is not there. Raises InvalidItem."""
        where = (name_text(key, "key"), name_text(collection, "collection"))
        with self._database.transaction("decisions") as cursor:
            cursor.execute(statements.DECISIONS_OF, where)
            return [Decided(*row) for row in cursor.fetchall()]

    def decision_changes(self, after: int = 0, limit: int = 1000) -> list[DecisionChange]:
        """What has changed since a position, the `position` of the last change that one has dealt
        with: from 0 all that is kept, which is thirty days. Who waits can LISTEN to
        pgclip_decision. Raises InvalidItem."""
        arguments = (whole_number(after, "after"), whole_number(limit, "limit"))
        with self._database.transaction("changes of decisions") as cursor:
            cursor.execute(statements.DECISION_CHANGES, arguments)
            return [DecisionChange(*row) for row in cursor.fetchall()]
