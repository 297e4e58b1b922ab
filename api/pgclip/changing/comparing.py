"""What a client offers for comparing two models before one takes the other's place."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any, Literal

from pgclip import statements
from pgclip.arguments import collection_name, kind_of, name_text, whole_number
from pgclip.changing.models import Changing
from pgclip.items import Kind
from pgclip.labelling.judging import Judging


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """What a model answers: items and their keys, the best first, with scores; and how long."""

    items: list[int]
    keys: list[str]
    scores: list[float]
    seconds: float


@dataclass(frozen=True, slots=True)
class ComparedQuery:
    """A question, and what both models answer.

    `asked`: "query", which somebody did; or "item", for what is like one that is stored, of that
    `collection`. `query` is the text, None of a picture, an item's key. `overlap`: the share of the
    old answers that are among the new ones.
    """

    asked: Literal["query", "item"]
    query_kind: Kind
    collection: str | None
    query: str | None
    overlap: float
    old: ModelAnswer
    new: ModelAnswer


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models side by side: on questions, and on label sets that people have judged items for.

    `labels`: of each such set what Client.evaluate says by either model.
    """

    old_model: str
    new_model: str
    queries: list[ComparedQuery]
    labels: dict[str, tuple[dict[str, Any], dict[str, Any]]]

    @property
    def asked(self) -> int:
        """Questions that somebody asked."""
        return sum(each.asked == "query" for each in self.queries)

    @property
    def overlap(self) -> float | None:
        """The share of the old answers that stay, on average; None if nothing was asked."""
        return fmean(each.overlap for each in self.queries) if self.queries else None

    @property
    def best_changed(self) -> float | None:
        """The share of questions of which the best answer is another one, or none any more."""
        changed = [each.old.items[:1] != each.new.items[:1] for each in self.queries]
        return fmean(changed) if changed else None

    def scores(self) -> tuple[float | None, float | None]:
        """Of the best answers, on average, by the old and the new model: each has its own scale."""
        return (
            _mean(each.old.scores[0] for each in self.queries if each.old.scores),
            _mean(each.new.scores[0] for each in self.queries if each.new.scores),
        )

    def seconds(self) -> tuple[float | None, float | None]:
        """The median time of a search by either."""
        both = [(each.old.seconds, each.new.seconds) for each in self.queries]
        return (median(old for old, _ in both), median(new for _, new in both)) if both else (
            None, None,
        )  # fmt: skip


def _answer(
    items: list[int] | None, keys: list[str] | None, scores: list[float] | None, seconds: float
) -> ModelAnswer:
    return ModelAnswer(items or [], keys or [], scores or [], seconds)


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return fmean(found) if found else None


class Comparing(Changing, Judging):
    """The part of Client that compares models."""

    def compare_models(
        self,
        name: str,
        *,
        with_model: str | None = None,
        queries: int = 100,
        k: int = 10,
        collection: str | None = None,
        kind: Kind | None = None,
        labels: bool = True,
        timeout: float = 300.0,
    ) -> Comparison:
        """What a model answers where another (None: the live one) does.

        Asked are queries that people asked, where these are kept (PGCLIP_KEEP_QUERIES), and if they
        are too few what is like stored items. With `labels`, label sets with judgements are
        evaluated by workers of both models, which may take `timeout` seconds each. For the owner of
        the schema. Raises ModelMismatch, NotFound, WaitTimeout.
        """
        other = None if with_model is None else name_text(with_model, "model")
        arguments = (
            *(name_text(name, "model"), other, whole_number(queries, "queries")),
            *(whole_number(k, "k"), collection_name(collection), kind_of(kind)),
        )
        old_model = other or self._of_models(statements.LIVE_MODEL, ())[0][0]
        rows = self._of_models(statements.COMPARE_MODELS, arguments)
        evaluations = {}
        if labels:
            for (label_set,) in self._of_models(statements.JUDGED_SETS, ()):
                old, new = (
                    self.evaluate(label_set, model=model, timeout=timeout)
                    for model in (old_model, name)
                )
                evaluations[label_set] = (old, new)
        return Comparison(
            old_model,
            name,
            [
                ComparedQuery(
                    asked,
                    query_kind,
                    within,
                    query,
                    overlap or 0.0,
                    _answer(*answers[:4]),
                    _answer(*answers[4:]),
                )
                for asked, query_kind, within, query, overlap, *answers in rows
            ],
            evaluations,
        )
