"""The local picture around each noisy point: posterior mean, tangent frame, distance to the ridge.

Ridge of dimension d* at noise level sigma (h = sigma²): the points where m(x) - x has no component in the normal
directions, the eigenvectors of C(x) but the d* leading ones, and mu_{d*+1} < h (p is concave across it). All
follows from the posterior mean m and covariance C of the training points: grad log p = (m - x) / h,
Hess log p = (C / h - I) / h.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchsuite_metrics.ridge_geometry.eigen import AT_REST, dense_directions, graded_directions
from benchsuite_metrics.ridge_geometry.points import Array, Floats, check_dim, check_points, check_query, like
from benchsuite_metrics.ridge_geometry.responsibilities import (
    KEEP,
    LocalStatistics,
    blocks,
    differences,
    exact_log_weights,
    log_kernel,
    stream,
)

#: mass that the kept neighbours may miss before all points are used for the covariance
MISSED = 1e-12
#: up to so many dimensions all points enter a covariance matrix; beyond it, a weighted sample of them does
DENSE = 128
#: points of that sample
SAMPLE = 1024
#: how far the eigenvectors of a sampled covariance, good to a few per cent itself, are iterated
ROUGH = 1e-4
#: 1 - mu/h below which a Newton step is no longer trusted
SAFE = 0.1
#: steps of conjugate gradients, and the residual at rest
STEPS, RESIDUAL = 200, 1e-12


@dataclass(frozen=True)
class Local:
    """One query's posterior: where its mean lies, and a covariance in one of two forms."""

    shift: Floats  #: (d,) m - x
    apart: Floats  #: (K, d) differences from the nearest point
    log_weights: Floats  #: (K,), normalised
    covariance: Floats | None = None  #: (d, d) if formed from all points
    at_rest: float = AT_REST  #: how far eigenvectors are iterated

    def directions(self, count: int) -> tuple[Floats, Floats]:
        """Leading eigenvectors (count, d) and log-eigenvalues (count,) of the covariance."""
        if self.covariance is not None:
            return dense_directions(self.covariance, count)
        return graded_directions(self.apart, self.log_weights, count, self.at_rest)

    def trace(self) -> float:
        """tr C."""
        if self.covariance is not None:
            return float(np.trace(self.covariance))
        return float(np.square(self._rows).sum())

    def step_to_ridge(self, tangent: Floats, sigma: float, newton: bool) -> Floats:
        """One step (d,) across the ridge whose `tangent` directions (dim, d) are given.

        The mean shift P_perp(m - x), or Newton's: the normal delta with P_perp(I - C / h) delta = P_perp(m - x),
        by conjugate gradients; it exists if mu_{dim+1} < h, see `is_safe`.
        """

        def across(v: Floats) -> Floats:
            return v - tangent.T @ (tangent @ v)

        target = across(across(self.shift))  # twice: near the ridge most of m - x is tangential
        if not newton:
            return target
        covariance = self.covariance

        def bent(v: Floats) -> Floats:
            product = self._rows.T @ (self._rows @ v) if covariance is None else covariance @ v
            return across(v - product / sigma**2)

        delta = np.zeros_like(target)
        rest, way = target.copy(), target.copy()
        size = start = float(rest @ rest)
        for _ in range(min(STEPS, len(target) - len(tangent))):
            if size <= RESIDUAL**2 * start or not size:
                break
            image = bent(way)
            step = size / float(way @ image)
            delta += step * way
            rest -= step * image
            before, size = size, float(rest @ rest)
            way = rest + (size / before) * way
        return delta

    @cached_property
    def _rows(self) -> Floats:
        """sqrt(w_i)(y_i - m), (K, d): their Gram matrix is C, in floating-point numbers of ordinary size."""
        mean = np.exp(self.log_weights) @ self.apart
        rows: Floats = np.exp(self.log_weights / 2)[:, None] * (self.apart - mean)
        return rows


@dataclass(frozen=True)
class Frame:
    """Leading directions of the posterior covariance at B points."""

    basis: Floats  #: (B, k, d) orthonormal rows, the most uncertain direction first; 0 beyond the rank
    log_mu: Floats  #: (B, k) natural logarithms of the eigenvalues, -inf beyond the rank

    def resolved(self, dim: int, ratio: float = 1.2) -> NDArray[np.bool_]:
        """(B,) whether mu_dim exceeds mu_{dim+1} by `ratio`, so that a frame of `dim` directions is determined."""
        with np.errstate(invalid="ignore"):  # -inf - -inf: beyond the rank nothing is resolved
            gap = self.log_mu[:, dim - 1] - self.log_mu[:, dim]
        found: NDArray[np.bool_] = np.isfinite(self.log_mu[:, dim - 1]) & (gap >= np.log(ratio))
        return found


