"""A search in SQL, and what it found of the truth."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from vectors import Floats


def ask(
    connection: Any, query: Floats, rest: str = "", by: str = "text"
) -> tuple[list[int], float]:
    """The numbers of the hits of a search in SQL, and its seconds. by: "text", "image", "both"."""
    kind = "NULL" if by == "both" else f"'{by}'"
    literal = str(query.tolist())
    with connection.cursor() as cursor:
        start = time.perf_counter()
        cursor.execute(
            f"SELECT key FROM pgclip.search_vector(%s::halfvec, query_kind => {kind}{rest})",
            (literal,),
        )
        rows = cursor.fetchall()
        return [int(key) for (key,) in rows], time.perf_counter() - start


def recall(found: Sequence[int], truth: Any) -> float:
    """The share of the truth that was found."""
    return len(set(found) & set(np.asarray(truth).tolist())) / len(truth)
