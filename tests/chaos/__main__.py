"""`make chaos`: real services, workers and submitters, faults at random, then the reckoning.

The same seed chooses the same faults and contents; when each of them hits is the machine's doing.
"""

import argparse
import json
import shlex
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from random import Random
from typing import Any

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent / "benchmarks")]

import client_faults  # noqa: E402
import postgres_faults  # noqa: E402
import redis_faults  # noqa: E402
import throughput  # noqa: E402
import worker_faults  # noqa: E402
from faults import FAULTS, WEIGHTS, Missed  # noqa: E402
from here import machine  # noqa: E402
from model_change import ModelChange  # noqa: E402
from recovery import until_leases_are_back, until_progress, until_settled  # noqa: E402
from stage import LEASE, SETTINGS, Stage  # noqa: E402
from verdict import Ledger, Verdict, judge, read_ledgers  # noqa: E402

# They register what they have.
assert all((client_faults, postgres_faults, redis_faults, worker_faults))


def main() -> int:
    """Returns 0 if nothing was lost, doubled, stuck, wrongly failed or left behind."""
    options = argparse.ArgumentParser(prog="chaos", description=__doc__)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--faults", type=int, default=1000, help="besides poison submitted")
    options.add_argument("--workers", type=int, default=3)
    options.add_argument("--submitters", type=int, default=3)
    options.add_argument("--only", nargs="*", help="faults whose names contain one of these")
    options.add_argument("--long", action="store_true", help="also what takes minutes")
    options.add_argument("--through-pooler", action="store_true", help="PgBouncer before Postgres")
    options.add_argument("--beside-celery", action="store_true", help="another application's, in "
                         "the same Redis; without faults that empty that")  # fmt: skip
    options.add_argument("--change-model", action="store_true", help="to a second one, in the "
                         "middle, and the first goes")  # fmt: skip
    options.add_argument("--throughput", action="store_true", help="then the rate after each kind")
    options.add_argument("--report", type=Path, help="a file for the report as JSON")
    options.add_argument("--keep", type=Path, help="a folder for logs and data, which stay")
    chosen = options.parse_args()
    names = [name for name in FAULTS if _is_wanted(name, chosen)]
    with tempfile.TemporaryDirectory(prefix="chaos-") as temporary:
        folder = chosen.keep or Path(temporary)
        report = {"command": _command(chosen), "machine": machine()}
        report |= run(chosen, folder / "chaos", names)
        if chosen.throughput:
            rates = throughput.measure(folder / "rates", chosen.seed, chosen.workers, names)
            report["throughput"] = rates
            report["clean"] &= not rates["missing_or_not_done"] and not rates["troubles"]
    print(json.dumps(report, indent=1, ensure_ascii=False))
    if chosen.report:
        chosen.report.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    return 0 if report["clean"] else 1


def _is_wanted(name: str, chosen: argparse.Namespace) -> bool:
    is_named = not chosen.only or any(part in name for part in chosen.only)
    is_spared = chosen.beside_celery and name in redis_faults.EMPTYING
    return is_named and not is_spared and (chosen.long or WEIGHTS[name] > 0)


def _command(chosen: argparse.Namespace) -> str:
    """What does the same again, wherever its report and logs go."""
    chosen_ones = {n: v for n, v in vars(chosen).items() if v and n not in ("report", "keep")}
    words = ["python", "tests/chaos"]
    for name, value in chosen_ones.items():
        words.append(f"--{name.replace('_', '-')}")
        if value is not True:
            words.append(shlex.join(map(str, value)) if isinstance(value, list) else str(value))
    return " ".join(words)


class Injections:
    """What hit, what missed its instant, and how long each kind took to recover from."""

    def __init__(self) -> None:
        self.hits: Counter[str] = Counter()
        self.misses: Counter[str] = Counter()
        self.progress: dict[str, list[float]] = defaultdict(list)
        self.leases: dict[str, list[float]] = defaultdict(list)

    def inject(self, name: str, stage: Stage, random: Random) -> None:
        """One fault, and the wait for what comes after it."""
        try:
            FAULTS[name](stage, random)
        except Missed:
            self.misses[name] += 1
            return
        self.hits[name] += 1
        self.leases[name].append(until_leases_are_back(stage))
        self.progress[name].append(until_progress(stage))


def run(chosen: argparse.Namespace, folder: Path, names: list[str]) -> dict[str, Any]:
    """The whole of it; the report."""
    random = Random(chosen.seed)
    began = time.monotonic()
    injections = Injections()
    stage = Stage(
        folder, chosen.seed, chosen.workers, chosen.submitters,
        through_pooler=chosen.through_pooler, beside_celery=chosen.beside_celery,
    )  # fmt: skip
    change = ModelChange(stage) if chosen.change_model else None
    try:
        until_progress(stage)
        while (number := injections.hits.total()) < chosen.faults:
            name = _next(names, injections, chosen.faults, random)
            print(f"{time.monotonic() - began:7.1f} s  {number + 1:4}  {name}", flush=True)
            injections.inject(name, stage, random)
            if change is not None:
                change.step(injections.hits.total(), chosen.faults)
            time.sleep(random.random() * 0.5)
        stage.stop_submitting()
        if change is not None:
            change.finish()
        settled = until_settled(stage)
        ledger = read_ledgers(folder)
        verdict = judge(ledger, stage.services.database_url, stage.redis_url)
        stage.look_into_logs()
        return report_of(chosen, injections, stage, ledger, verdict, settled, began)
    finally:
        stage.close()


def _next(names: list[str], injections: Injections, faults: int, random: Random) -> str:
    """By weight; towards the end those that have not hit yet, but for any that never does."""
    missing = [n for n in names if not injections.hits[n] and injections.misses[n] < 20]
    if len(missing) >= faults - injections.hits.total():
        return random.choice(missing)
    return random.choices(names, [WEIGHTS[name] or 0.1 for name in names])[0]


def report_of(
    chosen: argparse.Namespace,
    injections: Injections,
    stage: Stage,
    ledger: Ledger,
    verdict: Verdict,
    settled: float,
    began: float,
) -> dict[str, Any]:
    """The figures, and what is wrong."""
    return {
        "seed": chosen.seed,
        "clean": verdict.is_clean and not stage.troubles,
        "faults_injected": injections.hits.total(),
        "kinds_of_faults": len(injections.hits),
        "poison_submitted": sum(ledger.planted.values()),
        "kinds_of_poison": len(ledger.planted),
        "items_accepted": ledger.accepted,
        "keys": len(ledger.possible),
        **{name: len(found) for name, found in verdict._asdict().items()},
        "examples": {name: found[:10] for name, found in verdict._asdict().items() if found},
        "troubles": stage.troubles[:10],
        "workers_started_again": stage.restarts,
        "seconds": round(time.monotonic() - began),
        "seconds_to_settle": round(settled, 1),
        "faults": dict(sorted(injections.hits.items())),
        "missed_their_instant": dict(sorted(injections.misses.items())),
        "poison": dict(sorted(ledger.planted.items())),
        "lease_and_steward_seconds": LEASE + float(SETTINGS["PGCLIP_STEWARD_INTERVAL"]),
        "longest_seconds_until_leases_returned": _longest(injections.leases),
        "longest_seconds_until_progress": _longest(injections.progress),
    }


def _longest(times: dict[str, list[float]]) -> dict[str, float]:
    return {name: round(max(found), 1) for name, found in sorted(times.items())}


if __name__ == "__main__":
    sys.exit(main())
