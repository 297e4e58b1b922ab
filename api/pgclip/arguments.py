"""What calls are given, checked before Postgres is asked; a wrong one is refused in a line."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from math import inf
from pathlib import Path
from typing import Any, get_args

from pgclip.errors import InvalidItem
from pgclip.items import Decision, Kind, State
from pgclip.keys import file_key

# \u0000 in JSON, not behind an escaped backslash.
_NUL_ESCAPE = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def text(value: object, what: str, name: str) -> str:
    """A text that Postgres can take, of `what` the `name`. Raises InvalidItem."""
    if not isinstance(value, str):
        raise InvalidItem(f"{what}: the {name} is a str, not {type(value).__name__}")
    if "\0" in value:
        raise InvalidItem(f"{what}: the {name} has a NUL character, which Postgres can't store")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidItem(f"{what}: the {name} is not valid Unicode: {error}") from error
    return value


def name_text(value: object, name: str) -> str:
    """A key or a collection to look for, as Postgres can take it; of a file its key.

    Raises InvalidItem.
    """
    if isinstance(value, Path):
        value = file_key(value)
    return text(value, f"{name} {value!r:.100}", name)


def collection_name(value: object) -> str | None:
    """A collection to look in; None for all. Raises InvalidItem."""
    return None if value is None else name_text(value, "collection")


def kind_of(value: object, name: str = "kind") -> Kind | None:
    """None for both. Raises InvalidItem."""
    kind: Kind | None = _one_of(value, get_args(Kind), name)
    return kind


def state_of(value: object) -> State | None:
    """None for any. Raises InvalidItem."""
    state: State | None = _one_of(value, get_args(State), "state")
    return state


def decision_of(value: object) -> Decision | None:
    """A decision, or None for any. Raises InvalidItem."""
    found: Decision | None = _one_of(value, get_args(Decision), "decision")
    return found


def key_list(keys: object) -> list[str] | None:
    """Keys to look for; None for any. Raises InvalidItem."""
    if keys is None:
        return None
    if isinstance(keys, str | bytes | Path | Mapping) or not isinstance(keys, Sequence):
        raise InvalidItem(f"keys is a list of keys, not {keys!r:.100}")
    return [name_text(key, "key") for key in keys]


def text_list(values: object, name: str) -> list[str]:
    """Texts that Postgres can take; None for none. Raises InvalidItem."""
    if values is None:
        return []
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise InvalidItem(f"{name} is a list of texts, not {values!r:.100}")
    return [text(value, name, "text") for value in values]


def number(value: object, name: str) -> float | None:
    """Raises InvalidItem."""
    if value is None:
        return None
    try:
        if not isinstance(value, str | bytes | bool):
            return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        pass
    raise InvalidItem(f"{name} is a number, not {value!r:.100}")


def whole_number(value: object, name: str) -> int:
    """Raises InvalidItem."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise InvalidItem(f"{name} is a whole number, not {value!r:.100}")


def seconds(value: object, name: str = "timeout") -> float:
    """A time to wait. Raises InvalidItem."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < inf:
        return value
    raise InvalidItem(f"{name} is a number of seconds, not {value!r:.100}")


def flag(value: object, name: str) -> bool:
    """Raises InvalidItem."""
    if isinstance(value, bool):
        return value
    raise InvalidItem(f"{name} is True or False, not {value!r:.100}")


def metadata_json(metadata: object, what: str) -> str:
    """Metadata as JSON that Postgres can store. Raises InvalidItem."""
    advice = "; a date or time goes as text: value.isoformat()"
    return _json(metadata, f"{what}: the metadata", _number_of_numpy, advice)


def filter_json(filter: object) -> str | None:
    """A filter as JSON; dates and times in it as text. Raises InvalidItem."""
    return None if filter is None else _json(filter, "the filter", _text_of_time, "")


def _json(value: object, name: str, default: Any, advice: str) -> str:
    if value is not None and not isinstance(value, Mapping):
        raise InvalidItem(f"{name} is a mapping, not {type(value).__name__}")
    try:
        encoded = json.dumps(
            dict(value or {}), allow_nan=False, ensure_ascii=False, default=default
        )
        encoded.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidItem(f"{name} is not JSON: {error}{advice}") from error
    if _NUL_ESCAPE.search(encoded):
        raise InvalidItem(f"{name} has a NUL character, which Postgres can't store")
    return encoded


def _number_of_numpy(value: Any) -> Any:
    """Numbers as numpy and pandas have them."""
    if getattr(value, "ndim", None) == 0 and callable(getattr(value, "item", None)):
        return value.item()
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _text_of_time(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime | date) else _number_of_numpy(value)


def _one_of(value: Any, allowed: Sequence[str], name: str) -> Any:
    if value is None or (isinstance(value, str) and value in allowed):
        return value
    raise InvalidItem(f"{name} is {' or '.join(map(repr, allowed))}, not {value!r:.100}")
