"""The order in which factors become fixed by one route, and how far it follows the oracle's.

Onsets are compared replicate by replicate: all factors of a model are resampled together, so that the order of
two factors is known better than either of their onsets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from benchsuite.contracts import FloatArray
from benchsuite.statistics import Estimate, difference


@dataclass(frozen=True)
class Place:
    """One factor in an order of emergence."""

    factor: str
    log_snr_50: Estimate
    tied: bool  #: the 95 % interval of its distance to the factor before it holds 0


@dataclass(frozen=True)
class Emergence:
    """When the factors become fixed, the earliest (at the most noise) first."""

    order: tuple[Place, ...]
    tau: Estimate | None  #: Kendall's tau-b with the reference's order; None without a reference
    compared: int  #: number of factors that tau is taken over
    left_out: Mapping[str, str]  #: factors without an onset, here or in the reference, and why


def emergence(
    onsets: Mapping[str, Estimate], reference: Mapping[str, Estimate] | None = None, name: str = "reference"
) -> Emergence:
    """Sort factors by their onsets and compare with the reference's order.

    Args:
        onsets: {factor: log_snr_50}; `value` None = never emerges, `note` says why.
        reference: the same of the model to compare with; None = there is none.
        name: what the reference is called in `left_out`.
    """
    # factors of equal onset stand in the order of their names, so that the same numbers give the same order
    found = sorted((onset.value, factor) for factor, onset in onsets.items() if onset.value is not None)
    names = [factor for _, factor in found]
    places = tuple(
        Place(factor, onsets[factor], bool(i) and _tied(onsets[names[i - 1]], onsets[factor]))
        for i, factor in enumerate(names)
    )
    left_out = {factor: onset.note or "no onset" for factor, onset in onsets.items() if onset.value is None}
    if reference is None:
        return Emergence(places, None, 0, left_out)
    shared = [factor for factor in names if factor in reference and reference[factor].value is not None]
    for factor in names:
        if factor not in shared:
            why = reference[factor].note if factor in reference else "not measured"
            left_out[factor] = f"no place to compare: {name} {why or 'has no onset'}"
    tau = _tau([onsets[f] for f in shared], [reference[f] for f in shared])
    return Emergence(places, tau, len(shared), left_out)


def kendall_tau(a: FloatArray, b: FloatArray) -> FloatArray:
    """Kendall's tau-b of the last axis of (…, F) and (…, F), ties corrected for: (…,) in [-1, 1].

    NaN where a value is missing, or where all values of one side are equal and there is no order to compare.
    """
    i, j = np.triu_indices(a.shape[-1], k=1)
    first, second = np.sign(a[..., i] - a[..., j]), np.sign(b[..., i] - b[..., j])  # (…, pairs); NaN stays NaN
    ordered = np.sqrt((first**2).sum(axis=-1) * (second**2).sum(axis=-1))
    with np.errstate(invalid="ignore"):
        tau: FloatArray = (first * second).sum(axis=-1) / np.where(ordered > 0, ordered, np.nan)
    return tau


def _tau(mine: list[Estimate], theirs: list[Estimate]) -> Estimate:
    if len(mine) < 2:
        replicates = np.full(len(mine[0].replicates) if mine else 1, np.nan)
        return Estimate(None, replicates, "fewer than two factors to compare")
    value = float(kendall_tau(*(np.array([float(e.value or 0.0) for e in side]) for side in (mine, theirs))))
    replicates = kendall_tau(*(np.stack([e.replicates for e in side], axis=-1) for side in (mine, theirs)))
    if not np.isfinite(value):
        return Estimate(None, replicates, "all onsets are equal")
    return Estimate(value, replicates)


def _tied(earlier: Estimate, later: Estimate) -> bool:
    interval = difference(later, earlier).interval()
    return interval is None or interval[0] <= 0
