"""`make bench-promises`: how often what labels promise holds, and how many judgements it takes.

Campaigns as people would have them, with the renderer's truth: a label is a kind of things, as
Unicode groups them, a head is taught by a few drawings of them, and people judge what `review`
draws, one in twenty times wrongly. All of it goes through the product's own functions.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

import numpy as np
import psycopg2
from figures import Figure, keep, show
from people import Holding, People
from planting import plant
from system import fresh_system, run_sql
from vectors import DIMENSION

from pgclip_workers.labelling.examples import Examples
from pgclip_workers.labelling.labels import Heads
from pgclip_workers.labelling.shelf import apart
from pgclip_workers.labelling.teaching import teach
from pgclip_workers.models.encoder import Floats

PREVALENCES = (0.1, 0.01, 0.005)
BUDGETS = (20, 50, 100, 200, 300, 500)
WRONG = 0.05
_THINGS = 12  # of a kind that is a label
_LESSONS = 4  # drawings of each thing that teach; the others are judged
_AT_ONCE = 21


@dataclass
class Campaign:
    """What came of one: the promise, after how many judgements, and what is true."""

    prevalence: float
    share: float
    opinions: int
    found: dict[int, tuple[float, float, float]] = field(default_factory=dict)
    """By judgements: the true precision above the threshold, the share of contents that reach it,
    and of those that are so. Where nothing is promised there is no entry."""

    first: int | None = None  # after so many judgements something was promised
    at_random: int | None = None  # and would have been if drawn from all alike


def main() -> int:
    """Runs the campaigns, prints the table, keeps the JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--campaigns", type=int, default=1000)
    chosen = parser.parse_args()
    began = time.perf_counter()
    done = list(_campaigns(chosen.campaigns))
    figures = _told(done)
    figures += show([Figure("seconds a campaign", (time.perf_counter() - began) / len(done), "s")])
    keep(figures, "make bench-promises", "promises")
    return 0


