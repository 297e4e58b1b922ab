"""Teaching and evaluating that somebody asked for, on the vectors that are stored."""

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pgclip import binarycopy
from pgclip.database import Database
from pgclip.errors import LABELS_CHANGED, PgclipError, sqlstate
from pgclip_workers import statements
from pgclip_workers.labelling.evaluation import evaluation
from pgclip_workers.labelling.examples import Examples, examples_of
from pgclip_workers.labelling.labels import LabelSet, unit
from pgclip_workers.labelling.shelf import LabelShelf
from pgclip_workers.labelling.teaching import Taught, held_out, teach
from pgclip_workers.models.encoder import DeviceLost

log = logging.getLogger(__name__)


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
    """Does the tasks of a model, one after the other."""

    def __init__(self, database: Database, shelf: LabelShelf, model: int) -> None:
        self._database = database
        self._shelf = shelf
        self._model = model

    def step(self) -> bool:
        """Does a task, if there is one."""
        with self._database.transaction("label tasks") as cursor:
            cursor.execute(statements.TAKE_LABEL_TASK, (self._model,))
            row = cursor.fetchone()
        if row is None:
            return False
        task = Task(*row)
        result, error = None, None
        try:
            result = json.dumps(self._done(task))
        except ImpossibleTask as impossible:
            error = str(impossible)
        except (PgclipError, DeviceLost):
            raise  # it is taken again
        except Exception as unexpected:
            log.exception("label set %d could not be dealt with", task.set_id)
            error = f"{type(unexpected).__name__}: {unexpected}"
        with self._database.transaction("label tasks") as cursor:
            cursor.execute(statements.END_LABEL_TASK, (task.id, result, error))
        return True

    def _done(self, task: Task) -> dict[str, Any]:
        do: Callable[[Task], dict[str, Any]] = {
            "teach": self._teach, "evaluate": self._evaluate
        }[task.what]  # fmt: skip
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
        }  # fmt: skip
        self._keep(task, prompts, taught, report)
        return report

    def _keep(self, task: Task, prompts: LabelSet, taught: Taught, report: dict[str, Any]) -> None:
        heads = taught.heads
        weights = np.ones(len(heads.vectors))
        weights[: heads.count] = heads.weights
        changed = [
            {"label": int(label), "embedding": vector.tolist(), "intercept": float(intercept),
             "background": float(weight)}
            for label, vector, intercept, weight in zip(
                prompts.word_ids, heads.vectors, heads.intercepts, weights, strict=True)
        ]  # fmt: skip
        if heads.vectors is prompts.heads.vectors:
            changed = []
        with self._database.transaction("teach") as cursor:
            arguments = (task.id, prompts.version, heads.scale, json.dumps(report))
            cursor.execute(statements.KEEP_TEACHING, (*arguments, json.dumps(changed)))

    def _evaluate(self, task: Task) -> dict[str, Any]:
        taught, prompts, words = self._shelf.label_set(task.set_id)
        examples = self._examples(task, prompts)
        scores = taught.scores(examples.vectors)
        fitted = 0
        if (report := self._report(task)) is not None:
            # What taught the heads is judged by heads that did not see it.
            lessons = self._examples(Task(**report["asked"]), prompts)
            unseen = held_out(
                prompts.heads, lessons, prompts.exclusive, taught.heads, report["ways"]
            )
            by_key = dict(zip(lessons.keys, unseen, strict=True))
            for place, key in enumerate(examples.keys):
                if key in by_key:
                    scores[place] = by_key[key]
                    fitted += 1
        found = evaluation(taught, words[: len(taught.label_ids)], examples, scores)
        return {**found, "held_out": fitted, "disagreed": examples.disagreed}

    def _report(self, task: Task) -> dict[str, Any] | None:
        with self._database.transaction("evaluate") as cursor:
            cursor.execute(statements.TEACHING_OF, (task.set_id, self._model))
            row = cursor.fetchone()
        return row[0] if row else None

    def _examples(self, task: Task, label_set: LabelSet) -> Examples:
        """Raises ImpossibleTask if there are none."""
        with self._database.transaction("label examples") as cursor:
            quoted = {
                name: cursor.mogrify("%s", (value,)).decode()
                for name, value in (
                    *(("set", task.set_id), ("model", self._model), ("truth", task.truth)),
                    *(("collection", task.collection), ("sample", task.sample)),
                )
            }
            rows = [
                ((kind, hash_), _vector(vector or b""), json.loads(labels or b""),
                 json.loads(values or b""))
                for kind, hash_, vector, labels, values in binarycopy.copy_out(
                    cursor, statements.LABEL_EXAMPLES.format(**quoted))
            ]  # fmt: skip
        if not rows:
            raise ImpossibleTask(
                "nobody has judged what is stored now: see pgclip.judge"
                if task.truth is None
                else f"no item has a text in field {task.truth!r} of its metadata"
            )
        rows.sort(key=lambda row: row[0])
        ids = label_set.label_ids.tolist()
        return examples_of(rows, ids, label_set.exclusive, task.truth is not None)


def _vector(sent: bytes) -> Any:
    """A halfvec as pgvector sends it: its dimension, 0, and the halves."""
    return unit(np.frombuffer(sent, ">f2", offset=4)[None])[0]
