"""Teaching and evaluating that somebody asked for, on the vectors that are stored."""

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pgclip import binarycopy
from pgclip.database import Database
from pgclip.errors import LABELS_CHANGED, NotFound, PgclipError, sqlstate
from pgclip_workers import statements
from pgclip_workers.labelling.evaluation import evaluation
from pgclip_workers.labelling.examples import Examples, examples_of
from pgclip_workers.labelling.labels import LabelSet, unit
from pgclip_workers.labelling.shelf import LabelShelf
from pgclip_workers.labelling.teaching import Taught, held_out, teach
from pgclip_workers.models.encoder import DeviceLost

log = logging.getLogger(__name__)

# Classes of SQLSTATEs that come again: data, constraints, limits.
_LASTING = ("22", "23", "54")
_MOST_NUMBERS = 40_000_000  # 160 MB
_MOST_GROUPS = 50
# What is told of each.
_OF_GROUPS = ("examples", "accuracy", "precision", "recall", "coverage", "none")
_NOTHING_RIGHT = (
    "there is nothing to compare: of labels that exclude each other somebody has to say which one "
    "is right for an item, of labels that stand alone whether one is"
)


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be done: a row of TAKE_LABEL_TASK. `truth` is a field of the metadata, or None for
    what people judged."""

    id: int
    set_id: int
    what: str
    truth: str | None
    collection: str | None
    sample: int


class ImpossibleTask(ValueError):
    """Why it can't be done, for whoever asked."""


