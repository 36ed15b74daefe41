"""The transition of a Random Hierarchy Model of finite depth L, in mean field: threshold, width, order of levels.

Class retention p_L falls from 1 at epsilon = 0 to 1/v at epsilon = 1, ever more steeply as L grows. The reference
values are in `rhm_theory`; arXiv 2402.16991 and 2410.13770. All functions take v, m, s, L as there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchsuite_models.rhm_theory import mean_field


def threshold(v: int, m: int, s: int, L: int, kept: float = 0.5) -> float:
    """Epsilon at which the share `kept` in (0, 1) of the class is left: p_L = 1/v + kept (1 - 1/v)."""
    level = 1 / v + kept * (1 - 1 / v)
    return _root(lambda epsilon: mean_field(epsilon, v, m, s, L).class_retention - level, 0.0, 1.0)


def width(v: int, m: int, s: int, L: int) -> float:
    """Epsilon at 10 % left minus epsilon at 90 % left: how sharp the transition is."""
    return threshold(v, m, s, L, 0.1) - threshold(v, m, s, L, 0.9)


def inversion(v: int, m: int, s: int, L: int, nodes: int = 400) -> float | None:
    """The lowest epsilon beyond which a token is safer than the class (P_L - P_0 falls through 0), or None."""

    def ahead(epsilon: float) -> float:
        kept = mean_field(epsilon, v, m, s, L).retention
        return kept[-1] - kept[0]

    # near both ends the two are equal within rounding
    grid = np.linspace(0, 1, nodes + 1)[1:-1].tolist()
    values = [ahead(epsilon) for epsilon in grid]
    for left, right, before, after in zip(grid, grid[1:], values, values[1:], strict=False):
        if before > 1e-12 and after <= 0:
            return _root(ahead, left, right)
    return None


def susceptibility_peak(v: int, m: int, s: int, L: int, nodes: int = 50) -> tuple[float, float]:
    """(epsilon, chi) where most tokens change together, to 4 digits: a grid, then finer ones around its best."""
    low, high = 0.0, 1.0
    while high - low > 1e-4:
        grid = np.linspace(low, high, nodes + 1)[1:]  # at epsilon = 0 nothing changes
        chi = [mean_field(float(epsilon), v, m, s, L).susceptibility() for epsilon in grid]
        best = int(np.argmax(chi))
        step = float(grid[1] - grid[0])
        low, high = max(float(grid[best]) - step, 0.0), min(float(grid[best]) + step, 1.0)
    return float(grid[best]), chi[best]


def _root(falling: Callable[[float], float], low: float, high: float) -> float:
    """Where a function that is positive at `low` and not at `high` falls through 0, to the last bit."""
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return middle
        if falling(middle) > 0:
            low = middle
        else:
            high = middle
