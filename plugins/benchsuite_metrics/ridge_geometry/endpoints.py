"""Where paths end: on a training point, near one, or between them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchsuite_metrics.ridge_geometry.points import Floats
from benchsuite_metrics.ridge_geometry.responsibilities import differences, stream

#: a sample this much nearer to its nearest training point than to the second is a copy of it
#: (Yoon et al. 2023; Bonnaire et al. 2025, arXiv:2505.17638)
MEMORISED = 1 / 3
#: most coordinates in which a radius decides what is between modes: elsewhere distances have no such scale
PLANAR = 3
#: neighbours among which the second distinct one is looked for
NEIGHBOURS = 32


def distinct_points(points: NDArray[Any]) -> int:
    """Number of different points among (N, d)."""
    return len({row.tobytes() for row in np.ascontiguousarray(points)})


def nearest_two(x: Floats, points: NDArray[Any]) -> tuple[Floats, Floats]:
    """Distances (B,) of every x (B, d) from its nearest training point and from the next that differs from it.

    The second is infinite if none of the NEIGHBOURS nearest differs.
    """
    # the noise level only scales the logits; it does not change which points are nearest
    index = stream(x, points, 1.0, NEIGHBOURS).index
    first, second = np.empty(len(x)), np.full(len(x), np.inf)
    for row, numbers in enumerate(index):
        nearest, apart = differences(points, numbers)
        lengths = np.linalg.norm(x[row] - nearest - apart, axis=1)
        first[row] = lengths.min()
        others = np.abs(apart).max(axis=1) > 0
        if others.any():
            second[row] = lengths[others].min()
    return np.minimum(first, second), np.maximum(first, second)


def is_memorised(first: Floats, second: Floats) -> NDArray[np.bool_]:
    """(B,) whether d1 / d2 is below MEMORISED."""
    found: NDArray[np.bool_] = first < MEMORISED * second
    return found


def is_between(first: Floats, second: Floats, radius: float | None, width: int) -> NDArray[np.bool_]:
    """(B,) whether a sample in `width` coordinates belongs to no training point.

    That is: farther than `radius` from all, in up to `PLANAR` coordinates; not memorised, in more or without one.
    """
    if radius is None or width > PLANAR:
        return ~is_memorised(first, second)
    found: NDArray[np.bool_] = first > radius
    return found
