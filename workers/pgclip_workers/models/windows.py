"""Texts longer than a model's context: overlapping windows instead of a cut."""

from collections.abc import Callable, Mapping, Sequence

# So that no sentence is seen only in halves.
_OVERLAP = 16

Tokenize = Callable[[Sequence[str]], list[list[int]]]


class Windows:
    """Cuts token ids into windows of at most `context`, each between the model's own marks.

    `tokenize` returns texts' ids with the marks, uncut. What it puts before and after every text
    is seen from an empty and a short one. `replaced`: ids that are nothing but marks, and what is
    put where a text has one.
    """

    def __init__(
        self, tokenize: Tokenize, context: int, replaced: Mapping[int, int] | None = None
    ) -> None:
        empty, probe = tokenize(["", "a"])
        start = next(
            (n for n, (a, b) in enumerate(zip(empty, probe, strict=False)) if a != b),
            min(len(empty), len(probe)),
        )
        self._before, self._after = empty[:start], empty[start:]
        self._room = context - len(empty)
        self._replaced = replaced or {}
        self._step = self._room - min(_OVERLAP, context // 4)

    def cut(self, ids: list[int]) -> list[list[int]]:
        """The windows of a text's ids; one if they fit."""
        body = ids[len(self._before) : len(ids) - len(self._after)]
        if not self._replaced.keys().isdisjoint(body):
            body = [self._replaced.get(token, token) for token in body]
        starts = range(0, max(1, len(body) - self._room + self._step), self._step)
        return [[*self._before, *body[at : at + self._room], *self._after] for at in starts]

    def of(self, tokenized: Sequence[list[int]]) -> tuple[list[list[int]], list[int]]:
        """The windows of several texts, and for each the position of its text."""
        pairs = [(window, n) for n, ids in enumerate(tokenized) for window in self.cut(ids)]
        return [window for window, _ in pairs], [owner for _, owner in pairs]
