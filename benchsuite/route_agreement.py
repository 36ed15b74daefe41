"""Do independent routes to one number agree at every level, and if not, which one fails?

Two routes disagree where the 95 % interval of their difference lies beyond `LIMIT` of the way from floor to
ceiling (for information: of H). The one that fails is the one farther from the oracle's curve on that data;
without an oracle, the one farther from the median of all routes, and both where that cannot say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from benchsuite.consistency import Check, Curves, Sampled, sampled
from benchsuite.contracts import Curve, FloatArray
from benchsuite.routes import falls, reads_information, route_name
from benchsuite.statistics import LEVEL, Estimate, Summary

LIMIT = 0.15  #: largest difference of two routes, as a fraction of the way from floor to ceiling
#: what estimates the agreement of two posterior draws, E[sum p²]: (metric, variant)
AGREEMENT = (("class-retention", ""), ("fork-entropy", "agreement"))


@dataclass(frozen=True)
class Route:
    """One route to the number, on the scale where 0 = not fixed at all and 1 = entirely fixed."""

    metric: str
    variant: str
    name: str
    scaled: Sampled
    bound: bool = False  #: a lower bound: only what it has in excess of another counts

    def covers(self, log_snr: float) -> bool:
        """Whether the route was measured around `log_snr`."""
        grid = self.scaled.log_snr
        return bool(grid[0] - 1e-9 <= log_snr <= grid[-1] + 1e-9)

    def at(self, log_snr: float) -> float:
        """Its value there, interpolated."""
        return float(np.interp(log_snr, self.scaled.log_snr, self.scaled.value))


@dataclass(frozen=True)
class Agreement:
    """How well the routes of one factor agree, and what is to be said on the rows of those that fail."""

    check: Check
    flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  #: by metric


def agreements(
    curves: Curves, factors: Mapping[str, float], bounds: Sequence[str], ideal: Curves
) -> list[Agreement]:
    """One entry per factor and quantity that two routes or more lead to.

    Args:
        curves: what was measured.
        factors: {factor: entropy in nats}.
        bounds: metrics that are lower bounds.
        ideal: curves of the oracle on its population; empty if there is none.
    """
    found = []
    for factor, entropy in factors.items():
        information, truth = (_information(c, factor, entropy, bounds) for c in (curves, ideal))
        agreement, kept = (_agreement(c, factor) for c in (curves, ideal))
        found += [
            _judge("information routes agree", "H", factor, information, truth),
            _judge("agreement routes agree", "of range", factor, agreement, kept),
        ]
    return [one for one in found if one is not None]


def _information(curves: Curves, factor: str, entropy: float, bounds: Sequence[str]) -> list[Route]:
    routes = []
    for (metric, variant, about), pair in curves.items():
        if about == factor and reads_information(pair[0], entropy):
            ends = (entropy, 0.0) if falls(pair[0]) else (0.0, entropy)
            routes.append(
                Route(metric, variant, route_name(metric, pair[0]), _scaled(pair, *ends), metric in bounds)
            )
    return routes


def _agreement(curves: Curves, factor: str) -> list[Route]:
    found = [
        (metric, variant, curves[metric, variant, factor])
        for metric, variant in AGREEMENT
        if (metric, variant, factor) in curves
    ]
    # each measures its own floor; one scale for both, so that floors which differ by noise make no difference
    floor = found[0][2][0].floor if found else 0.0
    return [
        Route(metric, variant, f"{metric} {variant}".strip(), _scaled(pair, floor, 1.0))
        for metric, variant, pair in found
    ]


def _scaled(pair: tuple[Curve, Summary], floor: float, ceiling: float) -> Sampled:
    raw, way = sampled(*pair), ceiling - floor
    return Sampled(raw.log_snr, (raw.value - floor) / way, (raw.replicates - floor) / way)


def _judge(name: str, unit: str, factor: str, routes: list[Route], ideal: list[Route]) -> Agreement | None:
    """Compare every pair level by level; None when no pair has a level in common."""
    largest: tuple[float, float, FloatArray] | None = None  # |difference|, level, its replicates
    failing: dict[tuple[str, str, str], tuple[float, str]] = {}  # (metric, variant, other) -> |difference|, text
    for a, b in combinations(routes, 2):
        for level, difference, replicates in _differences(a, b):
            if largest is None or abs(difference) > largest[0]:
                sign = -1.0 if difference < 0 else 1.0
                largest = (abs(difference), level, sign * replicates)
            low, high = np.quantile(replicates, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
            if low <= LIMIT and high >= -LIMIT:
                continue
            for one in _outliers(a, b, level, routes, ideal):
                other, ahead = (b, difference) if one is a else (a, -difference)
                key = (one.metric, one.variant, other.name)
                if abs(ahead) > failing.get(key, (0.0,))[0]:
                    side = "above" if ahead > 0 else "below"
                    said = f"disagrees with {other.name}: {abs(ahead):.2f} {unit} {side} it at log-SNR {level:.1f}"
                    failing[key] = (abs(ahead), f"{one.variant} {said}" if one.variant else said)
    if largest is None:
        return None
    flags: dict[str, tuple[str, ...]] = {}
    for (metric, _, _), (_, said) in failing.items():
        flags[metric] = (*flags.get(metric, ()), said)
    size, level, replicates = largest
    limited = f"{name} to {LIMIT:g} {unit}"
    check = Check(limited, factor, unit, Estimate(size, replicates), size, level, tuple(flags))
    return Agreement(check, flags)


def _differences(a: Route, b: Route) -> list[tuple[float, float, FloatArray]]:
    """(level, a - b, its replicates) on the levels of the coarser route that the other one covers.

    A lower bound below the other route is no difference; two lower bounds say nothing about each other.
    """
    if a.bound and b.bound:
        return []
    coarse, fine = sorted((a, b), key=lambda route: len(route.scaled.log_snr))
    levels = np.array([level for level in coarse.scaled.log_snr if fine.covers(level)])
    if not len(levels):
        return []
    first, second = a.scaled.at(levels), b.scaled.at(levels)
    difference, replicates = first.value - second.value, first.replicates - second.replicates
    if a.bound or b.bound:
        least, most = (0.0, np.inf) if a.bound else (-np.inf, 0.0)
        difference, replicates = np.clip(difference, least, most), np.clip(replicates, least, most)
    finite = np.isfinite(difference)
    return [(float(levels[i]), float(difference[i]), replicates[:, i]) for i in np.flatnonzero(finite)]


def _outliers(a: Route, b: Route, level: float, routes: list[Route], ideal: list[Route]) -> list[Route]:
    """Which of two routes that disagree at `level` fails."""
    truth = next((route.at(level) for route in ideal if route.covers(level) and not route.bound), None)
    if truth is None:
        truth = float(np.median([route.at(level) for route in routes if route.covers(level)]))

    def distance(route: Route) -> float:
        apart = route.at(level) - truth
        return max(apart, 0.0) if route.bound else abs(apart)

    gap = distance(a) - distance(b)
    if abs(gap) < 1e-9:  # half way between the two: either may be wrong
        return [a, b]
    return [a] if gap > 0 else [b]
