"""Looking for duplicates among all items, which takes minutes where there are very many."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self
from urllib.parse import urlencode

from starlette.datastructures import FormData, QueryParams

from pgclip import Client, Duplicate, InvalidItem, PgclipError
from pgclip.items import Kind
from pgclip_web.asked import KINDS


class Wanted(NamedTuple):
    """Among what duplicates are looked for, and how alike they are."""

    collection: str
    kind: Kind | None
    min_score: float

    @classmethod
    def from_params(cls, params: QueryParams | FormData) -> Self:
        """Raises InvalidItem."""
        try:
            score = float(str(params.get("min_score") or 0.95))
        except ValueError as error:
            raise InvalidItem("a cosine is a number, such as 0.95") from error
        kind = next((each for each in KINDS if each == params.get("kind")), None)
        return cls(str(params.get("collection", "")), kind, score)

    def address(self, **more: object) -> str:
        """The query string."""
        named = {name: value for name, value in self._asdict().items() if value}
        return "?" + urlencode({**named, **more})


@dataclass
class Look:
    """One that goes on, or what came of it."""

    began: float
    groups: Sequence[Sequence[Duplicate]] | None = None
    error: PgclipError | None = None

    @property
    def seconds(self) -> int:
        """How long it has been going on."""
        return int(time.monotonic() - self.began)


class Looks:
    """What was looked for last, for all who open the page. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted: Wanted | None = None
        self._look: Look | None = None

    def of(self, wanted: Wanted) -> Look | None:
        """The look for it, if it is the last one."""
        with self._lock:
            return self._look if wanted == self._wanted else None

    def begin(self, wanted: Wanted, client: Client) -> None:
        """Raises InvalidItem while another is going on."""
        with self._lock:
            if self._look and self._look.groups is None and self._look.error is None:
                if wanted == self._wanted:
                    return
                raise InvalidItem("somebody is looking for other duplicates: wait until that ends")
            self._wanted, self._look = wanted, Look(time.monotonic())
        arguments = (self._look, wanted, client)
        threading.Thread(target=_look, args=arguments, name="duplicates", daemon=True).start()


def _look(look: Look, wanted: Wanted, client: Client) -> None:
    try:
        look.groups = client.duplicate_groups(
            collection=wanted.collection or None, kind=wanted.kind, min_score=wanted.min_score
        )
    except PgclipError as error:
        look.error = error
    except Exception as error:  # the page says it, whatever it is
        look.error = PgclipError(f"{type(error).__name__}: {error}")
        raise
