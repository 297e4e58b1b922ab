"""What a client offers for teaching labels, and for finding out how often they are right."""

import json
import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import islice
from typing import Any

from pgclip import statements
from pgclip.arguments import collection_name, name_text, seconds, whole_number
from pgclip.database import Database
from pgclip.errors import InvalidItem, WaitTimeout
from pgclip.items import Judgement

_PAUSE_SECONDS = 0.1
_AT_ONCE = 1000


class Judging:
    """The part of Client that takes people's word on labels, and learns from it."""

    _database: Database

    def judge(
        self,
        label_set: str,
        label: str,
        key: str,
        value: bool | None = True,
        *,
        by: str | None = None,
        collection: str = "default",
        content_hash: bytes | None = None,
    ) -> None:
        """A person's word on whether a label is right for an item, as it is now.

        Said again of the same content, the later word counts; None takes it back. `by` is who says
        so, the role of the database if nobody is named. `content_hash`: of what was looked at, its
        SHA-256; an item that has other content by now is refused. Raises NotFound; QueryFailed if
        the item has no vector yet, or other content; InvalidItem.
        """
        if value is not None and not isinstance(value, bool):
            raise InvalidItem(f"a judgement is True, False or None, not {value!r:.100}")
        names = (name_text(label_set, "label set"), name_text(label, "label"))
        whose = None if by is None else name_text(by, "by")
        where = (name_text(key, "key"), value, whose, name_text(collection, "collection"))
        with self._database.transaction(f"judgement of {key!r}") as cursor:
            cursor.execute(statements.JUDGE, (*names, *where, content_hash))

    def judge_many(
        self, judgements: Iterable[Judgement | Mapping[str, Any]]
    ) -> list[tuple[int, str]]:
        """Judgements as judge() takes them, as judgements() gives them, or as mappings of "set",
        "label", "key", "value", "judge", "collection", "judged_at" and "content_hash", of which the
        last four may lack. Each counts for itself: returns those that were refused, by their place
        from 1, and why."""
        refused: list[tuple[int, str]] = []
        left, done = iter(judgements), 0
        while some := list(islice(left, _AT_ONCE)):
            rows = [_plain(one) for one in some]
            document = json.dumps([row if isinstance(row, dict) else {} for row in rows])
            with self._database.transaction("judgements") as cursor:
                cursor.execute(statements.JUDGE_MANY, (document,))
                found = dict(cursor.fetchall())
            found |= {n: row for n, row in enumerate(rows, 1) if isinstance(row, str)}
            refused += [(done + place, found[place]) for place in sorted(found)]
            done += len(some)
        return refused

    def judgements(self, label_set: str | None = None) -> list[Judgement]:
        """All of a set, or of every set, in the order in which they were made."""
        if label_set is not None:
            name_text(label_set, "label set")
        with self._database.transaction("judgements") as cursor:
            cursor.execute(statements.JUDGEMENTS, (label_set, label_set))
            return [Judgement(*row) for row in cursor.fetchall()]

    def judgements_of(self, key: str, *, collection: str = "default") -> list[Judgement]:
        """What people said of an item as it is now. Raises InvalidItem."""
        where = (name_text(key, "key"), name_text(collection, "collection"))
        with self._database.transaction("judgements") as cursor:
            cursor.execute(statements.JUDGEMENTS_OF, where)
            return [Judgement(*row) for row in cursor.fetchall()]

    def teach(
        self,
        label_set: str,
        *,
        truth: str | None = None,
        collection: str | None = None,
        sample: int = 100_000,
        timeout: float = 300.0,
    ) -> dict[str, Any]:
        """Has a worker learn a set's labels from what was judged, or from a field of the metadata.

        Never worse than the prompts on examples held out. Items are labelled anew. Returns a
        report: `examples`; `by_prompts` and `by_heads`, the shares that were right held out;
        `ways`, how heads were made; `labels`, how many examples each has. Raises NotFound;
        QueryFailed if there are no examples; WaitTimeout if no worker has done it.
        """
        asked = (label_set, truth, collection, sample)
        return self._done(statements.REQUEST_TEACHING, asked, timeout)

    def evaluate(
        self,
        label_set: str,
        *,
        truth: str | None = None,
        collection: str | None = None,
        sample: int = 100_000,
        groups: str | None = None,
        model: str | None = None,
        timeout: float = 300.0,
    ) -> dict[str, Any]:
        """How often a set's labels are right: by what was judged, or by a field of the metadata.

        What has taught the set is judged by heads that did not see it (`held_out`, how many).
        Returns `accuracy`, `precision`, `recall`, `coverage`, `none`, each a share with its 95 %
        interval; `labels`, the same for each; `confusion`; `calibration_error` and its bins;
        `thresholds`, what other thresholds would give. With a field of the metadata as `groups`,
        also `groups`, the same measures for each of its values. `model`: of another than the live
        one, by its workers. Raises as teach() does.
        """
        asked = (label_set, truth, collection, sample)
        by = None if groups is None else name_text(groups, "groups")
        whose = None if model is None else name_text(model, "model")
        return self._done(statements.REQUEST_EVALUATION, asked, timeout, by, whose)

    def _done(
        self,
        request: str,
        asked: tuple[str, str | None, str | None, int],
        timeout: float,
        *more: str | None,
    ) -> dict[str, Any]:
        label_set, truth, collection, sample = asked
        name_text(label_set, "label set")
        if truth is not None:
            name_text(truth, "truth")
        arguments = (label_set, truth, collection_name(collection), whole_number(sample, "sample"))
        deadline = time.monotonic() + seconds(timeout)
        with self._database.transaction(f"label set {label_set!r}") as cursor:
            cursor.execute(request, (*arguments, *more))
            ((task,),) = cursor.fetchall()
        while True:
            with self._database.transaction(f"label set {label_set!r}") as cursor:
                cursor.execute(statements.LABEL_RESULT, (task,))
                ((result,),) = cursor.fetchall()
            if result is not None:
                found: dict[str, Any] = result
                return found
            if time.monotonic() > deadline:
                raise WaitTimeout(
                    f"label set {label_set!r}: no worker has done it within {timeout:g} s; "
                    "is one of the model running? See pgclip status"
                )
            time.sleep(_PAUSE_SECONDS)


_NAMES = ("set", "label", "key", "value", "judge", "collection", "judged_at", "content_hash")


def _plain(judgement: Judgement | Mapping[str, Any]) -> dict[str, Any] | str:
    """As pgclip.judge_many takes it, or why it can't be that."""
    if isinstance(judgement, Judgement):
        given = {name: getattr(judgement, name) for name in _NAMES}
    elif isinstance(judgement, Mapping):
        given = {name: judgement[name] for name in _NAMES if name in judgement}
    else:
        return f"a judgement is a mapping, not {judgement!r:.100}"
    for name, value in given.items():
        if isinstance(value, datetime):
            given[name] = value.isoformat()
        elif isinstance(value, str) and "\0" in value:
            return f"{name} contains a NUL character"
        elif not isinstance(value, str | bool | None):
            return f"{name} is a text, not {value!r:.100}"
    return given
