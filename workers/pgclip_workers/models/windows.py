"""Texts longer than a model's context: overlapping windows instead of a cut."""

from collections.abc import Callable, Sequence

# So that no sentence is seen only in halves.
_OVERLAP = 16

Tokenize = Callable[[str], list[int]]


class Windows:
    """Cuts token ids into windows of at most `context`, each between the model's own marks.

    `tokenize` returns a text's ids with the marks, uncut. What it puts before and after every text
    is seen from an empty and a short one.
    """

    def __init__(self, tokenize: Tokenize, context: int) -> None:
        empty, probe = tokenize(""), tokenize("a")
        start = next(
            (n for n, (a, b) in enumerate(zip(empty, probe, strict=False)) if a != b),
            min(len(empty), len(probe)),
        )
        self._before, self._after = empty[:start], empty[start:]
        self._room = context - len(empty)
        self._step = self._room - min(_OVERLAP, context // 4)

    def cut(self, ids: list[int]) -> list[list[int]]:
        """The windows of a text's ids; one, of the ids as they are, if they fit."""
        body = ids[len(self._before) : len(ids) - len(self._after)]
        starts = range(0, max(1, len(body) - self._room + self._step), self._step)
        return [[*self._before, *body[at : at + self._room], *self._after] for at in starts]

    def of(self, tokenized: Sequence[list[int]]) -> tuple[list[list[int]], list[int]]:
        """The windows of several texts, and for each the position of its text."""
        pairs = [(window, n) for n, ids in enumerate(tokenized) for window in self.cut(ids)]
        return [window for window, _ in pairs], [owner for _, owner in pairs]
