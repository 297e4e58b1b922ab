"""Is what is there found? A small version of benchmarks/found.py: every kind of data, every way.

The data come from the demo's renderer and model; PGCLIP_TEST_SEED draws others.
"""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.places import ROOT

from pgclip.searching.segments import Maintenance

sys.path.append(str(ROOT / "benchmarks"))
DATA = [Path("/usr/share/unicode/cldr"), Path("/usr/share/unicode/emoji"),
        Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")]  # fmt: skip
ONE_IN = 20  # of the things that the benchmark has
QUERIES = 40  # as many measure


@pytest.fixture(autouse=True, scope="module")
def data_of_the_demo() -> None:
    lacking = [str(path) for path in DATA if not path.exists()]
    if lacking and not os.environ.get("CI"):
        pytest.skip(f"no {lacking}: fonts-noto-color-emoji, unicode-data, unicode-cldr-core")


@pytest.mark.parametrize("name", ["drawings", "documents", "floods", "bursts", "tenants", "both"])
def test_recall_best_hit_and_no_query_in_vain(
    name: str, database_url: str, maintenance: Maintenance
) -> None:
    import found
    import people
    import planting

    seed = int(os.environ.get("PGCLIP_TEST_SEED", "0"))
    holding = people.ALL[name](people.People(seed, ONE_IN))
    planting.plant(database_url, holding)
    maintenance.run()
    planting.settle(database_url, maintenance)
    found.look(database_url, holding, QUERIES)
    asked_in: dict[str, list[Any]] = {}
    for kind, way, asked, best in found.ways(holding, QUERIES):
        answers = found.at_rest(database_url, holding, kind, way, asked, best)
        asked_in[f"by {kind}{way.name}"] = answers
    for how, answers in asked_in.items():
        recalls = [each.recall for each in answers]
        assert np.mean(recalls) >= 0.99, how
        assert min(recalls) > 0, how
        assert np.mean([each.has_best for each in answers]) >= 0.975, how  # all but one
