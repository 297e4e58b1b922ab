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
from pgclip.items import Collection, Hit, Item, ItemInfo, Label, LabelSet
from pgclip.jobs import Batch, ItemFailure, Job

__all__ = [
    "AsyncClient",
    "Batch",
    "Client",
    "Collection",
    "ConfigurationError",
    "ConnectionFailed",
    "Hit",
    "InvalidItem",
    "Item",
    "ItemFailed",
    "ItemFailure",
    "ItemInfo",
    "Job",
    "Label",
    "LabelSet",
    "ModelMismatch",
    "NotCommitted",
    "NotFound",
    "PgclipError",
    "QueryFailed",
    "QueueFull",
    "SchemaError",
    "WaitTimeout",
]
