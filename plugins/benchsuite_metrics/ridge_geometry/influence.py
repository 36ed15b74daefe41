"""Per-item values whose mean is a given statistic of all items and whose bootstrap is its interval.

Statistics live in the engine, which takes means over items. A root mean square, a ratio of means, or a mean over
some of the items is no such mean, but it is one to first order in what each item contributes: the influence
values below have exactly the statistic as their mean, and their spread is its sampling error.

All take (P, T) arrays, items by levels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchsuite_metrics.ridge_geometry.points import Floats

Mask = NDArray[np.bool_]


def mean_over(values: Floats, mask: Mask) -> Floats:
    """Mean over the items in `mask`, by level: at least one item per level."""
    return ratio_of_means(np.where(mask, values, 0.0), mask.astype(np.float64))


def root_mean_square(squares: Floats, mask: Mask) -> Floats:
    """Root of the mean of `squares` over the items in `mask`."""
    mean = mean_over(squares, mask)
    root = np.sqrt(np.maximum(mean.mean(axis=0), 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        found = root + (mean - root**2) / (2 * root)
    return np.where(root == 0, 0.0, found)


def ratio_of_means(top: Floats, bottom: Floats) -> Floats:
    """mean(top) / mean(bottom); NaN at levels where the latter is 0."""
    below = bottom.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = top.mean(axis=0) / below
        found: Floats = ratio + (top - ratio * bottom) / below
    return found


def difference_of_means(a: Floats, b: Floats) -> Floats:
    """mean(a) - mean(b) of two groups of items, a (M, T) and b (M', T): (M + M', T)."""
    total = len(a) + len(b)
    return np.concatenate([a * (total / len(a)), -b * (total / len(b))])
