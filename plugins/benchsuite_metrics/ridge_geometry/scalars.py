"""Numbers that summarise a set of paths, with bootstrap intervals over paths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchsuite import Curve
from benchsuite_metrics.ridge_geometry.influence import Mask
from benchsuite_metrics.ridge_geometry.local import local_pictures
from benchsuite_metrics.ridge_geometry.paths import PathGeometry
from benchsuite_metrics.ridge_geometry.points import Floats
from benchsuite_metrics.ridge_geometry.responsibilities import stream

REPLICATES = 1000
#: rho_perp below which the ridge counts as reached
REACHED = 1.5
#: a normal error smaller than this fraction of the noise floor is no regressor
LEAST_ERROR = 1e-3
#: below so many effective points the posterior is about single points, not about a population
FEW = 2.0

#: JSON-able: {"value", "low", "high"}, or None
Number = Mapping[str, float] | None


def weights(paths: int, seed: int) -> Floats:
    """Bootstrap weights (R, P) that sum to 1 per row."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(paths, np.full(paths, 1 / paths), size=REPLICATES) / paths


def fraction(members: Mask, resampled: Floats) -> Number:
    """Share of the paths that are `members`, (P,)."""
    return _number(float(members.mean()), (resampled @ members).clip(0.0, 1.0))


def at_end(curve: Curve, resampled: Floats) -> Number:
    """The value of a curve over paths at its cleanest level."""
    last = np.asarray(curve.per_item, dtype=np.float64)[:, -1]
    return _number(float(last.mean()), resampled @ last)


def alignment(geometry: PathGeometry, which: int, level: int, resampled: Floats) -> dict[str, Any]:
    """Normal offset against normal error at one level: slope and correlation through the origin, all coordinates.

    The theory of small errors says that the late normal error of the denoiser *is* the offset: slope 1.

    Args:
        which: index of the ridge dimension; paths whose frame is unresolved there are left out.
    """
    use = geometry.resolved(geometry.dims[which])[:, level]
    product, error, offset = (
        np.where(use, part[which, :, level], 0.0) for part in (geometry.product, geometry.normal, geometry.offset)
    )
    normal = geometry.width - geometry.dims[which]
    floor = use.mean() * normal * geometry.sigma[level] ** 2
    if not error.mean() > LEAST_ERROR**2 * floor:
        return {"slope": None, "correlation": None}  # an exact denoiser, or no resolved frame
    sums = [resampled @ part for part in (product, error, offset)]
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes, cosines = sums[0] / sums[1], sums[0] / np.sqrt(sums[1] * sums[2])
    both = float(error.mean() * offset.mean())
    return {
        "slope": _number(float(product.mean() / error.mean()), slopes),
        "correlation": _number(float(product.mean() / np.sqrt(both)), cosines) if both > 0 else None,
    }


def speciation(points: NDArray[Any], log_snr: Floats, keep: int) -> float | None:
    """The lowest log_snr at which mu_1 / h at the centre of the training points (N, d) rises through 1.

    The smoothed density stops being concave there: two groups of points part. For N(±R e_1, s² I) that is
    h = R² - s². Interpolated in logarithms; None if it happens at none of the levels.
    """
    centre = points.mean(axis=0, dtype=np.float64)[None]
    softness = []
    for level in log_snr:
        sigma = float(np.exp(-level / 2))
        (local,) = local_pictures(centre, points, stream(centre, points, sigma, keep))
        softness.append(float(local.directions(1)[1][0]) + level)
    rising = [i for i in range(len(softness) - 1) if softness[i] < 0 <= softness[i + 1]]
    if not rising:
        return None
    low, high = softness[rising[0]], softness[rising[0] + 1]
    start, stop = float(log_snr[rising[0]]), float(log_snr[rising[0] + 1])
    return float(start - low / (high - low) * (stop - start))


def reach(rho: Floats, log_snr: Floats) -> dict[str, float | None]:
    """Where the normal distance `rho` (T,) first comes below REACHED, and where it leaves again, if it does."""
    inside = rho < REACHED
    if not inside.any():
        return {"reach_log_snr": None, "leave_log_snr": None}
    first = int(inside.argmax())
    out = np.flatnonzero(~inside[first:])
    return {
        "reach_log_snr": float(log_snr[first]),
        "leave_log_snr": float(log_snr[first + out[0]]) if len(out) else None,
    }


def choose_dim(geometry: PathGeometry) -> int:
    """Index of the dimension with the widest gap ln mu_d / mu_{d+1}, given mu_{d+1} < h.

    Averaged over the levels at which the posterior is about many points, if there are any; later the points
    nearest to a state decide and every gap is wide.
    """
    many = np.median(geometry.k_eff, axis=0) >= 5
    levels = many if many.any() else np.median(geometry.k_eff, axis=0) >= 1.05
    levels = levels if levels.any() else np.ones_like(many)
    scores = []
    for dim in geometry.dims:
        gap = np.minimum(geometry.gap(dim)[:, levels], np.log(1e3))
        concave = geometry.log_mu[:, levels, dim] < 0
        scores.append(float(np.where(concave, np.maximum(gap, 0.0), 0.0).mean()))
    return int(np.argmax(scores))


def late_level(geometry: PathGeometry) -> int | None:
    """The first level at which most paths have fewer than FEW effective points; None if there is none."""
    few = np.flatnonzero(np.median(geometry.k_eff, axis=0) < FEW)
    return int(few[0]) if len(few) else None


def _number(value: float, replicates: Floats) -> dict[str, float]:
    finite = replicates[np.isfinite(replicates)]
    low, high = np.quantile(finite, [0.025, 0.975]) if len(finite) else (value, value)
    return {"value": value, "low": min(float(low), value), "high": max(float(high), value)}
