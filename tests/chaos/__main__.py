"""`make chaos`: real services, workers and submitters, faults at random, then the reckoning.

The same seed chooses the same faults and contents; when each of them hits is the machine's doing.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from random import Random
from typing import Any

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS)]

import client_faults  # noqa: E402
import postgres_faults  # noqa: E402
import redis_faults  # noqa: E402
import worker_faults  # noqa: E402
from faults import FAULTS, WEIGHTS  # noqa: E402
from stage import Stage  # noqa: E402
from verdict import Ledger, Verdict, judge, read_ledgers  # noqa: E402

# They register what they have.
assert all((client_faults, postgres_faults, redis_faults, worker_faults))
# Poison items end whole workers several times over before they are blamed.
_SETTLE_SECONDS = 300


def main() -> int:
    """Returns 0 if nothing was lost, doubled, stuck, wrongly failed or left behind."""
    options = argparse.ArgumentParser(prog="chaos", description=__doc__)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--faults", type=int, default=400, help="besides what is submitted")
    options.add_argument("--workers", type=int, default=3)
    options.add_argument("--submitters", type=int, default=3)
    options.add_argument("--only", nargs="*", help="faults whose names contain one of these")
    options.add_argument("--report", type=Path, help="a file for the report as JSON")
    options.add_argument("--keep", type=Path, help="a folder for logs and data, which stay")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-") as temporary:
        folder = chosen.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        report = run(chosen, folder)
    print(json.dumps(report, indent=1, ensure_ascii=False))
    if chosen.report:
        chosen.report.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    return 0 if report["clean"] else 1


def run(chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The whole of it; the report."""
    random = Random(chosen.seed)
    names = [
        name for name in FAULTS
        if not chosen.only or any(part in name for part in chosen.only)
    ]  # fmt: skip
    # Every kind once, then by weight.
    order = names + random.choices(
        names, [WEIGHTS[name] for name in names], k=max(0, chosen.faults - len(names))
    )
    order = order[: chosen.faults]
    random.shuffle(order)
    recovery: dict[str, list[float]] = defaultdict(list)
    began = time.monotonic()
    stage = Stage(folder, chosen.seed, chosen.workers, chosen.submitters)
    try:
        wait_for_progress(stage)
        for number, name in enumerate(order, 1):
            print(f"{time.monotonic() - began:7.1f} s  {number:4}  {name}", flush=True)
            FAULTS[name](stage, random)
            recovery[name].append(wait_for_progress(stage))
            time.sleep(random.random() * 0.5)
        stage.stop_submitting()
        settled = wait_until_settled(stage)
        ledger = read_ledgers(folder)
        verdict = judge(ledger, stage.database_url, stage.redis_url)
        return report_of(chosen, order, recovery, stage, ledger, verdict, settled, began)
    finally:
        stage.close()


def wait_for_progress(stage: Stage) -> float:
    """Seconds until something is stored or failed that was not at the time of the call."""
    start = time.monotonic()
    ((now,),) = stage.sql("SELECT clock_timestamp()")
    later = """
        SELECT EXISTS (SELECT FROM pgclip.embedding_set WHERE stored_at > %s)
            OR EXISTS (SELECT FROM pgclip.failure WHERE failed_at > %s)
    """
    while stage.sql(later, now, now) != [(True,)]:
        if time.monotonic() - start > 120:
            stage.troubles.append("nothing was stored for two minutes")
            break
        time.sleep(0.05)
    return time.monotonic() - start


def wait_until_settled(stage: Stage) -> float:
    """Seconds until nothing is queued and nothing is left to be collected."""
    start = time.monotonic()
    left = """
        SELECT (SELECT count(*) FROM pgclip.job) + (SELECT count(*) FROM pgclip.content c
                WHERE NOT EXISTS (SELECT FROM pgclip.item i
                                  WHERE i.content_hash = c.hash AND i.kind = c.kind))
    """
    while stage.sql(left) != [(0,)] and time.monotonic() - start < _SETTLE_SECONDS:
        time.sleep(0.2)
    time.sleep(3)  # for tickets that are on their way
    return time.monotonic() - start


def report_of(
    chosen: argparse.Namespace,
    order: list[str],
    recovery: dict[str, list[float]],
    stage: Stage,
    ledger: Ledger,
    verdict: Verdict,
    settled: float,
    began: float,
) -> dict[str, Any]:
    """The figures, and what is wrong."""
    injections = Counter(order) + Counter(ledger.planted)
    return {
        "seed": chosen.seed,
        "clean": verdict.is_clean and not stage.troubles,
        "injections": sum(injections.values()),
        "kinds": len(injections),
        "items_accepted": ledger.accepted,
        "keys": len(ledger.possible),
        **{name: len(found) for name, found in verdict._asdict().items()},
        "examples": {name: found[:10] for name, found in verdict._asdict().items() if found},
        "troubles": stage.troubles[:10],
        "workers_started_again": stage.restarts,
        "seconds": round(time.monotonic() - began),
        "seconds_to_settle": round(settled, 1),
        "by_kind": dict(sorted(injections.items())),
        "longest_recovery_seconds": {
            name: round(max(times), 1) for name, times in sorted(recovery.items())
        },
    }


if __name__ == "__main__":
    sys.exit(main())
