"""What a client offers for models: adding one, filling it, promoting it, and going back."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from pgclip import statements
from pgclip.arguments import name_text, number, whole_number
from pgclip.database import Database
from pgclip.errors import InvalidItem
from pgclip.items import Kind

# Of counting what ten million items lack.
_TIMEOUT_SECONDS = 600.0
_A_WEEK = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Model:
    """A model and what has become of it.

    `state`: "live" (searched), "filling", "standby" (another was promoted in its place; kept until
    `kept_until` to be gone back to), "retired" or "dropping" (what it has is going). `items` have
    its vectors, `lacking` have neither these nor a failure, about. `rate`: items a second that its
    `workers` have stored of late; `pace`: at most so many are queued for it. `size`: bytes of its
    vectors and their indexes. `recall`: the least that searches were found to find of the ten
    nearest. `mapped`: what becomes of answers before it is filled, "waits", "answers", "refused" or
    "impossible" (see Client.model_maps); None: there are none.
    """

    name: str
    state: Literal["live", "filling", "standby", "retired", "dropping"]
    dimension: int | None
    items: int
    lacking: int
    jobs: int
    failures: int
    paused: bool
    pace: float | None
    workers: int
    rate: float | None
    size: int
    recall: float | None
    mapped: Literal["waits", "answers", "refused", "impossible"] | None
    created_at: datetime
    replaced_at: datetime | None
    kept_until: datetime | None

    @property
    def seconds_left(self) -> float | None:
        """Until it is filled, at its rate of late; None if that is not known, or nothing lacks."""
        rate = min(self.rate or 0, self.pace or self.rate or 0)
        return self.lacking / rate if self.lacking and rate and not self.paused else None


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """What a model would cost that is to be added.

    `not_kept` of the `items` can't be encoded, since their bytes were not kept. `size`: bytes on
    disk, about, and up to twice that while indexes are built. `seconds`: if its workers store
    `rate` items a second, as the live model's have at best; both None if that is not known.
    """

    items: int
    images: int
    texts: int
    not_kept: int
    size: int
    rate: float | None
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Readiness:
    """One thing that has to be ready before a model is promoted."""

    what: str
    is_ready: bool
    detail: str


@dataclass(frozen=True, slots=True)
class RolledBack:
    """The model that is live again, and how many items it lacks."""

    model: str
    lacking: int


@dataclass(frozen=True, slots=True)
class ModelMap:
    """What answers find that a model gives by the vectors of the one before, its `source`.

    When `filled`, a share, was there: `recall` of the ten nearest by its own vectors, among
    `contents` that both had encoded, for `queries`, `asked` of them people's own. None before it
    was judged. `why`: what speaks against it.
    """

    model: str
    source: str
    state: Literal["waits", "answers", "refused", "impossible"]
    why: str | None
    query_kind: Kind | None
    kind: Kind | None
    filled: float | None
    contents: int | None
    queries: int | None
    asked: int | None
    recall: float | None
    bound: float
    judged_at: datetime | None


class Changing:
    """The part of Client that changes models. For the owner of the schema, but for looking."""

    _database: Database

    def models(self) -> list[Model]:
        """Every model, the oldest first. Counts items: a second or so for some million."""
        return [Model(*row) for row in self._of_models(statements.MODELS, ())]

    def plan_model(self, dimension: int | None = None) -> ModelPlan:
        """What a model would cost of which vectors have so many numbers (None: as the live one's).

        Raises QueryFailed while no model is live.
        """
        asked = (None if dimension is None else whole_number(dimension, "dimension"),)
        (row,) = self._of_models(statements.PLAN_MODEL, asked)
        return ModelPlan(*row)

    def add_model(
        self,
        name: str,
        *,
        pace: float | None = None,
        map_sample: int = 20_000,
        map_bound: float = 0.9,
    ) -> None:
        """Adds a model beside the live one; workers with PGCLIP_MODEL set to it fill it.

        No more than `pace` items a second are queued of what was there before. `map_sample`
        contents of each kind are encoded first; maps of the live model's vectors are learnt from
        them, which answer for what is not filled yet if they find `map_bound` of the ten nearest.
        0: no maps.
        Raises ModelMismatch if there is one of that name.
        """
        arguments = (
            *(name_text(name, "model"), number(pace, "pace")),
            *(whole_number(map_sample, "map_sample"), number(map_bound, "map_bound")),
        )
        self._of_models(statements.ADD_MODEL, arguments)

    def pause_model(self, name: str) -> None:
        """Nobody works for a model that is not live until it is resumed."""
        self._of_models(statements.PAUSE_MODEL, (name_text(name, "model"),))

    def resume_model(self, name: str) -> None:
        """Work for a paused model goes on."""
        self._of_models(statements.RESUME_MODEL, (name_text(name, "model"),))

    def pace_model(self, name: str, pace: float | None) -> None:
        """Fills a model by at most so many items a second; None: by as many as workers take."""
        self._of_models(statements.PACE_MODEL, (name_text(name, "model"), number(pace, "pace")))

    def model_maps(self, name: str | None = None) -> list[ModelMap]:
        """What answers by maps were found to find, of one model or of all."""
        rows = self._of_models(statements.MODEL_MAPS, ())
        return [ModelMap(*row) for row in rows if name in (None, row[0])]

    def model_readiness(self, name: str, *, share: float = 1.0) -> list[Readiness]:
        """What has to be ready before a model is promoted, so that the first minute is like any."""
        asked = (name_text(name, "model"), number(share, "share"))
        return [Readiness(*row) for row in self._of_models(statements.READINESS, asked)]

    def promote_model(
        self,
        name: str,
        *,
        share: float = 1.0,
        keep: timedelta | None = _A_WEEK,
        anyway: bool = False,
    ) -> None:
        """Makes a model the one that is searched, in one transaction.

        `share` of the items that were there when it was added and can be encoded has to be there,
        and all else ready (see model_readiness); not with `anyway`. The one before stands by for
        `keep` (None: until it is retired). Raises ModelMismatch, which says what is lacking.
        """
        arguments = (name_text(name, "model"), number(share, "share"), _kept(keep), bool(anyway))
        self._of_models(statements.PROMOTE_MODEL, arguments)

    def rollback_model(
        self, name: str | None = None, *, keep: timedelta | None = _A_WEEK
    ) -> RolledBack:
        """Goes back to the model that was replaced last, or to another that stands by.

        What it lacks is encoded then. Raises ModelMismatch if none stands by.
        """
        whose = None if name is None else name_text(name, "model")
        (row,) = self._of_models(statements.ROLLBACK_MODEL, (whose, _kept(keep)))
        return RolledBack(*row)

    def retire_model(self, name: str, *, anyway: bool = False) -> None:
        """Retires a model that stands by: its workers end, its vectors and labels go.

        Raises ModelMismatch, also while its vectors answer for another one's; not `anyway`.
        """
        self._of_models(statements.RETIRE_MODEL, (name_text(name, "model"), bool(anyway)))

    def drop_model(self, name: str, *, anyway: bool = False) -> None:
        """Retires a model and forgets it. Raises as retire_model does."""
        self._of_models(statements.DROP_MODEL, (name_text(name, "model"), bool(anyway)))

    def cancel_model(self, name: str) -> None:
        """Takes a model back that was added and is not live, with all it has. Raises
        ModelMismatch."""
        self._of_models(statements.CANCEL_MODEL, (name_text(name, "model"),))

    def _of_models(self, statement: str, arguments: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with self._database.transaction("models") as cursor:
            cursor.execute(statements.LOCAL_TIMEOUT, (f"{_TIMEOUT_SECONDS * 1000:.0f}",))
            cursor.execute(statement, arguments)
            return cursor.fetchall()


def _kept(keep: object) -> timedelta | None:
    if keep is not None and not isinstance(keep, timedelta):
        raise InvalidItem(f"keep is a timedelta or None, not {type(keep).__name__}")
    return keep
