"""The ridge-geometry metric: reach, align, slide along the paths of a model (paper C)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from benchsuite import (
    BenchsuiteError,
    Curve,
    Metric,
    NotApplicableError,
    Population,
    Record,
    Trajectory,
    UsageError,
)
from benchsuite_metrics.ridge_geometry import scalars
from benchsuite_metrics.ridge_geometry.drawing import drawings
from benchsuite_metrics.ridge_geometry.endpoints import distinct_points, is_between, is_memorised, nearest_two
from benchsuite_metrics.ridge_geometry.influence import (
    Mask,
    difference_of_means,
    mean_over,
    ratio_of_means,
    root_mean_square,
)
from benchsuite_metrics.ridge_geometry.paths import PathGeometry, along_paths
from benchsuite_metrics.ridge_geometry.points import Floats
from benchsuite_metrics.ridge_geometry.responsibilities import KEEP

#: ridge dimensions unless others are asked for
DIMS = "1,2,4,8"
#: heading of a column in reports -> fact that it shows
COLUMNS = {
    "offset per normal error": "slope",
    "correlation": "correlation",
    "E∥ / E⊥, late": "late_error_ratio",
    "memorised": "memorised",
    "between modes": "inter_mode",
    "ridge left at log-SNR": "leave_log_snr",
    "speciation at log-SNR": "speciation_log_snr",
}
#: share of sample coordinates outside the range of the training set, widened by a quarter, that is flagged
ASTRAY = 0.05


class RidgeGeometry(Metric):
    """rho_perp, the distance of a model's states from the ridge of its training data over that of pure noise.

    He, Qiu & Tao (arXiv:2602.06021): samples reach the ridge of the smoothed empirical density, align with it
    as far as the normal error of the denoiser lets them, and slide along it as its tangential error lets them.
    With m the posterior mean and C the posterior covariance of the training points at a state x (noise variance
    h), the ridge of dimension d* has the d* leading eigenvectors of C as tangents, and

        rho_perp = rms ‖P_perp (m - x)‖ / sqrt((d - d*) h),   1 = the noise floor.

    The published curve is that of one d*: `dim`, or the one of `dims` with the widest gap mu_d* / mu_{d*+1} while
    the posterior is about many points and mu_{d*+1} < h. Variants for every dimension, as in ``rho d=2``:

    * ``rho``, and ``newton``, the same with Newton's distance, which is right to second order;
    * ``normal error`` and ``tangent error`` of the denoiser, rms per dimension in units of the space, and ``error
      ratio``, their mean squares' tangent over normal;
    * ``slope``, the normal offset x - m per unit of normal error: 1 where the late error is all there is;
    * ``slide``, the share of the motion that is along the ridge, over the share of directions that are;
    * ``resolved`` and ``concave``, the shares of states whose frame is determined, and with mu_{d*+1} < h.

    Others: ``k_eff``; ``captured``, the mass of the neighbours looked at; ``mu j``, mu_j / h; ``dimension``,
    tr C / h on the paths; ``mmse dimension``, E‖eps - eps_hat‖², of held-out and of training items, and their gap.

    States whose frame is unresolved (mu_d* < 1.2 mu_{d*+1}) are left out of what depends on it; levels with
    none are left out of the curve. The number of such states is in the row.

    Args:
        dims: ridge dimensions, separated by commas.
        dim: the published one; None chooses.
        radius: a sample farther than this from every training point is between modes. In more than three
            coordinates, or without it: a sample that is not three times nearer to one training point than to
            the next.
        keep: training points looked at per state where they carry all the posterior mass.

    Raises:
        UsageError: dimensions that are not positive integers, or other impossible options.
    """

    name = "ridge-geometry"
    version = "1"
    paper = "arXiv:2602.06021"
    unit = "noise floor"
    bounds: ClassVar[tuple[float, float]] = (0.0, float("inf"))
    needs = (Trajectory(errors=True), Population())
    onset = False
    per_factor = False
    tolerance = 0.05

    def __init__(
        self, dims: str = DIMS, dim: int | None = None, radius: float | None = None, keep: int = KEEP
    ) -> None:
        try:
            wanted = {int(part) for part in str(dims).split(",")} | ({dim} if dim is not None else set())
        except ValueError:
            raise UsageError(f"dims takes integers separated by commas, got {dims!r}") from None
        if min(wanted) < 1:
            raise UsageError(f"ridge dimensions start at 1, got {min(wanted)}")
        if radius is not None and not radius > 0:
            raise UsageError(f"radius must be positive, got {radius}")
        if keep < 2:
            raise UsageError(f"keep must be at least 2, got {keep}")
        self.dims, self.dim, self.radius, self.keep = dims, dim, radius, keep
        self._wanted = tuple(sorted(wanted))

    def compute(self, records: Mapping[str, Record]) -> list[Curve]:
        """The published curve, which also carries the scalars, and its variants."""
        record = records["trajectory"]
        points, flags = _training_points(records["population"], record)
        dims, left_out = self._possible(points)
        flags += left_out
        log_snr = np.asarray(record["log_snr"], dtype=np.float64)
        flat = {name: _flat(record[name], 2) for name in ("x", "denoised")}
        final = _flat(record["final"], 1).astype(np.float64)
        sigma = np.exp(-log_snr / 2)
        geometry = along_paths(flat["x"], flat["denoised"], final, sigma, points, dims, self.keep)
        chosen = scalars.choose_dim(geometry) if self.dim is None else dims.index(self.dim)
        flags += _strangers(final, points)
        builder = _Builder(tuple(map(str, record["items"])), log_snr)
        curves = list(_per_dimension(builder, geometry))
        published = next((c for c in curves if c.variant == f"rho d={dims[chosen]}"), None)
        if published is None:
            raise NotApplicableError(
                f"the frame of a ridge of dimension {dims[chosen]} is resolved at fewer than two levels: "
                "the training set has no such direction"
            )
        extra = self._scalars(record, geometry, chosen, published, points, final)
        extra |= drawings(flat["x"], log_snr, points, curves, dims[chosen])
        first = builder.published(published, flags, extra)
        return [first, *curves, *_of_states(builder, geometry), *_denoising(builder, record)]

    def _possible(self, points: NDArray[Any]) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """The dimensions that these points can have, and a note on the others."""
        width = points.shape[1]
        most = min(width - 1, distinct_points(points) - 1)
        reason = f"{len(points)} training points in {width} dimensions have ridges of dimension 1 to {most} only"
        if self.dim is not None and self.dim > most:
            raise NotApplicableError(f"no ridge of dimension {self.dim}: {reason}")
        dims = tuple(dim for dim in self._wanted if dim <= most)
        if not dims:
            raise NotApplicableError(f"no ridge of dimension {', '.join(map(str, self._wanted))}: {reason}")
        others = [str(dim) for dim in self._wanted if dim > most and self.dims != DIMS]  # of those asked for
        return dims, ((f"dimensions {', '.join(others)} left out: {reason}",) if others else ())

    def _scalars(
        self,
        record: Record,
        geometry: PathGeometry,
        chosen: int,
        published: Curve,
        points: NDArray[Any],
        final: Floats,
    ) -> dict[str, Any]:
        log_snr, dim = np.asarray(record["log_snr"]), geometry.dims[chosen]
        resampled = scalars.weights(len(final), int(record.meta["seed"]))
        resolved = geometry.resolved(dim)
        usable = np.flatnonzero(resolved.mean(axis=0) >= 0.1)
        level = int(usable[-1]) if len(usable) else len(log_snr) - 1
        late = scalars.late_level(geometry)
        first, second = nearest_two(final, points)
        facts = {
            "dim": dim,
            "dims": list(geometry.dims),
            "dim_chosen": self.dim is None,
            "training_points": len(points),
            "unresolved_states": int((~resolved).sum()),
            "states": int(resolved.size),
            "sampler": record.meta["method"],
            "log_snr_per_step": record.meta["spacing"],
            "slope_log_snr": float(log_snr[level]),
            **scalars.alignment(geometry, chosen, level, resampled),
            **scalars.reach(published.per_item.mean(axis=0), np.asarray(published.log_snr)),
            "speciation_log_snr": scalars.speciation(points, log_snr, self.keep),
            "late_log_snr": None if late is None else float(log_snr[late]),
            "late_error_ratio": None if late is None else _late_ratio(geometry, chosen, late),
            "memorised": scalars.fraction(is_memorised(first, second), resampled),
            "inter_mode": scalars.fraction(is_between(first, second, self.radius, points.shape[1]), resampled),
        }
        columns = {title: facts[name] for title, name in COLUMNS.items()}
        return facts | {"columns": {"d*": dim, "ρ⊥ at the end": scalars.at_end(published, resampled), **columns}}


class _Builder:
    """Makes curves over the paths and levels of one record."""

    def __init__(self, items: tuple[str, ...], log_snr: Floats) -> None:
        self.items, self.log_snr = items, log_snr

    def curve(
        self, variant: str, values: Floats, unit: str, ceiling: float = 1.0, items: tuple[str, ...] | None = None
    ) -> list[Curve]:
        """One curve, without the levels at which it has no value; none if fewer than two are left."""
        kept = np.isfinite(values).all(axis=0)
        if kept.sum() < 2:
            return []
        return [
            Curve(
                factor="",
                log_snr=self.log_snr[kept],
                per_item=values[:, kept],
                items=self.items if items is None else items,
                unit=unit,
                ceiling=ceiling,
                variant=variant,
            )
        ]

    def published(self, curve: Curve, flags: tuple[str, ...], extra: Mapping[str, Any]) -> Curve:
        """`curve` as the metric's own."""
        return Curve(
            factor="",
            log_snr=curve.log_snr,
            per_item=curve.per_item,
            items=self.items,
            unit=RidgeGeometry.unit,
            flags=flags,
            extra=extra,
        )


