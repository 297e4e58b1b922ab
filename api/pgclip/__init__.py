"""Submit images and texts; search them in Postgres.

The names below are the package's face. They are imported when they are first used, and heavy
modules where they are used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pgclip.aio import AsyncClient
    from pgclip.changing.comparing import ComparedQuery, Comparison, ModelAnswer
    from pgclip.changing.models import Model, ModelMap, ModelPlan, Readiness, RolledBack
    from pgclip.client import Client
    from pgclip.errors import (
        ConfigurationError,
        ConnectionFailed,
        InvalidItem,
        ItemFailed,
        ModelMismatch,
        NotCommitted,
        NotFound,
        PgclipError,
        QueryFailed,
        QueueFull,
        SchemaError,
        WaitTimeout,
    )
    from pgclip.items import (
        Calibration,
        Choice,
        Classified,
        Collection,
        Duplicate,
        FailureCount,
        Healed,
        Hit,
        Item,
        ItemInfo,
        Judgement,
        Label,
        LabelSet,
        Missing,
        Similarity,
    )
    from pgclip.labelling.promising import Decided, DecisionChange, Draw, Promise
    from pgclip.searching.queries import Like
    from pgclip.searching.segments import Segment
    from pgclip.submitting.jobs import Batch, ItemFailure, Job
    from pgclip.tables.calls import IndexedTable, MissingRow, RowHit
    from pgclip.tables.definition import TableSQL, index_table_sql

__all__ = [
    "AsyncClient",
    "Batch",
    "Calibration",
    "Choice",
    "Classified",
    "Client",
    "Collection",
    "ComparedQuery",
    "Comparison",
    "ConfigurationError",
    "ConnectionFailed",
    "Decided",
    "DecisionChange",
    "Draw",
    "Duplicate",
    "FailureCount",
    "Healed",
    "Hit",
    "IndexedTable",
    "InvalidItem",
    "Item",
    "ItemFailed",
    "ItemFailure",
    "ItemInfo",
    "Job",
    "Judgement",
    "Label",
    "LabelSet",
    "Like",
    "Missing",
    "MissingRow",
    "Model",
    "ModelAnswer",
    "ModelMap",
    "ModelMismatch",
    "ModelPlan",
    "NotCommitted",
    "NotFound",
    "PgclipError",
    "Promise",
    "QueryFailed",
    "QueueFull",
    "Readiness",
    "RolledBack",
    "RowHit",
    "SchemaError",
    "Segment",
    "Similarity",
    "TableSQL",
    "WaitTimeout",
    "index_table_sql",
]

# Where they are, what all need first.
_HOMES = (
    *("errors", "items", "labelling.promising", "searching.queries", "searching.segments"),
    *(
        "changing.models",
        "changing.comparing",
        "submitting.jobs",
        "tables.calls",
        "tables.definition",
        "client",
        "aio",
    ),
)


def __getattr__(name: str) -> Any:
    if name in __all__:
        for home in _HOMES:
            module = import_module(f"pgclip.{home}")
            if hasattr(module, name):
                globals()[name] = found = getattr(module, name)
                return found
    if name in ("settings", "submitting", "searching", "tables", "labelling", "changing", *_HOMES):
        return import_module(f"pgclip.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
