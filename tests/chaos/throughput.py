"""How fast the work goes on after each kind of fault, with a queue that is never empty.

The planted encoder takes a fixed time for each text here, as a device does, so that the rate is
the device's and not that of the machine which also bears services, workers and this driver.
"""

import threading
import time
from pathlib import Path
from random import Random
from typing import Any

import redis
from faults import FAULTS, Missed
from recovery import until_leases_are_back, until_settled
from stage import SETTINGS, Stage

from pgclip import Client
from pgclip.errors import PgclipError

# Keys are used again, so that the tables stay small and their size takes no part in the figures.
_KEYS = 20_000
_DEPTH = 2_000
_WINDOW = 4.0
# As good as before: within a tenth.
_BACK = 0.9
_GIVE_UP = 60.0
_RATE = """
    SELECT count(*) / %(window)s FROM pgclip.embedding_set
    WHERE stored_at > clock_timestamp() - make_interval(secs => %(window)s)
"""


class Feeder:
    """Keeps the queue deep, whatever happens."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._stopping = threading.Event()
        self._count = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """Returns how many texts were accepted."""
        self._stopping.set()
        self._thread.join()
        return self._count

    def _run(self) -> None:
        urls = {"database_url": self._stage.database_url, "redis_url": self._stage.redis_url}
        with Client(**urls) as client:
            while not self._stopping.wait(0.2):
                ((queued,),) = self._stage.sql("SELECT count(*) FROM pgclip.job")
                try:
                    while queued < _DEPTH and not self._stopping.is_set():
                        numbers = range(self._count, self._count + 500)
                        texts = [{"key": f"{n % _KEYS}", "text": f"text {n}"} for n in numbers]
                        client.submit_many(texts)
                        self._count += len(texts)
                        queued += len(texts)
                except PgclipError as error:  # the same again, under the same keys
                    print(f"feeder: {error}", flush=True)


def measure(folder: Path, seed: int, workers: int, names: list[str]) -> dict[str, Any]:
    """Each fault once, and what the rate is after it: figures by name."""
    random = Random(seed)
    pace = {"PLANTED_PACE": "0.012", "PGCLIP_BATCH_SIZE": "8"}
    stage = Stage(folder, seed, workers, 0, **pace)
    try:
        feeder = Feeder(stage)
        time.sleep(15)
        usual = _rate(stage, 10.0)
        assert usual, f"nothing was stored; see the logs in {folder}"
        after = {name: _after(stage, random, name, usual) for name in names}
        accepted = feeder.stop()
        until_settled(stage)
        wiped = _after_wipes(stage)
        counted = "SELECT count(*) FILTER (WHERE state = 'done') FROM pgclip.items"
        ((done,),) = stage.sql(counted)
    finally:
        stage.close()
    hit = {name: figures for name, figures in after.items() if figures}
    return {
        "texts_a_second": round(usual, 1),
        "accepted": accepted,
        "missing_or_not_done": min(accepted, _KEYS) - done,
        "missed": [name for name in names if name not in hit],
        "troubles": stage.troubles,
        "longest_seconds_until_back": max(each["seconds_until_back"] for each in hit.values()),
        "lowest_steady_ratio": min(each["steady_ratio_afterwards"] for each in hit.values()),
        "steward_seconds": float(SETTINGS["PGCLIP_STEWARD_INTERVAL"]),
        "longest_seconds_of_a_submission_wiped_from_redis": round(wiped, 2),
        "by_kind": hit,
    }


def _after(stage: Stage, random: Random, name: str, usual: float) -> dict[str, float] | None:
    """What comes after a fault; None if it never hit. Times are seconds after its end."""
    for _ in range(10):
        began = time.monotonic()
        try:
            FAULTS[name](stage, random)
            break
        except Missed:
            continue
    else:
        return None
    start = time.monotonic()
    leases = until_leases_are_back(stage)
    time.sleep(max(0.0, _WINDOW - leases))
    while (rate := _rate(stage, _WINDOW)) < _BACK * usual:
        if time.monotonic() - start > _GIVE_UP:
            stage.troubles.append(f"{rate:.0f} texts a second {_GIVE_UP:.0f} s after {name}")
            break
        time.sleep(0.1)
    # The window that was fast enough began this long after the fault.
    back = time.monotonic() - start - _WINDOW
    time.sleep(_WINDOW)
    figures = {
        "seconds_of_the_fault": round(start - began, 1),
        "seconds_until_leases_returned": round(leases, 2),
        "seconds_until_back": round(back, 1),
        "steady_ratio_afterwards": round(_rate(stage, _WINDOW) / usual, 3),
    }
    print(f"{name}: {figures}", flush=True)
    return figures


def _after_wipes(stage: Stage) -> float:
    """The longest of twenty submissions to idle workers, Redis being emptied after each commit."""
    times = []
    with redis.Redis.from_url(stage.redis_url) as client:
        for number in range(20):
            stage.sql("SELECT pgclip.submit_text(key => '0', body => %s)", f"wiped {number}")
            client.flushall()
            start = time.monotonic()
            while stage.sql("SELECT state FROM pgclip.items WHERE key = '0'") != [("done",)]:
                time.sleep(0.02)
            times.append(time.monotonic() - start)
            time.sleep(number / 20)  # at other moments of the steward's
    return max(times)


def _rate(stage: Stage, window: float) -> float:
    ((rate,),) = stage.sql(_RATE.replace("%(window)s", str(window)))
    return float(rate)