def _per_dimension(builder: _Builder, geometry: PathGeometry) -> Iterator[Curve]:
    for which, dim in enumerate(geometry.dims):
        resolved = geometry.resolved(dim)
        floor = np.sqrt((geometry.width - dim) * geometry.sigma**2)
        normal = geometry.normal[which] / (geometry.width - dim)
        tangent = geometry.tangent[which] / dim
        newton = geometry.newton[which]
        safe = resolved & np.isfinite(newton)
        erring = resolved & _is_error(normal, resolved, geometry.sigma)
        concave = (geometry.log_mu[..., dim] < 0).astype(np.float64)
        every = np.ones_like(resolved)
        for name, values, unit in (
            ("rho", root_mean_square(geometry.offset[which], resolved) / floor, RidgeGeometry.unit),
            ("newton", root_mean_square(np.nan_to_num(newton), safe) / floor, RidgeGeometry.unit),
            ("normal error", root_mean_square(normal, resolved), "rms per dimension"),
            ("tangent error", root_mean_square(tangent, resolved), "rms per dimension"),
            ("error ratio", _ratio(tangent, normal, erring), "ratio"),
            ("slope", _ratio(geometry.product[which], geometry.normal[which], erring), "ratio"),
            ("slide", mean_over(np.nan_to_num(geometry.slide[which]), resolved), "ratio"),
            ("resolved", mean_over(resolved.astype(np.float64), every), "fraction"),
            ("concave", mean_over(concave, every), "fraction"),
        ):
            yield from builder.curve(f"{name} d={dim}", values, unit)


