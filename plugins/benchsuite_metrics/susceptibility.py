"""Susceptibility: how many positions of an item change together in a U-turn.

Sclocchi, Favero, Levi & Wyart (arXiv:2410.13770). Let s_i say how much position i of one item changed in one of
its U-turns (0 or 1 for a token). With averages over U-turns of the same item,

    C_ij = <s_i s_j> - <s_i><s_j>,        chi = Σ_ij C_ij / Σ_i C_ii,

numerator and denominator averaged over items. The sum runs over all ordered pairs: 1 if positions change
independently, b if they change in rigid blocks of b, P if all P change as one. (The published script sums i <= j
only, which gives (chi + 1) / 2.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from benchsuite import Curve, Metric, NotApplicableError, Record, UsageError, UTurn
from benchsuite.contracts import FloatArray
from benchsuite.statistics import cluster_means

#: items whose changes are held as float64 at a time: P may be an image's number of pixels
BLOCK = 64
#: C(r) is tabulated at every distance if there are at most so many, else in bins of width 1
DISTANCES = 32
#: a maximum counts as a peak if it exceeds both ends of the curve by this many standard errors
PEAK_SIGMAS = 4.0
#: how the flag of a curve with a peak begins
PEAK_FLAG = "a peak is no proof of hierarchy"


class Susceptibility(Metric):
    """chi, the number of positions that change together in a U-turn, against the level of the turn.

    1 = independent changes; P = all positions at once. It needs at least two *independent* U-turns per item and
    profits from many (``u_turn.draws=16``, ``u_turn.antithetic=false``); of antithetic draws it uses every other
    one. Where no position of any item changes it is undefined. Positions are those of the readout: tokens,
    patch embeddings, the sites of a field.

    A maximum of chi inside the noise axis means that changes are correlated over long distances at one level,
    as hierarchical data at the transition of their class predict. It proves no hierarchy: a mixture of unrelated
    templates peaks, too, where it loses its template. What tells them apart is the fall of C with distance (a
    power law for a hierarchy, none for templates), which is in ``extra`` for every level; a curve with a peak
    carries a flag that says so. A Gaussian field has no peak: its chi grows with the noise to the end.

    Variant ``correlation-length``: Σ_ij r_ij C_ij / Σ_ij C_ij, the mean distance over which changes are
    correlated (0 = independent), if the positions have a geometry.

    chi is a ratio of two averages over items, so that an item's value is its linearised share,
    chi + (a - chi b) / mean(b) for a = Σ_ij C_ij and b = Σ_i C_ii of the item: their mean is chi and their
    spread gives its standard error to first order in 1 / items (delta method), and so do bootstraps over them.
    """

    name = "susceptibility"
    version = "1"
    paper = "arXiv:2410.13770"
    unit = "positions"
    bounds: ClassVar[tuple[float, float]] = (0.0, float("inf"))
    needs = (UTurn(positions=True),)
    onset = False
    per_factor = False
    tolerance = 0.1

    def compute(self, records: Mapping[str, Record]) -> list[Curve]:
        """chi and, if the positions have a geometry, the correlation length."""
        record = records["u_turn"]
        if "changed" not in record.arrays:
            raise NotApplicableError("the data set's readout has no positions whose changes could be correlated")
        changed, items = independent_draws(record)
        n, levels, _, positions = changed.shape
        distances = record.arrays.get("position_distances")
        chi, length = np.empty((2, n, levels))
        table: dict[str, Any] = {}
        for level in range(levels):
            chi[:, level] = susceptibility(changed[:, level])
            if distances is not None:
                length[:, level] = correlation_length(changed[:, level], distances)
                r, c = correlation_function(changed[:, level], distances)
                table.setdefault("distances", r.round(6).tolist())
                table.setdefault("correlation", []).append([_finite(v) for v in c])
        log_snr, peak = record["log_snr"], find_peak(chi, items, record["log_snr"])
        facts = {name: record.meta[name] for name in ("steps", "method", "spacing")}
        facts |= {"independent_draws": changed.shape[2], "positions": record.meta["positions"], "peak": peak}
        common: dict[str, Any] = {"factor": "", "log_snr": log_snr, "items": items}
        curves = [
            Curve(
                **common,
                per_item=chi,
                unit=self.unit,
                floor=1.0,
                ceiling=float(positions),
                flags=_flags(chi, log_snr, peak, geometry=distances is not None),
                extra=facts | table,
            )
        ]
        if distances is not None:
            curves.append(
                Curve(
                    **common,
                    per_item=length,
                    unit="distance",
                    ceiling=float(distances.mean()),
                    variant="correlation-length",
                )
            )
        return curves


# ---------------------------------------------------------------------------------------- estimators


def susceptibility(changed: NDArray[Any]) -> FloatArray:
    """chi at one level, as one value per item whose mean it is.

    Args:
        changed: (N, R, P), how much each of P positions changed in each of R >= 2 independent U-turns of each
            item; booleans or numbers.

    Returns:
        (N,) linearised values; NaN if nothing changed anywhere.

    Raises:
        UsageError: another shape, or R < 2.
    """
    together = np.concatenate([np.square(x.sum(axis=2)).sum(axis=1) for x in _deviations(changed)])
    alone = np.concatenate([np.square(x).sum(axis=(1, 2)) for x in _deviations(changed)])
    return ratio_of_means(together, alone)


def correlation_length(changed: NDArray[Any], distances: FloatArray) -> FloatArray:
    """Σ_ij r_ij C_ij / Σ_ij C_ij at one level, as one value per item whose mean it is.

    Args:
        changed: (N, R, P) as for `susceptibility`.
        distances: (P, P) r_ij, 0 on the diagonal.

    Returns:
        (N,) linearised values, in the unit of `distances`; 0 for independent positions, (b² - 1) / 3b for rigid
        blocks of b neighbours on a line; NaN if nothing changed.
    """
    r = np.asarray(distances, dtype=np.float64)
    weighted = np.concatenate([((x @ r) * x).sum(axis=(1, 2)) for x in _deviations(changed)])
    together = np.concatenate([np.square(x.sum(axis=2)).sum(axis=1) for x in _deviations(changed)])
    return ratio_of_means(weighted, together)


def correlation_function(changed: NDArray[Any], distances: FloatArray) -> tuple[FloatArray, FloatArray]:
    """C(r) / C(0) at one level: the mean C_ij over the ordered pairs at distance r, over the mean C_ii.

    Args:
        changed, distances: as for `correlation_length`.

    Returns:
        r (D,) ascending, > 0: every distance there is, or multiples of 1 for pairs that round to them if there
        are more than `DISTANCES`; and C(r) / C(0) (D,), NaN if nothing changed.
    """
    p = changed.shape[2]
    c = np.zeros((p, p))
    for x in _deviations(changed):
        flat = x.reshape(-1, p)
        c += flat.T @ flat
    off = ~np.eye(p, dtype=bool)
    r = np.asarray(distances, dtype=np.float64)[off].round(6)
    if len(np.unique(r)) > DISTANCES:
        r = np.maximum(r.round(), 1.0)
    found, place = np.unique(r, return_inverse=True)
    means = np.bincount(place, weights=c[off]) / np.bincount(place)
    own = np.diag(c).mean()
    return found, means / own if own > 0 else np.full(len(found), np.nan)


def ratio_of_means(a: FloatArray, b: FloatArray) -> FloatArray:
    """Linearised values (N,) of mean(a) / mean(b) from a, b (N,); NaN if mean(b) is 0."""
    below = b.mean()
    if not below > 0:
        return np.full(len(a), np.nan)
    ratio = a.mean() / below
    values: FloatArray = ratio + (a - ratio * b) / below
    return values


def _deviations(changed: NDArray[Any]) -> Iterator[FloatArray]:
    """s - <s>, block by block (n, R, P) float64; the factors R - 1 of the covariances cancel in every ratio."""
    if changed.ndim != 3 or changed.shape[1] < 2:
        raise UsageError(f"changes must be (items, U-turns >= 2, positions), got {changed.shape}")
    for start in range(0, len(changed), BLOCK):
        block = changed[start : start + BLOCK].astype(np.float64)
        yield block - block.mean(axis=1, keepdims=True)


# ------------------------------------------------------------------------------------ around a curve


def independent_draws(record: Record) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Changes (N, U, R, P) in the independent U-turns of a record, and the N items.

    Raises:
        NotApplicableError: there is only one per item; says what to set.
    """
    rows = record["changed"]  # (draws x items, U, P), draw by draw
    n = len(np.unique(record["items"]))
    draws = rows.reshape(len(rows) // n, n, *rows.shape[1:])
    if record.meta["antithetic"]:
        draws = draws[::2]
    if len(draws) < 2:
        raise NotApplicableError(
            f"susceptibility correlates independent U-turns of one item and found {len(draws)} of them; "
            "set u_turn.draws=16 and u_turn.antithetic=false"
        )
    return draws.transpose(1, 2, 0, 3), tuple(record["items"][:n])


def find_peak(per_item: FloatArray, items: tuple[str, ...], log_snr: FloatArray) -> dict[str, Any] | None:
    """The maximum of the mean curve of (N, T), if it lies inside the grid and stands out of both ends.

    Returns:
        log_snr (of the vertex of a parabola through the maximum and its neighbours), value and standard_error
        at the highest level; None if the curve has no such maximum, as that of a Gaussian field.
    """
    known = np.flatnonzero(np.isfinite(per_item).all(axis=0))
    if len(known) < 3:
        return None
    values = cluster_means(per_item[:, known], items)[0]
    mean = values.mean(axis=0)
    top = int(mean.argmax())
    if top in (0, len(known) - 1):
        return None

    def error(x: FloatArray) -> float:
        return float(x.std(ddof=1) / np.sqrt(len(x))) if len(x) > 1 else float("inf")

    for end in (0, -1):
        gap = values[:, top] - values[:, end]
        if not gap.mean() > PEAK_SIGMAS * error(gap):
            return None
    curvature, slope, _ = np.polyfit(log_snr[known[top - 1 : top + 2]], mean[top - 1 : top + 2], 2)
    vertex = -slope / (2 * curvature)
    return {"log_snr": float(vertex), "value": float(mean[top]), "standard_error": error(values[:, top])}


def _flags(
    per_item: FloatArray, log_snr: FloatArray, peak: Mapping[str, Any] | None, geometry: bool
) -> tuple[str, ...]:
    flags = []
    if peak is not None:
        how = "see how C(r) falls" if geometry else "and these positions have no distances to tell by"
        flags.append(f"{PEAK_FLAG} (at log-SNR {peak['log_snr']:.1f}; unrelated templates peak too), {how}")
    still = ~np.isfinite(per_item).all(axis=0)
    if still.any():
        flags.append(f"undefined from log-SNR {log_snr[still].min():.1f}, where nothing changed")
    return tuple(flags)


def _finite(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None
