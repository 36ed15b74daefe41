"""Intervals, onsets, gaps and ranks: computed once, here, from the per-item values that metrics return.

Items are the sampling unit: noise draws of one item are averaged first, and a bootstrap resamples items. Two
models measured on the same items are resampled together (the draws are keyed by the set of ids), so that their
differences are paired.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from benchsuite.contracts import Curve, FloatArray

LEVEL = 0.95
#: fractions of the way from floor to ceiling that define onset and width
ONSET, EARLY, LATE = 0.5, 0.1, 0.9


@dataclass(frozen=True)
class Estimate:
    """A number with its bootstrap replicates; `value` is None when it does not exist, and `note` says why."""

    value: float | None
    replicates: FloatArray  #: (R,), NaN where a replicate has no value
    note: str = ""

    def interval(self) -> tuple[float, float] | None:
        """Percentile interval at 95 %; None unless at least 95 % of the replicates have a value."""
        found = self.replicates[np.isfinite(self.replicates)]
        if self.value is None or len(found) < LEVEL * len(self.replicates) or not len(found):
            return None
        low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        # a percentile interval can miss the estimate by a rounding error when replicates are all equal
        return min(float(low), self.value), max(float(high), self.value)


@dataclass(frozen=True)
class Summary:
    """Statistics of one curve."""

    value: FloatArray  #: (T,)
    low: FloatArray  #: (T,)
    high: FloatArray  #: (T,)
    replicates: FloatArray  #: (R, T)
    log_snr_50: Estimate
    width: Estimate
    n_items: int


def cluster_means(per_item: FloatArray, items: Sequence[str]) -> tuple[FloatArray, list[str]]:
    """Average the rows of each item: (M, T) => (N, T) and the N sorted ids."""
    names, inverse = np.unique(np.asarray(items), return_inverse=True)
    counts = np.bincount(inverse)
    sums = np.zeros((len(names), per_item.shape[1]))
    np.add.at(sums, inverse, per_item)
    return sums / counts[:, None], [str(name) for name in names]


def resampling_weights(items: Sequence[str], replicates: int, seed: int) -> FloatArray:
    """Bootstrap weights (R, N) that sum to 1 per row; a function of the set of ids and the seed only."""
    return _weights(tuple(items), replicates, seed)


@lru_cache(maxsize=2)  # all curves of a data set are resampled alike, and drawing takes longer than averaging
def _weights(items: tuple[str, ...], replicates: int, seed: int) -> FloatArray:
    from benchsuite.randomness import stream_key

    rng = np.random.default_rng(stream_key("bootstrap", seed, *items))
    n = len(items)
    weights: FloatArray = rng.multinomial(n, np.full(n, 1 / n), size=replicates) / n
    weights.flags.writeable = False
    return weights


def summarise(curve: Curve, *, replicates: int, seed: int) -> Summary:
    """Mean curve, pointwise intervals, and log_snr_50 and width with theirs (in the curve's own axis)."""
    values, items = cluster_means(curve.per_item, curve.items)
    mean = values.mean(axis=0)
    means = resampling_weights(items, replicates, seed) @ values
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)

    # a quantity that falls as the factor becomes fixed (entropy) is turned round
    sign = 1.0 if curve.ceiling >= curve.floor else -1.0
    # crossings are looked for from the noisy side, which is the far end of an axis that counts losses
    losing = curve.axis != "log_snr"
    order = slice(None, None, -1 if losing else 1)
    levels, curves = curve.log_snr[order], sign * np.concatenate([mean[None], means])[:, order]

    def crossing(fraction: float) -> Estimate:
        level = sign * (curve.floor + fraction * (curve.ceiling - curve.floor))
        value, *found = first_crossing(curves, levels, level)
        if np.isfinite(value):
            return Estimate(float(value), np.array(found))
        side = "starts above" if curves[0, 0] >= level else "never reaches"
        return Estimate(None, np.array(found), f"{side} {fraction:.0%} of the way from floor to ceiling")

    early, half, late = crossing(EARLY), crossing(ONSET), crossing(LATE)
    width = difference(early, late) if losing else difference(late, early)
    return Summary(mean, low, high, means, half, width, len(items))


def first_crossing(curves: FloatArray, log_snr: FloatArray, level: float) -> FloatArray:
    """The first level at which each curve (R, T) rises through `level`, linearly interpolated; NaN if none.

    Levels (T,) run from noise to clean: log_snr ascends, a loss descends. A curve that starts at or above the
    level has no crossing inside the grid.
    """
    above = curves >= level
    index = above.argmax(axis=1)  # first level at or above
    exists = above.any(axis=1) & (index > 0)
    right = np.where(exists, index, 1)
    rows = np.arange(len(curves))
    y0, y1 = curves[rows, right - 1], curves[rows, right]
    with np.errstate(divide="ignore", invalid="ignore"):
        x = log_snr[right - 1] + (level - y0) / (y1 - y0) * (log_snr[right] - log_snr[right - 1])
    return np.where(exists, x, np.nan)


def difference(a: Estimate, b: Estimate) -> Estimate:
    """a - b, replicate by replicate."""
    replicates = a.replicates - b.replicates
    if a.value is None or b.value is None:
        return Estimate(None, replicates, a.note or b.note)
    return Estimate(a.value - b.value, replicates)


def area_between(a: Summary, b: Summary, grid_a: FloatArray, grid_b: FloatArray, signed: bool = False) -> Estimate:
    """∫ |a - b| d log_snr over the levels that both cover, or ∫ (a - b) if `signed`; the curves' unit × log-SNR.

    An absolute value does not vanish under sampling noise; read it next to its interval.
    """
    inside = grid_a[(grid_a >= grid_b[0] - 1e-9) & (grid_a <= grid_b[-1] + 1e-9)]
    if len(inside) < 2:
        return Estimate(None, np.full(len(a.replicates), np.nan), "the two curves share no range")
    keep = np.isin(grid_a, inside)

    def area(mine: FloatArray, theirs: FloatArray) -> float:
        apart = mine[keep] - np.interp(inside, grid_b, theirs)
        return float(np.trapezoid(apart if signed else np.abs(apart), inside))

    replicates = np.array([area(x, y) for x, y in zip(a.replicates, b.replicates, strict=True)])
    return Estimate(area(a.value, b.value), replicates)


def rank_with_ties(scores: Sequence[Estimate]) -> list[int]:
    """Rank of each score, lower is better: 1 + how many others are better beyond doubt.

    One is better than another if the 95 % interval of their paired difference lies below 0; models that cannot
    be told apart from the same betters share a rank.
    """

    def better(a: Estimate, b: Estimate) -> bool:
        interval = difference(a, b).interval()
        return interval is not None and interval[1] < 0

    return [1 + sum(better(other, mine) for other in scores if other is not mine) for mine in scores]
