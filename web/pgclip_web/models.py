"""The page of models; and two of them side by side, blind, for people to say which is better."""

import secrets
import threading
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from functools import partial
from math import comb
from typing import Literal, NamedTuple
from urllib.parse import urlencode

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from pgclip import Client, ComparedQuery, InvalidItem, ModelAnswer, NotFound
from pgclip_web.pages import render, waited
from pgclip_web.review import who

_QUESTIONS, _ANSWERS = 30, 6
_MOST, _PEOPLE = 16, 100  # trials that are kept, and people in each
Side = Literal["old", "new"]


class Question(NamedTuple):
    """What was asked, and which model answers on the left, so that nobody knows."""

    asked: ComparedQuery
    left: Side

    def side(self, place: Literal["left", "right"]) -> ModelAnswer:
        """What one sees there."""
        return self.asked.old if (self.left == "old") == (place == "left") else self.asked.new


@dataclass
class Trial:
    """Two models, questions to both, and what people preferred: by who says so, and of which."""

    old_model: str
    new_model: str
    questions: list[Question]
    alike: int
    preferred: dict[tuple[str, int], Side | Literal["neither"]] = field(default_factory=dict)

    def counts(self) -> Counter[str]:
        """How often each was preferred."""
        return Counter(self.preferred.values())

    def chance(self) -> float | None:
        """How likely so uneven a count is, or one more so, if both are as good (a sign test)."""
        counts = self.counts()
        of = counts["old"] + counts["new"]
        if not of:
            return None
        fewer = min(counts["old"], counts["new"])
        tail: float = sum(comb(of, n) for n in range(fewer + 1)) / 2**of
        return min(1.0, 2 * tail)


class Trials:
    """The latest ones, in memory. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Trial] = OrderedDict()

    def keep(self, trial: Trial) -> str:
        """Its name."""
        name = secrets.token_urlsafe(9)
        with self._lock:
            self._kept[name] = trial
            while len(self._kept) > _MOST:
                self._kept.popitem(last=False)
        return name

    def get(self, name: str) -> Trial:
        """Raises NotFound."""
        with self._lock:
            if name not in self._kept:
                raise NotFound("this comparison is not here any more: compare the models again")
            return self._kept[name]


def page(request: Request) -> Response:
    """Every model, and what can be compared."""
    client: Client = request.app.state.client
    return render(request, "models.html", models=client.models(), maps=client.model_maps())


async def compare(request: Request) -> Response:
    """Asks both models; leads to the first question."""
    return await waited(request, partial(_compare, request, await request.form()))


def _compare(request: Request, form: FormData) -> Response:
    client: Client = request.app.state.client
    found = client.compare_models(
        str(form.get("model", "")),
        queries=_QUESTIONS,
        k=_ANSWERS,
        kind="text" if form.get("kind") == "text" else "image",
        labels=False,
    )
    told = [each for each in found.queries if each.query is not None]
    differ = [each for each in told if each.old.items != each.new.items]
    if not differ:
        raise InvalidItem(f"both answer the same to all of {len(told)} questions")
    sides: tuple[Side, Side] = ("old", "new")
    questions = [Question(each, secrets.choice(sides)) for each in differ]
    trial = Trial(found.old_model, found.new_model, questions, len(told) - len(differ))
    name = request.app.state.trials.keep(trial)
    return RedirectResponse(f"trial?{urlencode({'trial': name})}", 303)


def trial(request: Request) -> Response:
    """A question with both answers; after the last one what people preferred."""
    name = request.query_params.get("trial", "")
    found: Trial = request.app.state.trials.get(name)
    by = who(request, request.query_params)
    done = {place for person, place in found.preferred if person == by}
    left = [place for place in range(len(found.questions)) if place not in done]
    return render(
        request,
        "trial.html",
        name=name,
        trial=found,
        by=by,
        is_named=bool(request.app.state.access.user_header),
        place=left[0] if left and "end" not in request.query_params else None,
        done=len(done),
        sides=("left", "right"),
    )


async def prefer(request: Request) -> Response:
    """Takes what somebody says of a question; leads to their next."""
    form = await request.form()
    name, by = str(form.get("trial", "")), who(request, form)
    found: Trial = request.app.state.trials.get(name)
    given = str(form.get("place", ""))
    place = int(given) if given.isdecimal() and len(given) < 6 else len(found.questions)
    if place >= len(found.questions):
        raise InvalidItem("there is no such question")
    left: Side = found.questions[place].left
    right: Side = "new" if left == "old" else "old"
    answers = {"left": left, "right": right, "neither": "neither"}
    answer = str(form.get("answer", ""))
    if answer not in answers:
        raise InvalidItem("an answer is left, right or neither")
    if by not in (people := {person for person, _ in found.preferred}) and len(people) >= _PEOPLE:
        raise InvalidItem(f"{_PEOPLE} people have taken part, which are enough")
    found.preferred[by, place] = answers[answer]  # type: ignore[assignment]
    return RedirectResponse(f"trial?{urlencode({'trial': name, 'by': by})}", 303)
