"""A prior over the factors of `shapes`, and the population of whole images that has these frequencies."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from benchsuite import UsageError
from benchsuite.errors import unknown

Prior = dict[str, tuple[float, ...]]  # factor -> probabilities of its values

SUM_TOLERANCE = 1e-6  # of probabilities written in decimals


def parse_prior(text: str, levels: Mapping[str, int], who: str) -> Prior:
    """Read ``shape:0.4/0.3/0.2/0.1+texture:0.9/0.1``; factors that are not named stay uniform.

    Args:
        text: factors joined by ``+``; "" = all uniform.
        levels: factor -> number of values.
        who: name of the data set, for messages.

    Raises:
        UsageError: an unknown factor or one given twice, a wrong number of entries, an entry that is not a
            positive number, or entries that do not sum to 1.
    """
    prior: Prior = {}
    for part in filter(None, text.split("+")):
        factor, _, entries = part.partition(":")
        if factor not in levels:
            raise unknown(f"factor in the prior of {who}:", factor, levels)
        if factor in prior:
            raise UsageError(f"{who}: the prior of {factor} is given twice")
        try:
            p = tuple(float(entry) for entry in entries.split("/"))
        except ValueError:
            raise UsageError(f"{who}: prior {part!r} must read FACTOR:P/P/…, numbers joined by /") from None
        if len(p) != levels[factor]:
            raise UsageError(f"{who}: the prior of {factor} has {len(p)} entries for {levels[factor]} values")
        if not all(math.isfinite(q) and q > 0 for q in p):
            raise UsageError(f"{who}: the prior of {factor} has an entry that is not positive: {entries}")
        if abs(sum(p) - 1) > SUM_TOLERANCE:
            raise UsageError(f"{who}: the prior of {factor} sums to {sum(p):.6g}, not to 1: {entries}")
        prior[factor] = p
    return prior


def multiplicities(levels: Mapping[str, int], prior: Mapping[str, tuple[float, ...]]) -> NDArray[np.int64]:
    """How often each combination occurs in a population of as many images as there are combinations.

    Systematic resampling of the factors that have a prior: their cells are lined up, each as long as its
    probability, and counted by N equidistant points, so that their frequencies are right within rounding. The
    images of a cell are shared out equally among its combinations; those that occur once more than others are the
    first along a Kronecker sequence, which spreads them evenly over all other factors.

    Returns:
        (N,) counts that sum to N, combinations in lexicographic order of the factors in `levels`.
    """
    sizes = tuple(levels.values())
    total = math.prod(sizes)
    index = np.stack(np.unravel_index(np.arange(total), sizes))  # (F, N)
    cell, weight = np.zeros(total, dtype=np.int64), np.ones(1)
    for i, factor in enumerate(levels):
        if factor in prior:
            cell = cell * sizes[i] + index[i]
            weight = np.outer(weight, prior[factor]).ravel()  # of the cells so far
    ends = weight.cumsum() / weight.sum() * total
    # half-integers go down, whatever rounding made of them
    shares = np.diff(np.floor(ends + 0.5 - 1e-6).astype(np.int64), prepend=0)
    roots = np.sqrt([2, 3, 5, 7, 11, 13, 17][: len(sizes)])  # independent over the rationals
    order = np.lexsort([roots @ index % 1, cell])
    rank = np.empty(total, dtype=np.int64)
    each = total // len(weight)  # combinations per cell
    rank[order] = np.arange(total) % each
    counts: NDArray[np.int64] = shares[cell] // each + (rank < shares[cell] % each)
    return counts
