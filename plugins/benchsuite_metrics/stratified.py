"""Small subsets in which every value of every factor keeps its share.

Iterative stratification (Sechidis, Tsoumakas & Vlahavas 2011, "On the stratification of multi-label data"): the
rarest value that still lacks items goes first, so that none is used up by the common ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def stratified(labels: NDArray[Any], n: int, seed: int) -> NDArray[np.int64]:
    """Indices (n,), ascending, of a subset of the rows of `labels`.

    Args:
        labels: (N, F) values of F factors.
        n: how many to choose, at most N.
        seed: breaks ties.
    """
    count, factors = labels.shape
    order = np.random.default_rng(seed).permutation(count)
    # one column per value of each factor
    has = np.concatenate([labels[:, [f]] == np.unique(labels[:, f]) for f in range(factors)], axis=1)
    wanted = has.mean(axis=0) * n  # items of each value that the subset still lacks
    chosen, free = np.zeros(count, dtype=bool), np.ones(count, dtype=bool)
    while chosen.sum() < n:
        left = has[free].sum(axis=0)
        lacking = (wanted > 0) & (left > 0)
        if not lacking.any():  # rounding: every value has its share and a few items are missing
            rest = order[free[order]]
            chosen[rest[: n - chosen.sum()]] = True
            break
        rarest = int(np.where(lacking, left, count + 1).argmin())
        candidates = order[free[order] & has[order, rarest]]
        # the item whose other values are lacking most
        best = candidates[(has[candidates] * wanted).sum(axis=1).argmax()]
        chosen[best], free[best] = True, False
        wanted -= has[best]
    return np.flatnonzero(chosen)
