"""Submit images and texts; search them in Postgres.

The names below are the package's face. Heavy modules are imported where they are used.
"""

from pgclip.aio import AsyncClient
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
    Collection,
    Duplicate,
    Healed,
    Hit,
    Item,
    ItemInfo,
    Label,
    LabelSet,
    Missing,
)
from pgclip.searching.queries import Like
from pgclip.searching.segments import Segment
from pgclip.submitting.jobs import Batch, ItemFailure, Job

__all__ = [
    "AsyncClient",
    "Batch",
    "Calibration",
    "Client",
    "Collection",
    "ConfigurationError",
    "ConnectionFailed",
    "Duplicate",
    "Healed",
    "Hit",
    "InvalidItem",
    "Item",
    "ItemFailed",
    "ItemFailure",
    "ItemInfo",
    "Job",
    "Label",
    "LabelSet",
    "Like",
    "Missing",
    "ModelMismatch",
    "NotCommitted",
    "NotFound",
    "PgclipError",
    "QueryFailed",
    "QueueFull",
    "SchemaError",
    "Segment",
    "WaitTimeout",
]
