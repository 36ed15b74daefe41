"""Which training points a noisy point may come from: responsibilities, streamed over the training set.

Everything is in variance-exploding coordinates, ``x = x0 + sigma n``, in which the smoothed empirical density is
``p(x) = 1/N sum_i N(x; y_i, sigma² I)``. A variance-preserving or Ornstein–Uhlenbeck process with
``x_t = a x0 + sqrt(h) z`` is the same thing divided by a: with ``x = x_t / a`` and ``sigma² = h / a²`` its
kernel N(x_t; a y_i, h I) is N(x; y_i, sigma² I) up to a constant, so that

* responsibilities, frames, K_eff, mu_j / h (here mu_j / sigma²), and every distance over sqrt(h) are the same;
* lengths here are those there divided by a (a ridge point at r there is at r / a here);
* for a = e^{-t}, h = 1 - e^{-2t}: sigma² = e^{2t} - 1, log_snr = -ln(e^{2t} - 1), t = ln(1 + e^{-log_snr}) / 2.

Float64 throughout: one float32 dot product at sigma = 0.01 is wrong by several nats. Weights are only ever kept
as logarithms; at small noise all but one underflow, and the frame is in the ones that do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchsuite_metrics.ridge_geometry.points import Array, Floats, check_points, check_query

#: neighbours kept per query; wherever less than all but 1e-9 of the mass is on them, all points are used
KEEP = 512
#: elements of the largest temporary: 64 MB of float64
CHUNK = 2**23


@dataclass(frozen=True)
class LocalStatistics:
    """Posterior of x0 given x under the empirical distribution of N points, for B queries in d dimensions."""

    sigma: float
    mean: Floats  #: (B, d) E[x0 | x]
    k_eff: Floats  #: (B,) effective number of points 1 / sum w², 1 … N
    trace: Floats  #: (B,) total posterior variance E[‖x0 - mean‖² | x]
    index: NDArray[np.int64]  #: (B, K) the K nearest points, nearest first
    log_weights: Floats  #: (B, K) their log-responsibilities, normalised over all N
    captured: Floats  #: (B,) sum of the K weights, at most 1


def local_statistics(x: Array, points: Array, sigma: float, keep: int = KEEP) -> LocalStatistics:
    """Responsibilities and moments of `points` at `x`.

    Args:
        x: (B, d) queries, variance-exploding coordinates; numpy or torch.
        points: (N, d) training points.
        sigma: noise level, > 0.
        keep: K, how many neighbours to name; moments are over all N whatever it is.

    Raises:
        UsageError: impossible input, with the reason.
    """
    known = check_points(points)
    return stream(check_query(x, known, sigma), known, sigma, keep)


def stream(x: Floats, points: NDArray[Any], sigma: float, keep: int) -> LocalStatistics:
    """`local_statistics` of checked input, in one pass over the points."""
    count, width = points.shape
    keep = min(keep, count)
    centre = points.mean(axis=0, dtype=np.float64)
    queries = x - centre
    top = np.full((len(x), keep), -np.inf)
    index = np.zeros((len(x), keep), dtype=np.int64)
    moments = _Moments.of(len(x), width)
    for start, block in blocks(points, centre, len(x)):
        logits = log_kernel(queries, block, sigma)
        moments.add(logits, block)
        top, index = _merged(top, index, logits, start)
    order = np.argsort(-top, axis=1, kind="stable")
    top, index = np.take_along_axis(top, order, 1), np.take_along_axis(index, order, 1)
    log_total = moments.highest + np.log(moments.total)
    log_weights = top - log_total[:, None]
    mean = moments.first / moments.total[:, None]
    trace = moments.second / moments.total - np.square(mean).sum(axis=1)
    return LocalStatistics(
        sigma=sigma,
        mean=mean + centre,
        k_eff=moments.total**2 / moments.squares,
        trace=np.maximum(trace, 0.0),
        index=index,
        log_weights=log_weights,
        captured=np.minimum(np.exp(log_weights).sum(axis=1), 1.0),
    )


def blocks(points: NDArray[Any], centre: Floats, queries: int) -> Any:
    """Yield (start, centred points (n, d) float64) so that n x (queries or d) stays within CHUNK."""
    size = max(64, CHUNK // max(queries, points.shape[1]))
    for start in range(0, len(points), size):
        yield start, points[start : start + size].astype(np.float64) - centre


def log_kernel(queries: Floats, block: Floats, sigma: float) -> Floats:
    """-‖x - y‖² / 2 sigma² for all pairs, (B, n), up to a constant per query."""
    logits: Floats = queries @ block.T
    logits -= np.square(block).sum(axis=1) / 2
    logits /= sigma**2
    return logits


def differences(points: NDArray[Any], index: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """The first of the points at `index` (K,), and how the others differ from it, (d,) and (K, d)."""
    found = points[index].astype(np.float64)
    return found[0], found - found[0]


def exact_log_weights(offset: Floats, apart: Floats, sigma: float) -> Floats:
    """Log-weights (K,) relative to the first point, without cancellation.

    With offset = x - y_0 and apart = y_i - y_0: (‖x - y_0‖² - ‖x - y_i‖²) / 2 = (y_i - y_0)·(offset - apart / 2).
    """
    weights: Floats = (apart * (offset - apart / 2)).sum(axis=1) / sigma**2
    return weights


@dataclass
class _Moments:
    """Running sums of exp(logit - highest) times 1, y and ‖y‖², rescaled whenever the highest logit rises."""

    highest: Floats
    total: Floats
    squares: Floats
    first: Floats
    second: Floats

    @classmethod
    def of(cls, rows: int, width: int) -> _Moments:
        return cls(np.full(rows, -np.inf), np.zeros(rows), np.zeros(rows), np.zeros((rows, width)), np.zeros(rows))

    def add(self, logits: Floats, block: Floats) -> None:
        highest = np.maximum(self.highest, logits.max(axis=1))
        shrink = np.exp(self.highest - highest)
        weights = np.exp(logits - highest[:, None])
        self.total = self.total * shrink + weights.sum(axis=1)
        self.first = self.first * shrink[:, None] + weights @ block
        self.second = self.second * shrink + weights @ np.square(block).sum(axis=1)
        self.squares = self.squares * shrink**2 + np.einsum("ij,ij->i", weights, weights)
        self.highest = highest


def _merged(top: Floats, index: NDArray[np.int64], logits: Floats, start: int) -> tuple[Floats, NDArray[np.int64]]:
    """The K largest of those known and those of a block that starts at point number `start`."""
    keep = top.shape[1]
    if logits.shape[1] > keep:
        best = np.argpartition(logits, -keep, axis=1)[:, -keep:]
    else:
        best = np.broadcast_to(np.arange(logits.shape[1]), logits.shape)
    values = np.concatenate([top, np.take_along_axis(logits, best, 1)], axis=1)
    numbers = np.concatenate([index, best + start], axis=1)
    if values.shape[1] > keep:
        best = np.argpartition(values, -keep, axis=1)[:, -keep:]
        values, numbers = np.take_along_axis(values, best, 1), np.take_along_axis(numbers, best, 1)
    return values, numbers
