"""Maps from one model's vectors to another's."""

import numpy as np

from pgclip_workers.mapping.procrustes import Pairs


def test_mapped_vectors_are_as_spread_out_as_real_ones() -> None:
    """However little the two models have in common; the least error would have them shrink."""
    random = np.random.default_rng(1)
    old = random.standard_normal((5000, 8)).astype(np.float32)
    turn = np.linalg.qr(random.standard_normal((12, 8)))[0]
    for noise in (0, 0.3, 2):
        new = 0.5 * old @ turn.T + noise * random.standard_normal((5000, 12)) + 3
        pairs = Pairs(8, 12)
        for part in (slice(0, 2000), slice(2000, 5000)):
            pairs.add(old[part], new[part].astype(np.float32))
        found = pairs.map()
        mapped = old @ found.axes.T + found.shift
        assert np.allclose(mapped.var(axis=0).sum(), new.var(axis=0).sum(), rtol=1e-3)
        assert np.allclose(mapped.mean(axis=0), new.mean(axis=0), atol=1e-3)
