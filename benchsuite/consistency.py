"""Identities that tie the metrics together: zero for a perfect model, whatever the data.

With p = p(factor | x): mutual information is H - E[H(p)], fork entropy E[H(p)], retention and the agreement of two
forks E[sum p²], and a probe can only lose information. Three routes to one posterior check each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from benchsuite.contracts import Curve, FloatArray
from benchsuite.statistics import Estimate, Summary

#: curves of one model on one split of one data set, by (metric, variant, factor)
Curves = Mapping[tuple[str, str, str], tuple[Curve, Summary]]


@dataclass(frozen=True)
class Check:
    """How far an identity is missed, averaged over the levels where the factor is being decided."""

    name: str
    factor: str
    unit: str
    deviation: Estimate  #: mean over those levels; for an inequality its excess, at least 0
    worst: float  #: largest deviation at one level, sampling noise included
    at_log_snr: float
    failed: tuple[str, ...] = ()  #: metrics that fail a check with a limit, see `benchsuite.route_agreement`


def check(curves: Curves, factors: Mapping[str, float]) -> list[Check]:
    """All identities that the measured curves allow; pairs of curves without a common level allow none.

    Args:
        curves: what was measured.
        factors: {factor: entropy in nats}.
    """
    found: list[Check | None] = []
    for factor, entropy in factors.items():
        information = curves.get(("mutual-information", "", factor))
        entropy_of_forks = curves.get(("fork-entropy", "", factor))
        agreement = curves.get(("fork-entropy", "agreement", factor))
        retention = curves.get(("class-retention", "", factor))
        probe = curves.get(("linear-probe", "", factor))
        if information and entropy_of_forks:
            found.append(
                _compare(
                    "fork entropy + I = H",
                    factor,
                    "nats",
                    entropy_of_forks,
                    information,
                    _sum_minus(entropy),
                )
            )
        if agreement and retention:
            found.append(
                _compare(
                    "fork agreement = retention", factor, "probability", agreement, retention, lambda a, r: a - r
                )
            )
        one_shot = curves.get(("class-retention", "one-shot", factor))
        if retention and one_shot:
            found.append(
                _compare(
                    "retention = one-shot retention",
                    factor,
                    "probability",
                    retention,
                    one_shot,
                    lambda r, o: r - o,
                )
            )
        if probe and information:
            found.append(_compare("probe ≤ I", factor, "nats", probe, information, lambda p, i: p - i, bound=True))
    names = [f for f in factors if f != "joint" and ("mutual-information", "", f) in curves]
    parts = [curves["mutual-information", "", name] for name in names]
    joint = curves.get(("mutual-information", "", "joint"))
    if joint and len(parts) > 1:
        # what the factors say about each other without any image; 0 if they are independent
        shared = max(sum(factors[name] for name in names) - factors["joint"], 0.0)
        # routes may differ between factors, and with them the levels: the coarsest of them, where all are known
        routes = [sampled(*part) for part in parts]
        low, high = max(r.log_snr[0] for r in routes), min(r.log_snr[-1] for r in routes)
        levels = min((r.log_snr for r in routes), key=len)
        levels = levels[(levels >= low - 1e-9) & (levels <= high + 1e-9)]
        placed = [r.at(levels) for r in routes]
        total = Sampled(
            levels, np.sum([r.value for r in placed], axis=0), np.sum([r.replicates for r in placed], axis=0)
        )
        found.append(
            _compare_sampled(
                "Σ I − joint I ≤ Σ H − joint H", "joint", "nats", total, sampled(*joint), _minus(shared), True
            )
        )
    return [check for check in found if check is not None]


def _minus(shared: float) -> Callable[[FloatArray, FloatArray], FloatArray]:
    return lambda a, b: a - b - shared


def _sum_minus(entropy: float) -> Callable[[FloatArray, FloatArray], FloatArray]:
    return lambda a, b: a + b - entropy


@dataclass(frozen=True)
class Sampled:
    """A curve with its bootstrap replicates."""

    log_snr: FloatArray  #: (T,)
    value: FloatArray  #: (T,)
    replicates: FloatArray  #: (R, T)

    def at(self, levels: FloatArray) -> Sampled:
        """Interpolated to other levels."""
        rows = [np.interp(levels, self.log_snr, row) for row in self.replicates]
        return Sampled(levels, np.interp(levels, self.log_snr, self.value), np.stack(rows))


def sampled(curve: Curve, summary: Summary) -> Sampled:
    """The published numbers of a curve, as comparisons take them."""
    return Sampled(curve.log_snr, summary.value, summary.replicates)


def _compare(
    name: str,
    factor: str,
    unit: str,
    coarse: tuple[Curve, Summary],
    fine: tuple[Curve, Summary],
    deviation: Callable[[FloatArray, FloatArray], FloatArray],
    bound: bool = False,
) -> Check | None:
    return _compare_sampled(name, factor, unit, sampled(*coarse), sampled(*fine), deviation, bound)


def _compare_sampled(
    name: str,
    factor: str,
    unit: str,
    coarse: Sampled,
    fine: Sampled,
    deviation: Callable[[FloatArray, FloatArray], FloatArray],
    bound: bool = False,
) -> Check | None:
    """Deviation where `fine` is on the move, on the levels of `coarse` that it covers; None if there are none."""
    levels = coarse.log_snr
    shared = (levels >= fine.log_snr[0] - 1e-9) & (levels <= fine.log_snr[-1] + 1e-9)
    shared &= np.isfinite(coarse.value) & np.isfinite(np.interp(levels, fine.log_snr, fine.value))
    if not shared.any():
        return None
    theirs = fine.at(levels[shared])
    moving = _moving(theirs.value)
    value = deviation(coarse.value[shared], theirs.value)
    replicates = deviation(coarse.replicates[:, shared], theirs.replicates)
    mean, means = value[moving].mean(), replicates[:, moving].mean(axis=1)
    if bound:
        mean, means = max(mean, 0.0), np.maximum(means, 0.0)
    worst = int(value.argmax() if bound else np.abs(value).argmax())
    return Check(
        name, factor, unit, Estimate(float(mean), means), float(value[worst]), float(levels[shared][worst])
    )


def _moving(values: FloatArray) -> FloatArray:
    """Levels between 5 % and 95 % of the curve's own range; all of them if there are none."""
    low, high = values.min(), values.max()
    inside: FloatArray = (values > low + 0.05 * (high - low)) & (values < low + 0.95 * (high - low))
    return inside if inside.any() else np.ones(len(values), dtype=bool)