def _of_states(builder: _Builder, geometry: PathGeometry) -> Iterator[Curve]:
    yield from builder.curve("k_eff", geometry.k_eff, "points", float(geometry.k_eff.mean(axis=0).max()))
    yield from builder.curve("captured", geometry.captured, "fraction")
    yield from builder.curve("dimension", geometry.dimension, "dimensions", float(geometry.width))
    for j in range(geometry.log_mu.shape[2]):
        yield from builder.curve(f"mu {j + 1}", np.exp(geometry.log_mu[..., j]), "h")


def _denoising(builder: _Builder, record: Record) -> Iterator[Curve]:
    """MMSE dimension on evaluated and on training items, and what the model loses from one to the other."""
    if "mse/train" not in record.arrays:
        return
    items = {role: tuple(map(str, record[f"items/{role}"])) for role in ("test", "train")}
    errors = {role: record[f"mse/{role}"].astype(np.float64) for role in ("test", "train")}
    ceiling = float(np.prod(record["x"].shape[2:]))
    for role, name in (("test", "mmse dimension"), ("train", "mmse dimension train")):
        yield from builder.curve(name, errors[role], "dimensions", ceiling, items[role])
    if not set(items["test"]) & set(items["train"]):  # an oracle's own population has nothing held out
        gap = difference_of_means(errors["test"], errors["train"])
        yield from builder.curve("train-test gap", gap, "dimensions", ceiling, items["test"] + items["train"])


