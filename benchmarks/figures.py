"""Figures: measured, printed as they come, kept with the machine's description."""

import json
import os
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from here import HERE, machine

LOAD = round(os.getloadavg()[0], 2)  # before anything of ours runs


class Figure(NamedTuple):
    """A value with its unit, and what was aimed at."""

    name: str
    value: float
    unit: str
    aim: str = ""


def show(figures: list[Figure]) -> list[Figure]:
    """Prints figures as they come."""
    for name, value, unit, aim in figures:
        print(f"{name:<72} {value:>10,.2f} {unit:<9} {aim}", flush=True)
    return figures


def keep(figures: list[Figure], command: str, name: str, **more: Any) -> None:
    """Writes results/NAME.json."""
    result = {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "machine": machine(),
        "load_before": LOAD,
        **more,
        "figures": [
            {
                "figure": each.name,
                "value": round(float(each.value), 3),
                "unit": each.unit,
                "aim": each.aim,
            }
            for each in figures
        ],
    }
    target = HERE / "results" / f"{name}.json"
    target.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    print(f"\n{json.dumps(result['machine'])}\nkept in {target.relative_to(HERE.parent)}")


def timed(call: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def quantile(values: list[float], q: int) -> float:
    """The q-th percentile, in milliseconds."""
    return 1000 * statistics.quantiles(values, n=100)[q - 1]