def local_pictures(
    x: Floats, points: NDArray[Any], statistics: LocalStatistics, missed: float = MISSED
) -> Iterator[Local]:
    """The posterior of every query, in order.

    Where the kept neighbours carry all the mass, but for `missed`, they are all that is used, with log-weights
    computed anew from differences; elsewhere the covariance is formed of all points, or of a weighted sample of
    them if there are more than DENSE dimensions.
    """
    spread = np.flatnonzero(statistics.captured < 1 - missed)
    dense = points.shape[1] <= DENSE
    sampled = {} if dense else _samples(x, points, statistics.sigma, spread)
    pending = iter(_covariances(x, points, statistics, spread)) if dense else iter(())
    for row, query in enumerate(x):
        apart, offset, log_weights = _neighbours(query, points, statistics.index[row], statistics.sigma)
        if statistics.captured[row] >= 1 - missed:
            yield Local(np.exp(log_weights) @ apart - offset, apart, log_weights)
        elif dense:
            yield Local(statistics.mean[row] - query, apart, log_weights, next(pending))
        else:
            index, log_weights = sampled[row]
            apart = differences(points, index)[1]
            yield Local(statistics.mean[row] - query, apart, log_weights, at_rest=ROUGH)


def frame(x: Array, points: Array, sigma: float, count: int, keep: int = KEEP) -> Frame:
    """The `count` most uncertain directions of x0 at every x: the tangent frame of a ridge, and beyond it.

    Args:
        x: (B, d) queries, variance-exploding coordinates; numpy or torch.
        points: (N, d) training points.
        sigma: noise level, > 0.
        count: directions wanted, 1 … min(d, N - 1).
        keep: neighbours that are looked at where they carry all the mass.

    Raises:
        UsageError: impossible input, with the reason.
    """
    known = check_points(points)
    count = check_dim(count - 1, known) + 1 if count > 1 else check_dim(0, known) + 1
    queries = check_query(x, known, sigma)
    found = [
        local.directions(count) for local in local_pictures(queries, known, stream(queries, known, sigma, keep))
    ]
    return Frame(
        np.array([basis for basis, _ in found]).reshape(len(queries), count, known.shape[1]),
        np.array([log_mu for _, log_mu in found]).reshape(len(queries), count),
    )


def project(
    x: Array,
    points: Array,
    sigma: float,
    dim: int,
    newton: bool = False,
    tolerance: float = 1e-12,
    steps: int = 200,
    keep: int = KEEP,
) -> Any:
    """Move points to the ridge of dimension `dim` of the smoothed training density.

    Subspace-constrained mean shift (Ozertem & Erdogmus 2011, JMLR 12:1249): x <- x + P_perp(x)(m(x) - x) until
    every step is shorter than `tolerance` (1 + ‖x‖). It converges linearly, at the rate mu_{dim+1} / sigma²;
    Newton's variant divides normal coordinates by 1 - mu_j / sigma², quadratically near the ridge, and falls
    back to the plain step wherever that is not safely positive. dim = 0 leads to the modes.

    Args:
        x: (B, d) starting points, variance-exploding coordinates; numpy or torch.
        points: (N, d) training points.
        sigma: noise level, > 0.
        dim: dimension of the ridge, 0 … min(d - 1, N - 1).
        steps: at most so many; the ridge is approached no further then.
        keep: neighbours that are looked at where they carry all the mass.

    Returns:
        (B, d) of the kind and dtype of `x`; float64 to reach the tolerance.

    Raises:
        UsageError: impossible input, with the reason.
    """
    known = check_points(points)
    dim = check_dim(dim, known)
    moved = check_query(x, known, sigma).copy()
    active = np.arange(len(moved))
    for _ in range(steps):
        if not len(active):
            break
        queries = moved[active]
        taken = np.array(
            [
                _step(local, dim, sigma, newton)
                for local in local_pictures(queries, known, stream(queries, known, sigma, keep))
            ]
        )
        moved[active] += taken
        size = np.linalg.norm(taken, axis=1)
        active = active[size > tolerance * (1 + np.linalg.norm(moved[active], axis=1))]
    return like(moved, x)


def _step(local: Local, dim: int, sigma: float, newton: bool) -> Floats:
    basis, log_mu = local.directions(dim + 1)
    return local.step_to_ridge(basis[:dim], sigma, newton and is_safe(log_mu[dim], sigma))


def is_safe(log_mu: float, sigma: float) -> bool:
    """Whether 1 - mu / sigma² is large enough for Newton's step, given the first normal eigenvalue."""
    return bool(log_mu < math.log1p(-SAFE) + 2 * math.log(sigma))