def _campaigns(count: int) -> Iterator[Campaign]:
    people = People()
    pictures = people.pictures().reshape(len(people.names()), -1, DIMENSION)
    judged = pictures[:, _LESSONS:]
    holding = Holding(
        "judged", judged.reshape(-1, DIMENSION), np.arange(judged[..., 0].size),
        np.full(judged[..., 0].size, "image"), np.zeros(judged[..., 0].size, int), {},
    )  # fmt: skip
    background = people.prompts(["thing", "picture", "animal", "person", "place"], ["a {}"])
    names = people.prompts(people.names(), ["a {}"])
    kinds = people.kinds()
    large = [kind for kind in sorted(set(kinds)) if kinds.count(kind) >= _THINGS]
    with fresh_system() as urls:
        url = urls["database_url"]
        plant(url, holding)
        run_sql(url, "SELECT pgclip.define_label_set('s', ARRAY['l'], exclusive => false)")
        # No worker labels anything: scores are put where it would have left them.
        run_sql(url, "UPDATE pgclip.embedding_set SET label_epoch = 1000000000")
        run_sql(url, "DELETE FROM pgclip.relabeling; ANALYZE")
        for number in range(count):
            random = np.random.default_rng([20, number])
            prevalence = PREVALENCES[number % len(PREVALENCES)]
            some = np.array(kinds) == random.choice(large)
            scores = _taught(names[some], background, pictures, some, people.scale(), random)
            items = _chosen(np.repeat(some, judged.shape[1]), prevalence, random)
            truth = np.repeat(some, judged.shape[1])[items]
            campaign = Campaign(prevalence, (0.95, 0.9)[number // 3 % 2], (1, 3)[number // 6 % 2])
            _run(url, campaign, number + 2, items, scores[items], truth, random)
            yield campaign
            print(number, campaign, flush=True)


def _taught(
    names: Floats, background: Floats, pictures: Floats, some: Any, scale: float, random: Any
) -> Floats:
    """Scores of all that is judged, by a head that some of the lessons have taught."""
    prompt = names.mean(axis=0, keepdims=True)
    prompt /= np.linalg.norm(prompt)
    vectors = np.concatenate([prompt, background])
    nothing = np.zeros(len(vectors), np.float32)
    heads = Heads(vectors, nothing, np.ones(1, np.float32), apart(prompt, background), scale)
    of, others = pictures[some, :_LESSONS], pictures[~some, :_LESSONS]
    lessons = int(random.choice([16, 64, 256]))
    right = of.reshape(-1, DIMENSION)
    right = right[random.permutation(len(right))[:lessons]]
    wrong = others.reshape(-1, DIMENSION)
    wrong = wrong[random.permutation(len(wrong))[: 4 * lessons]]
    truth = np.concatenate([np.ones(len(right)), np.zeros(len(wrong))]).astype(np.float32)
    order = random.permutation(len(truth))
    examples = Examples(np.concatenate([right, wrong])[order], truth[order, None], tuple(order))
    found = teach(heads, examples, exclusive=False).heads
    return found.alone(pictures[:, _LESSONS:].reshape(-1, DIMENSION))[:, 0]


def _chosen(truth: Any, prevalence: float, random: Any) -> Any:
    """As many as can be so that a share of them is of the kind."""
    (of,), (others,) = np.nonzero(truth), np.nonzero(~truth)
    most = int(min(len(of), len(others) * prevalence / (1 - prevalence)))
    some = random.choice(of, most, replace=False)
    rest = random.choice(others, int(most / prevalence) - most, replace=False)
    return np.sort(np.concatenate([some, rest]))


def _run(
    url: str, campaign: Campaign, version: int, items: Any, scores: Floats, truth: Any, random: Any
) -> None:
    right = dict(zip((items + 1).tolist(), truth.tolist(), strict=True))
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        _begin(cursor, campaign, version, items, scores)
        spent = 0
        told: dict[int, float | None] = {}
        while spent < BUDGETS[-1]:
            asked = _judge_some(cursor, campaign, min(_AT_ONCE, BUDGETS[-1] - spent), right, random)
            if not asked:
                break
            spent += asked
            cursor.execute("SELECT threshold FROM pgclip.campaign")
            told[spent] = cursor.fetchone()[0]
        threshold = None
        for at in range(1, BUDGETS[-1] + 1):
            threshold = told.get(at, threshold)
            if threshold is not None and campaign.first is None:
                campaign.first = at
            if at in BUDGETS and threshold is not None:
                above = scores >= np.float32(threshold)
                precision, recall = truth[above].mean(), truth[above].sum() / truth.sum()
                campaign.found[at] = (float(precision), float(above.mean()), float(recall))
        campaign.at_random = _at_random(cursor, campaign, scores, truth, random)


def _begin(cursor: Any, campaign: Campaign, version: int, items: Any, scores: Floats) -> None:
    cursor.execute("TRUNCATE pgclip.judgement, pgclip.review, pgclip.promise, pgclip.campaign,"
                   " pgclip.campaign_draw, pgclip.item_score, pgclip.decision_touch,"
                   " pgclip.decision_change")  # fmt: skip
    cursor.execute("UPDATE pgclip.label_set SET words_version = %s WHERE name = 's'", (version,))
    cursor.execute("SELECT id FROM pgclip.label WHERE name = 'l'")
    (label,) = cursor.fetchone()
    rows = StringIO(
        "".join(
            f"{item + 1}\t1\t{label}\t{version}\t0\t{score!r}\n"
            for item, score in zip(items, scores.tolist(), strict=True)
        )
    )
    cursor.copy_expert("COPY pgclip.item_score FROM STDIN", rows)
    cursor.execute("UPDATE pgclip.item_score s SET chance = pgclip._chance(e.content_hash)"
                   " FROM pgclip.embedding_set e WHERE e.item_id = s.item_id")  # fmt: skip
    cursor.execute("SELECT pgclip.promise('s', 'l', share => %s, opinions => %s)",
                   (campaign.share, campaign.opinions))  # fmt: skip


def _judge_some(
    cursor: Any, campaign: Campaign, most: int, right: dict[int, bool], random: Any
) -> int:
    """Each person judges what they get; how many judgements that were."""
    asked = 0
    for judge in range(campaign.opinions):
        cursor.execute(
            "SELECT item_id, collection, key FROM pgclip.review('s', %s, %s, purpose => 'promise')",
            (max(1, most // campaign.opinions), f"judge {judge}"),
        )
        drawn = cursor.fetchall()
        said = [
            {"set": "s", "label": "l", "key": key, "collection": collection,
             "judge": f"judge {judge}",
             "value": right[item] != bool(random.random() < WRONG)}
            for item, collection, key in drawn
        ]  # fmt: skip
        cursor.execute("SELECT * FROM pgclip.judge_many(%s)", (json.dumps(said),))
        assert not cursor.fetchall()
        asked += len(drawn)
    return asked


def _at_random(
    cursor: Any, campaign: Campaign, scores: Floats, truth: Any, random: Any
) -> int | None:
    """After how many judgements of contents drawn from all alike the first threshold is kept, by
    people who err as often."""
    cursor.execute("SELECT thresholds[1], looks, allowed FROM pgclip.campaign")
    threshold, looks, allowed = cursor.fetchone()
    order = random.permutation(len(scores))
    places = np.flatnonzero(scores[order] >= np.float32(threshold))
    people = campaign.opinions
    errs = random.random((len(places), people)) < WRONG
    votes = (truth[order[places]][:, None] != errs).sum(axis=1) * 2 > people
    for look, most in zip(looks, allowed, strict=True):
        if look <= len(places) and (~votes[:look]).sum() <= most:
            return int((places[look - 1] + 1) * people)
    return None


def _told(done: list[Campaign]) -> list[Figure]:
    figures = []
    for share in (0.95, 0.9):
        for opinions in (1, 3):
            for prevalence in PREVALENCES:
                some = [one for one in done if (one.share, one.opinions, one.prevalence)
                        == (share, opinions, prevalence)]  # fmt: skip
                if some:
                    figures += show(_of(some, f"{share}, {opinions} opinions, {prevalence:.1%}"))
        kept = [one for one in done if one.share == share and one.found]
        if kept:
            held = [all(p >= share for p, _, _ in one.found.values()) for one in kept]
            figures += show([
                Figure(f"{share}: promises that held, of {len(held)}", float(np.mean(held)),
                       "share", "≥ 0.95"),
            ])  # fmt: skip
    return figures


def _of(some: list[Campaign], name: str) -> list[Figure]:
    figures = [Figure(f"{name}: campaigns", len(some), "")]
    for budget in BUDGETS:
        kept = [one.found[budget] for one in some if budget in one.found]
        figures.append(Figure(f"{name}, {budget} judgements: promised", len(kept) / len(some),
                              "share"))  # fmt: skip
        if kept:
            recall = float(np.mean([recall for _, _, recall in kept]))
            figures.append(Figure(f"{name}, {budget}: of what is so, decided", recall, "share"))
    first = [one.first for one in some if one.first is not None]
    if first:
        figures.append(Figure(f"{name}: judgements until promised, median", float(np.median(first)),
                              ""))  # fmt: skip
    random = [one.at_random for one in some if one.at_random is not None]
    if random:
        figures.append(Figure(f"{name}: drawn from all alike", float(np.median(random)), ""))
    return figures


if __name__ == "__main__":
    raise SystemExit(main())
