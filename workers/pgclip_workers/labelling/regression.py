"""Regressions of few examples with many dimensions, that begin with what prompts say."""

from typing import Any

import numpy as np

from pgclip_workers.models.encoder import Floats

# Penalties on leaving the prompt: on its weight, and on the intercept.
_OF_WEIGHT, _OF_INTERCEPT = 0.1, 0.01
_STEPS = 30


class Binary:
    """A logistic regression by Newton's method: weight × offset + head · vector + intercept.

    `vectors` are (n, dimension), `right` (n,) 1 or 0, `offset` (n,) the logits by prompts. Of n
    smaller than the dimension it is solved in the span of the vectors, where the answer lies.
    """

    def __init__(self, vectors: Floats, right: Floats, offset: Floats) -> None:
        left, sizes, self._span = np.linalg.svd(vectors.astype(np.float64), full_matrices=False)
        self._offset = offset.astype(np.float64)
        self._inputs = np.column_stack([self._offset, np.ones(len(right)), left * sizes])
        self._right = right.astype(np.float64)

    def solve(self, penalty: float) -> tuple[float, float, Floats]:
        """The weight, which is 1 without examples, the intercept, and the head (dimension,)."""
        inputs = self._inputs if np.isfinite(penalty) else self._inputs[:, :2]
        of_head = [penalty] * (inputs.shape[1] - 2)
        penalties = np.array([_OF_WEIGHT, _OF_INTERCEPT, *of_head])
        start = np.zeros(inputs.shape[1])
        start[0] = 1
        found, loss = start, self._loss(inputs, start, start, penalties)
        for _ in range(_STEPS):
            chance = 0.5 * (1 + np.tanh(0.5 * (inputs @ found)))
            slope = inputs.T @ (chance - self._right) + penalties * (found - start)
            curve = (inputs.T * (chance * (1 - chance))) @ inputs + np.diag(penalties)
            step = np.linalg.solve(curve, slope)
            size = 1.0
            while size > 1e-4:
                less = self._loss(inputs, found - size * step, start, penalties)
                if less <= loss:
                    break
                size /= 2
            found = found - size * step
            if loss - less < 1e-9 * max(1.0, abs(loss)):
                break
            loss = less
        head = found[2:] @ self._span if len(found) > 2 else np.zeros(self._span.shape[1])
        return float(found[0]), float(found[1]), head.astype(np.float32)

    def _loss(self, inputs: Any, values: Any, start: Any, penalties: Any) -> float:
        logits = inputs @ values
        of_examples = np.logaddexp(0, np.where(self._right == 1, -logits, logits)).sum()
        return float(of_examples + (penalties * (values - start) ** 2).sum() / 2)


def multinomial(
    vectors: Floats, classes: Any, start: Floats, scale: float, penalty: float
) -> tuple[Floats, Floats]:
    """Heads (labels, dimension) and intercepts (labels,) of a softmax over scale × head · vector,
    by L-BFGS from heads that it may leave at a penalty. `classes` are (n,) places in them."""
    import torch

    inputs = torch.from_numpy(vectors.astype(np.float64))
    wanted = torch.from_numpy(np.asarray(classes))
    begin = torch.from_numpy(np.asarray(start, np.float64))
    heads = begin.clone().requires_grad_()
    intercepts = torch.zeros(len(begin), dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS(
        [heads, intercepts], max_iter=50, tolerance_change=1e-7, line_search_fn="strong_wolfe"
    )

    def loss() -> Any:
        search.zero_grad()
        logits = scale * inputs @ heads.T + intercepts
        fit = torch.nn.functional.cross_entropy(logits, wanted, reduction="sum")
        leaving = ((heads - begin) ** 2).sum() * scale**2 + (intercepts**2).sum()
        total = fit + penalty / 2 * leaving
        total.backward()  # type: ignore[no-untyped-call]
        return total

    search.step(loss)  # type: ignore[no-untyped-call]
    found = heads.detach().numpy().astype(np.float32)
    return found, intercepts.detach().numpy().astype(np.float32)
