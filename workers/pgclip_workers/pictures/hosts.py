"""Hosts that pictures are fetched from: one that does not answer must not hold up the others."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from urllib.parse import urlsplit

from pgclip_workers.pictures.refused import Refused

_FIRST_REST, _LONGEST_REST = 5.0, 300.0  # seconds
# A host that has answered is asked for everything at once, for so many seconds.
_TRUSTED_SECONDS = 60.0

Wanted = tuple[int, str]  # a picture's place, and its URL


@dataclass
class _Host:
    resting_until: float = 0.0
    rests: int = 0  # in a row
    trusted_until: float = 0.0


class Hosts:
    """Whom to ask, and whom to leave alone for a while.

    Of a host that has not answered lately a few pictures are fetched first, `at_once` of all such
    of all such hosts together, and the rest only if one of them was answered. Thread-safe.
    """

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._lock = Lock()
        self._hosts: dict[str, _Host] = {}

    def turn_away(self, wanted: Sequence[Wanted]) -> tuple[dict[int, Refused], list[Wanted]]:
        """An answer, which may pass by itself, for each of a host that rests; and the others."""
        answers, left = {}, []
        for n, url in wanted:
            rest = self._of(url).resting_until - time.monotonic()
            if rest > 0:
                message = f"{_name(url)} did not answer; it is left alone for {rest:.0f} s"
                answers[n] = Refused("fetch_failed", message, rest)
            else:
                left.append((n, url))
        return answers, left

    def next_round(self, wanted: Sequence[Wanted]) -> tuple[list[Wanted], list[Wanted]]:
        """Those to fetch now, and those for later."""
        now = time.monotonic()
        trusted = [each for each in wanted if self._of(each[1]).trusted_until > now]
        others = [each for each in wanted if self._of(each[1]).trusted_until <= now]
        tried = _in_turns(others)[: self._at_once]
        chosen = {n for n, _ in tried} | {n for n, _ in trusted}
        return ([each for each in wanted if each[0] in chosen],
                [each for each in wanted if each[0] not in chosen])  # fmt: skip

    def heard(self, answers: Sequence[tuple[str, object]]) -> None:
        """What came back from URLs. A host of which nothing did is left alone, ever longer."""
        now = time.monotonic()
        by_host: dict[str, list[object]] = {}
        for url, answer in answers:
            by_host.setdefault(_name(url), []).append(answer)
        with self._lock:
            for name, those in by_host.items():
                self._hear(name, those, now)
            self._forget(now)

    def _hear(self, name: str, answers: Sequence[object], now: float) -> None:
        asked = [each.retry_after for each in answers
                 if isinstance(each, Refused) and each.retry_after is not None]  # fmt: skip
        host = self._hosts.setdefault(name, _Host())
        if len(asked) < len(answers):
            host.rests, host.trusted_until = 0, now + _TRUSTED_SECONDS
        else:
            rest = min(_FIRST_REST * 2**host.rests, _LONGEST_REST)
            # Longer than that a site may ask for what it was asked for, and for nothing else.
            rest = min(max(rest, *asked), _LONGEST_REST)
            host.resting_until, host.trusted_until = now + rest, 0.0
            host.rests = min(host.rests + 1, 10)

    def _of(self, url: str) -> _Host:
        return self._hosts.get(_name(url), _Host())

    def _forget(self, now: float) -> None:
        """Those of which nothing is known any more."""
        self._hosts = {
            name: host
            for name, host in self._hosts.items()
            if max(host.resting_until + _LONGEST_REST, host.trusted_until) > now
        }


def _name(url: str) -> str:
    """The scheme and the host; of what is no URL all that can be told."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _in_turns(wanted: Sequence[Wanted]) -> list[Wanted]:
    """One of each host, then the second of each, and so on."""
    counts: dict[str, int] = {}
    turns = []
    for each in wanted:
        name = _name(each[1])
        turns.append((counts.get(name, 0), each))
        counts[name] = counts.get(name, 0) + 1
    return [each for _, each in sorted(turns, key=lambda turn: turn[0])]
