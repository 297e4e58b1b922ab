"""Submit images and texts; search them in Postgres.

The names below are the package's face. Heavy modules are imported where they are used.
"""

from pgclip.client import Client
from pgclip.errors import (
    ConfigurationError,
    ConnectionFailed,
    InvalidItem,
    ItemFailed,
    ModelMismatch,
    NotFound,
    PgclipError,
    QueryFailed,
    SchemaError,
    WaitTimeout,
)
from pgclip.items import Hit, Item, Label
from pgclip.jobs import Batch, ItemFailure, Job

__all__ = [
    "Batch",
    "Client",
    "ConfigurationError",
    "ConnectionFailed",
    "Hit",
    "InvalidItem",
    "Item",
    "ItemFailed",
    "ItemFailure",
    "Job",
    "Label",
    "ModelMismatch",
    "NotFound",
    "PgclipError",
    "QueryFailed",
    "SchemaError",
    "WaitTimeout",
]
