"""What is measured along the paths of a model: the local picture at every state, level by level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchsuite_metrics.ridge_geometry.local import Local, is_safe, local_pictures
from benchsuite_metrics.ridge_geometry.points import Floats
from benchsuite_metrics.ridge_geometry.responsibilities import stream

#: eigenvalues must exceed the next by this factor for a frame to be called resolved
RESOLVED = 1.2
#: posterior mass that the kept neighbours may miss: far below the sampling error of any mean over paths
MISSED = 1e-6


@dataclass(frozen=True)
class PathGeometry:
    """Geometry of P paths at T levels for D ridge dimensions; lengths in the model's space, h = sigma²."""

    dims: tuple[int, ...]
    width: int  #: d, dimensions of the space
    sigma: Floats  #: (T,)
    k_eff: Floats  #: (P, T)
    captured: Floats  #: (P, T) mass of the kept neighbours
    dimension: Floats  #: (P, T) tr C / h: MMSE dimension of the training set along the paths
    log_mu: Floats  #: (P, T, k) ln mu_j / h, k one more than the largest dimension
    offset: Floats  #: (D, P, T) ‖P_perp(x - m)‖², squared residual distance
    newton: Floats  #: (D, P, T) squared Newton distance, NaN where mu_{dim+1} is not safely below h
    normal: Floats  #: (D, P, T) ‖P_perp eps‖², eps = D(x) - m the error of the denoiser
    tangent: Floats  #: (D, P, T) ‖P_par eps‖²
    product: Floats  #: (D, P, T) P_perp(x - m) · P_perp eps
    slide: Floats  #: (D, P, T) |P_par dx|² / |dx|² per share of directions, dx the way to the next level

    def gap(self, dim: int) -> Floats:
        """ln mu_dim / mu_{dim+1}, (P, T); -inf where there is no mu_dim."""
        above, below = self.log_mu[..., dim - 1], self.log_mu[..., dim]
        with np.errstate(invalid="ignore"):
            return np.where(np.isfinite(above), above - below, -np.inf)

    def resolved(self, dim: int) -> NDArray[np.bool_]:
        """(P, T) whether the frame of `dim` directions is determined by the data."""
        found: NDArray[np.bool_] = self.gap(dim) >= np.log(RESOLVED)
        return found


def along_paths(
    x: NDArray[Any],
    denoised: NDArray[Any],
    final: NDArray[Any],
    sigma: Floats,
    points: NDArray[Any],
    dims: Sequence[int],
    keep: int,
) -> PathGeometry:
    """Measure every state.

    Args:
        x, denoised: (P, T, d) states and D(x), in the order of the levels.
        final: (P, d) where the paths end.
        sigma: (T,) descending.
        points: (N, d) training points.
        dims: ridge dimensions, below d and N.
        keep: neighbours that are looked at where they carry all the mass.
    """
    columns = []
    for t, level in enumerate(sigma):
        states = x[:, t].astype(np.float64)
        following = (x[:, t + 1] if t + 1 < len(sigma) else final).astype(np.float64)
        errors, ways = denoised[:, t].astype(np.float64), following - states
        statistics = stream(states, points, float(level), keep)
        pictures = local_pictures(states, points, statistics, MISSED)
        rows = [
            _state(local, state, error, way, dims, float(level))
            for local, state, error, way in zip(pictures, states, errors, ways, strict=True)
        ]
        found = {name: np.array([row[name] for row in rows]) for name in rows[0]}
        columns.append(found | {"k_eff": statistics.k_eff, "captured": statistics.captured})
    stacked = {name: np.stack([column[name] for column in columns], axis=1) for name in columns[0]}
    by_dim = {name: np.moveaxis(stacked.pop(name), 2, 0) for name in _BY_DIM}
    return PathGeometry(tuple(dims), x.shape[2], np.asarray(sigma), **stacked, **by_dim)


_BY_DIM = ("offset", "newton", "normal", "tangent", "product", "slide")


def _state(
    local: Local, x: Floats, denoised: Floats, way: Floats, dims: Sequence[int], sigma: float
) -> dict[str, Any]:
    """One state: numbers, (k,) eigenvalues, and one number per dimension."""
    basis, log_mu = local.directions(max(dims) + 1)
    error = denoised - x - local.shift
    found: dict[str, Any] = {"dimension": local.trace() / sigma**2, "log_mu": log_mu - 2 * np.log(sigma)}
    parts: dict[str, list[float]] = {name: [] for name in _BY_DIM}
    travelled = float(way @ way) or np.nan
    for dim in dims:
        tangent = basis[:dim]
        off = -local.step_to_ridge(tangent, sigma, newton=False)
        along = tangent @ error
        across = error - tangent.T @ along
        safe = is_safe(log_mu[dim], sigma)
        step = local.step_to_ridge(tangent, sigma, newton=True) if safe else np.full_like(off, np.nan)
        parts["offset"].append(float(off @ off))
        parts["newton"].append(float(step @ step))
        parts["normal"].append(float(across @ across))
        parts["tangent"].append(float(along @ along))
        parts["product"].append(float(off @ across))
        parts["slide"].append(float(np.square(tangent @ way).sum()) / travelled / (dim / len(x)))
    return found | parts
