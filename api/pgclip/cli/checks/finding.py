"""What one check has found."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """What one check found, and what to do about it."""

    what: str
    state: Literal["ok", "warning", "trouble"]
    detail: str
    advice: str = ""