def _is_error(normal: Floats, mask: Mask, sigma: Floats) -> Mask:
    """(T,) whether the mean normal error is more than rounding: an exact denoiser has no ratio of errors."""
    members = mask.sum(axis=0)
    mean = np.where(mask, normal, 0.0).sum(axis=0) / np.maximum(members, 1)
    found: Mask = mean > (scalars.LEAST_ERROR * sigma) ** 2
    return found


def _ratio(top: Floats, bottom: Floats, mask: Mask) -> Floats:
    return ratio_of_means(np.where(mask, top, 0.0), np.where(mask, bottom, 0.0))


def _late_ratio(geometry: PathGeometry, which: int, level: int) -> float | None:
    """Tangent over normal mean-square error per dimension at one level."""
    dim = geometry.dims[which]
    use = geometry.resolved(dim)[:, level : level + 1]
    normal = geometry.normal[which, :, level : level + 1] / (geometry.width - dim)
    if not _is_error(normal, use, geometry.sigma[level : level + 1])[0]:
        return None
    tangent = geometry.tangent[which, :, level : level + 1] / dim
    return float(tangent[use].mean() / normal[use].mean())


def _training_points(population: Record, record: Record) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Training points (N, d), checked against the paths, and flags about them."""
    shape, x = record["x"].shape[2:], population["x"]
    if x.shape[1:] != shape:
        raise BenchsuiteError(f"training points have the shape {x.shape[1:]}, the model's space {shape}")
    points = _flat(x, 1)
    if not np.isfinite(points).all():
        raise BenchsuiteError("training points hold values that are not finite")
    different = distinct_points(points)
    if different < 2:
        raise NotApplicableError(
            f"a ridge needs at least 2 different training points, there is {different} among {len(points)}"
        )
    copies = len(points) - different
    said = f"{copies} of {len(points)} training points are copies of others and count as often as they occur"
    return points, (said,) if copies else ()


def _strangers(final: Floats, points: NDArray[Any]) -> tuple[str, ...]:
    """A flag if the samples do not lie where the training set does, as in another value range."""
    low, high = float(points.min()), float(points.max())
    margin = (high - low) / 4
    outside = float(((final < low - margin) | (final > high + margin)).mean())
    if outside <= ASTRAY:
        return ()
    return (
        f"{outside:.0%} of the samples' values lie far outside the training points' {low:.3g} to {high:.3g}: "
        "a poor model, or a training set in another value range",
    )


def _flat(values: NDArray[Any], axes: int) -> NDArray[Any]:
    """(…, *shape) => (…, d), keeping the first `axes` axes."""
    return values.reshape(*values.shape[:axes], -1)