class LabelTasks:
    """Does the tasks of a model, one after the other. `worker` gives the worker's number."""

    def __init__(
        self, database: Database, shelf: LabelShelf, model: int, worker: Callable[[], int]
    ) -> None:
        self._database = database
        self._shelf = shelf
        self._model = model
        self._worker = worker

    def step(self) -> bool:
        """Does a task, if there is one."""
        with self._database.transaction("label tasks") as cursor:
            cursor.execute(statements.TAKE_LABEL_TASK, (self._model, self._worker()))
            row = cursor.fetchone()
        if row is None:
            return False
        task = Task(*row)
        result, error = None, None
        try:
            result = json.dumps(self._done(task), allow_nan=False)
        except (ImpossibleTask, NotFound) as impossible:
            error = str(impossible)
        except PgclipError as refused:
            if sqlstate(refused)[:2] not in _LASTING:
                raise  # it is taken again
            error = str(refused)
        except DeviceLost:
            raise
        except Exception as unexpected:
            log.exception("label set %d could not be dealt with", task.set_id)
            error = f"{type(unexpected).__name__}: {unexpected}"
        with self._database.transaction("label tasks") as cursor:
            cursor.execute(statements.END_LABEL_TASK, (task.id, result, error))
        return True

    def _done(self, task: Task) -> dict[str, Any]:
        do = {"teach": self._teach, "evaluate": self._evaluate}[task.what]
        while True:
            try:
                return do(task)
            except PgclipError as error:  # somebody has defined the set anew
                if sqlstate(error) != LABELS_CHANGED:
                    raise

    def _teach(self, task: Task) -> dict[str, Any]:
        _, prompts, words = self._shelf.label_set(task.set_id)
        examples = self._examples(task, prompts)
        taught = teach(prompts.heads, examples, prompts.exclusive)
        if taught.by_prompts is None:
            raise ImpossibleTask(_NOTHING_RIGHT)
        report = {
            "examples": len(examples),
            "disagreed": examples.disagreed,
            "by_prompts": taught.by_prompts,
            "by_heads": taught.by_heads,
            "ways": taught.ways,
            "labels": [
                {"label": name, "right": int((said == 1).sum()), "wrong": int((said == 0).sum())}
                for name, said in zip(words, examples.truth.T, strict=False)
            ],
            "asked": asdict(task),
        }
        contents = [bytes(key, "ascii") + hash_ for key, hash_ in examples.keys]
        with self._database.transaction("teach") as cursor:
            heads = json.dumps(_learnt(prompts, taught), allow_nan=False)
            arguments = (task.id, prompts.version, taught.heads.scale, json.dumps(report))
            cursor.execute(statements.KEEP_TEACHING, (*arguments, heads, contents))
        return report

    def _evaluate(self, task: Task) -> dict[str, Any]:
        taught, prompts, words = self._shelf.label_set(task.set_id)
        examples = self._examples(task, prompts)
        scores = taught.scores(examples.vectors)
        judged = np.ones(len(examples), bool)
        unseen = self._unseen(task, taught, prompts)
        for place, key in enumerate(examples.keys):
            if key in unseen:  # it has taught the heads
                judged[place] = unseen[key] is not None
                scores[place] = unseen[key] if judged[place] else 0
        known, scores = examples.some(judged), scores[judged]
        names = words[: len(taught.label_ids)]
        groups = [
            {"group": group} | {name: found[name] for name in _OF_GROUPS}
            for group, places in self._groups(task, known)
            for found in [evaluation(taught, names, known.some(places), scores[places])]
        ]
        return {
            **evaluation(taught, names, known, scores),
            "groups": groups,
            "held_out": sum(unseen.get(key) is not None for key in examples.keys),
            "left_out": int((~judged).sum()),
            "disagreed": examples.disagreed,
        }

    def _groups(self, task: Task, examples: Examples) -> list[tuple[str, Any]]:
        """The groups that were asked for, the largest first, with the places of their examples."""
        with self._database.transaction("evaluate") as cursor:
            hashes = [hash_ for _, hash_ in examples.keys]
            cursor.execute(statements.EXAMPLE_GROUPS, (task.id, hashes))
            group_of = {bytes(hash_): value for hash_, value in cursor.fetchall()}
        places: dict[str, list[int]] = {}
        for place, (_, hash_) in enumerate(examples.keys):
            if hash_ in group_of:
                places.setdefault(group_of[hash_], []).append(place)
        largest = sorted(places, key=lambda group: -len(places[group]))[:_MOST_GROUPS]
        return [(group, np.array(places[group])) for group in largest]

    def _unseen(self, task: Task, taught: LabelSet, prompts: LabelSet) -> dict[Any, Any]:
        """Of each content that taught the set its probabilities by heads that did not see it, or
        None where it is not known any more what it taught."""
        with self._database.transaction("evaluate") as cursor:
            cursor.execute(statements.TEACHING_OF, (task.set_id, self._model))
            row = cursor.fetchone()
        if row is None:
            return {}
        report, contents = row
        keys = [(bytes(each[:-32]).decode(), bytes(each[-32:])) for each in contents]
        unseen = dict.fromkeys(keys)
        try:
            lessons = self._examples(Task(**report["asked"]), prompts)
        except ImpossibleTask:
            return unseen
        lessons = lessons.some(np.array([key in unseen for key in lessons.keys]))
        scores = held_out(prompts.heads, lessons, prompts.exclusive, taught.heads, report["ways"])
        return unseen | dict(zip(lessons.keys, scores, strict=True))

    def _examples(self, task: Task, label_set: LabelSet) -> Examples:
        """Raises ImpossibleTask if there are none."""
        # A matrix of examples and words has to fit into memory, a few times.
        sample = min(task.sample, _MOST_NUMBERS // len(label_set.word_ids))
        with self._database.transaction("label examples") as cursor:
            quoted = {
                name: cursor.mogrify("%s", (value,)).decode()
                for name, value in (
                    *(("set", task.set_id), ("model", self._model), ("truth", task.truth)),
                    *(("collection", task.collection), ("sample", sample)),
                )
            }
            rows = [
                (((kind or b"").decode(), hash_ or b""), _vector(vector or b""),
                 json.loads(labels or b""), json.loads(values or b""))
                for kind, hash_, vector, labels, values in binarycopy.copy_out(
                    cursor, statements.LABEL_EXAMPLES.format(**quoted))
            ]  # fmt: skip
        if not rows:
            raise ImpossibleTask(
                "nobody has judged what is stored now: see pgclip.judge"
                if task.truth is None
                else f"no item has a text in field {task.truth!r} of its metadata"
            )
        rows.sort(key=lambda row: row[0][1])
        ids = label_set.label_ids.tolist()
        return examples_of(rows, ids, label_set.exclusive, task.truth is not None)


def _learnt(prompts: LabelSet, taught: Taught) -> list[dict[str, Any]]:
    """The heads that are other than the prompts'."""
    heads, before = taught.heads, prompts.heads
    weights = np.ones(len(heads.vectors))
    weights[: heads.count] = heads.weights
    return [
        {"label": int(prompts.word_ids[n]), "embedding": heads.vectors[n].tolist(),
         "intercept": float(heads.intercepts[n]), "background": float(weights[n])}
        for n in range(len(heads.vectors))
        if weights[n] != 1 or heads.intercepts[n] != before.intercepts[n]
        or (heads.vectors[n] != before.vectors[n]).any()
    ]  # fmt: skip


def _vector(sent: bytes) -> Any:
    """A halfvec as pgvector sends it: its dimension, 0, and the halves."""
    return unit(np.frombuffer(sent, ">f2", offset=4)[None])[0]