def normal_distance(
    x: Array, points: Array, sigma: float, dim: int, newton: bool = False, keep: int = KEEP
) -> Floats:
    """One-shot distance (B,) of every x from the ridge of dimension `dim`, without iterating.

    The residual distance ‖P_perp(m - x)‖ is a lower bound of Newton's ‖(I - C / h)^{-1} P_perp(m - x)‖, which is
    right to second order; where mu_{dim+1} is not safely below sigma² that is NaN: there is no ridge near by.
    Over sqrt((d - dim)) sigma, the residual distance of a point that is only noise away from the ridge is 1.

    Args and errors as for `project`.
    """
    known = check_points(points)
    dim = check_dim(dim, known)
    queries = check_query(x, known, sigma)
    found = []
    for local in local_pictures(queries, known, stream(queries, known, sigma, keep)):
        basis, log_mu = local.directions(dim + 1)
        if newton and not is_safe(log_mu[dim], sigma):
            found.append(np.nan)
        else:
            found.append(float(np.linalg.norm(local.step_to_ridge(basis[:dim], sigma, newton))))
    return np.array(found)


# --------------------------------------------------------------------------------- covariances


def _neighbours(
    query: Floats, points: NDArray[Any], index: NDArray[np.int64], sigma: float
) -> tuple[Floats, Floats, Floats]:
    """Differences (K, d) from the nearest point, x - y_0 (d,), and normalised log-weights (K,)."""
    nearest, apart = differences(points, index)
    offset = query - nearest
    log_weights = exact_log_weights(offset, apart, sigma)
    return apart, offset, log_weights - np.logaddexp.reduce(log_weights)


def _covariances(
    x: Floats, points: NDArray[Any], statistics: LocalStatistics, rows: Sequence[int] | NDArray[Any]
) -> Floats:
    """Posterior covariances (len(rows), d, d) from all points.

    Second moments of all queries come from one matrix product with the N x d (d + 1) / 2 products of coordinates,
    a block of points at a time.
    """
    width = points.shape[1]
    if not len(rows):
        return np.zeros((0, width, width))
    i, j = np.triu_indices(width)
    queries, centre = x[rows], points.mean(axis=0, dtype=np.float64)
    queries, mean = queries - centre, statistics.mean[rows] - centre
    highest = statistics.log_weights[rows, 0]  # of the nearest point, whose kernel is the reference
    nearest = points[statistics.index[rows, 0]].astype(np.float64) - centre
    reference = ((queries - nearest / 2) * nearest).sum(axis=1) / statistics.sigma**2
    moments = np.zeros((len(queries), len(i)))
    for _, block in blocks(points, centre, max(len(queries), len(i))):
        weights = log_kernel(queries, block, statistics.sigma)
        np.exp(weights + (highest - reference)[:, None], out=weights)
        columns = np.ascontiguousarray(block.T)  # rows are gathered fifteen times faster than columns
        moments += weights @ (columns[i] * columns[j]).T
    covariances = np.zeros((len(queries), width, width))
    covariances[:, i, j] = moments - mean[:, i] * mean[:, j]
    covariances[:, j, i] = covariances[:, i, j]
    return covariances


def _samples(
    x: Floats, points: NDArray[Any], sigma: float, rows: NDArray[Any]
) -> dict[int, tuple[NDArray[np.int64], Floats]]:
    """SAMPLE points for every one of `rows`, the nearest first, with log-weights.

    Priority sampling (Duffield, Lund & Thorup 2007, J. ACM 54:32): the points of highest w / u, u uniform, with
    weights max(w, threshold), estimate every sum over points without bias, and points that weigh more than
    the threshold keep their own weight. The same u serves every query.
    """
    if not len(rows):
        return {}
    centre = points.mean(axis=0, dtype=np.float64)
    log_u = np.log(np.random.default_rng(0).random(len(points)))
    size = min(SAMPLE, len(points) - 1)
    best = np.full((len(rows), size + 1), -np.inf)
    index = np.zeros((len(rows), size + 1), dtype=np.int64)
    queries = x[rows] - centre
    for start, block in blocks(points, centre, len(rows)):
        priority = log_kernel(queries, block, sigma) - log_u[start : start + len(block)]
        values = np.concatenate([best, priority], axis=1)
        numbers = np.concatenate(
            [index, np.broadcast_to(np.arange(start, start + len(block)), priority.shape)], axis=1
        )
        kept = np.argpartition(values, -size - 1, axis=1)[:, -size - 1 :]
        best, index = np.take_along_axis(values, kept, 1), np.take_along_axis(numbers, kept, 1)
    found = {}
    for row, priority, numbers in zip(rows.tolist(), best, index, strict=True):
        order = np.argsort(priority)
        threshold, chosen = priority[order[0]], order[1:]
        log_weights = np.maximum(priority[chosen] + log_u[numbers[chosen]], threshold)
        heaviest = np.argsort(-log_weights, kind="stable")
        log_weights = log_weights[heaviest]
        found[row] = numbers[chosen][heaviest], log_weights - np.logaddexp.reduce(log_weights)
    return found
