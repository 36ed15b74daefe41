"""Statistics against curves whose onsets are known, and against the meaning of a 95 % interval."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from benchsuite.contracts import Curve, FloatArray
from benchsuite.statistics import (
    Estimate,
    Summary,
    area_between,
    cluster_means,
    difference,
    first_crossing,
    rank_with_ties,
    resampling_weights,
    summarise,
)

GRID = np.linspace(-8, 9, 69)


def logistic(at: float, scale: float = 1.0) -> FloatArray:
    return 1 / (1 + np.exp(-(GRID - at) / scale))


def curve(per_item: FloatArray, log_snr: FloatArray = GRID, items: Any = None, **facts: Any) -> Curve:
    items = tuple(f"i{n}" for n in range(len(per_item))) if items is None else items
    return Curve("class", log_snr, per_item, items, "nats", **facts)


def summary(per_item: FloatArray, **facts: Any) -> Summary:
    return summarise(curve(per_item, **facts), replicates=200, seed=0)


# ------------------------------------------------------------------------------------------- onsets


@pytest.mark.parametrize(("floor", "ceiling"), [(0.0, 1.0), (0.1, 2.3), (2.3, 0.0)])
def test_onset_and_width_of_a_logistic(floor: float, ceiling: float) -> None:
    """Half way at 0.37; from 10 % to 90 % a logistic of scale s takes s ln 81. Falling curves too."""
    shape = logistic(0.37, 0.8)
    found = summary(np.tile(floor + (ceiling - floor) * shape, (5, 1)), floor=floor, ceiling=ceiling)
    assert found.log_snr_50.value == pytest.approx(0.37, abs=0.005)  # linear interpolation at spacing 1/4
    assert found.width.value == pytest.approx(0.8 * math.log(81), abs=0.02)
    assert found.n_items == 5
    # items that agree leave nothing to resample
    assert found.log_snr_50.interval() == pytest.approx((found.log_snr_50.value,) * 2)


def test_onset_is_relative_to_the_ceiling_not_to_the_curves_own_maximum() -> None:
    overshooting = 1.5 * logistic(0.0)
    found = summary(np.tile(overshooting, (3, 1)), ceiling=1.0)
    assert found.log_snr_50.value == pytest.approx(math.log(1 / 2), abs=0.01)  # 1.5 p = 1/2 where p = 1/3


def test_curves_without_an_onset_say_why() -> None:
    low = summary(np.full((3, 69), 0.2))
    assert low.log_snr_50.value is None
    assert low.log_snr_50.note == "never reaches 50% of the way from floor to ceiling"
    assert low.log_snr_50.interval() is None
    assert low.width.value is None
    assert low.width.note == "never reaches 90% of the way from floor to ceiling"
    high = summary(np.full((3, 69), 0.7))
    assert high.log_snr_50.note == "starts above 50% of the way from floor to ceiling"
    partial = summary(np.tile(0.3 + 0.7 * logistic(0), (3, 1)))  # has a half, but started above a tenth
    assert partial.log_snr_50.value is not None
    assert partial.width.note == "starts above 10% of the way from floor to ceiling"


def test_first_crossing_row_by_row() -> None:
    x = np.array([0.0, 1.0, 2.0, 3.0])
    curves = np.array(
        [
            [0.0, 0.4, 0.8, 1.0],  # between 1 and 2
            [0.0, 0.5, 0.2, 0.9],  # on the node, and again later: the first counts
            [0.6, 0.1, 0.2, 0.3],  # starts above, falls, never rises through
            [0.0, 0.1, 0.2, 0.3],
            [0.0, np.nan, 0.8, 1.0],  # the neighbour of the crossing is missing
            [np.nan] * 4,
        ]
    )
    np.testing.assert_allclose(first_crossing(curves, x, 0.5), [1.25, 1.0, np.nan, np.nan, np.nan, np.nan])


# ----------------------------------------------------------------------------------------- resampling


def test_repeated_ids_are_one_item() -> None:
    values = np.array([[1.0, 2.0], [3.0, 4.0], [10.0, 20.0]])
    means, names = cluster_means(values, ["b", "b", "a"])
    assert names == ["a", "b"]
    np.testing.assert_allclose(means, [[10, 20], [2, 3]])
    # ten copies of the data are no more evidence than one
    draws = np.random.default_rng(0).normal(size=(30, 1)) + logistic(0)
    ids = [f"i{n}" for n in range(30)]
    once, often = summary(draws, items=ids), summary(np.tile(draws, (10, 1)), items=ids * 10)
    np.testing.assert_allclose(once.low, often.low)
    assert often.n_items == 30


def test_resampling_belongs_to_the_set_of_ids_and_the_seed() -> None:
    ids = [f"i{n:02d}" for n in range(20)]
    weights = resampling_weights(ids, 300, seed=1)
    assert weights.shape == (300, 20)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    # multinomial: each item is drawn once on average, with variance (1 - 1/n)
    assert 20 * weights.mean() == pytest.approx(1)
    assert (20 * weights).var() == pytest.approx(1 - 1 / 20, rel=0.1)
    assert np.array_equal(weights, resampling_weights(ids, 300, seed=1))
    assert not np.array_equal(weights, resampling_weights(ids, 300, seed=2))
    assert not np.array_equal(weights, resampling_weights([*ids[:-1], "other"], 300, seed=1))


def test_models_on_the_same_items_are_resampled_together() -> None:
    """The interval of a constant difference is a point, though either onset is uncertain by itself."""
    shifts = np.random.default_rng(0).normal(0, 1.5, size=(40, 1))
    items = 1 / (1 + np.exp(-(GRID - shifts)))
    a = summarise(curve(items), replicates=200, seed=0)
    later = 1 / (1 + np.exp(-(GRID - 0.5 - shifts)))  # every item half a unit later: two nodes of the grid
    b = summarise(curve(later[::-1], items=tuple(f"i{n}" for n in range(40))[::-1]), replicates=200, seed=0)
    alone, paired = b.log_snr_50.interval(), difference(b.log_snr_50, a.log_snr_50)
    assert alone is not None
    assert alone[1] - alone[0] > 0.5
    assert paired.value == pytest.approx(0.5, abs=1e-6)
    assert paired.interval() == pytest.approx((0.5, 0.5), abs=1e-6)


def test_intervals_cover_the_truth() -> None:
    """The mean of 60 exponential items, at 60 seeds: a 95 % interval misses no more than 10 % of the time."""
    hits = 0
    for seed in range(60):
        items = np.random.default_rng(seed).exponential(2.0, size=(60, 1)) * np.ones((1, 2))
        found = summarise(curve(items, np.array([0.0, 1.0])), replicates=400, seed=seed)
        hits += bool(found.low[0] <= 2.0 <= found.high[0])
    assert hits >= 54


def test_interval_width_shrinks_like_the_root_of_n() -> None:
    draws = np.random.default_rng(3).normal(size=(1600, 1)) * np.ones((1, 2))
    few, many = (summarise(curve(draws[:n], np.array([0.0, 1.0])), replicates=1000, seed=0) for n in (100, 1600))
    spread_few, spread_many = few.high[0] - few.low[0], many.high[0] - many.low[0]
    assert spread_many == pytest.approx(2 * 1.96 / 40, rel=0.12)
    assert spread_few / spread_many == pytest.approx(4, rel=0.2)


def test_interval_is_the_middle_95_percent_of_the_replicates() -> None:
    shuffled = np.random.default_rng(0).permutation(np.arange(1001.0))
    assert Estimate(400.0, shuffled).interval() == pytest.approx((25.0, 975.0))


def test_intervals_contain_the_estimate_and_need_enough_replicates() -> None:
    assert Estimate(1.0, np.full(50, 1.0 + 1e-12)).interval() == (1.0, 1.0 + 1e-12)
    some = np.concatenate([np.full(96, 2.0), np.full(4, np.nan)])
    assert Estimate(2.0, some).interval() == (2.0, 2.0)
    assert Estimate(2.0, np.concatenate([some, np.full(4, np.nan)])).interval() is None
    assert Estimate(None, some).interval() is None
    assert Estimate(2.0, np.full(5, np.nan)).interval() is None


# --------------------------------------------------------------------------------- areas and ranks


def test_area_between_two_lines_on_different_grids() -> None:
    """|x - x/2| over [0, 4] is 4; the coarser grid is interpolated, the range is the shared one."""
    fine, coarse = np.linspace(0, 6, 25), np.linspace(-2, 4, 7)
    a = summarise(curve(np.tile(fine, (3, 1)), fine), replicates=10, seed=0)
    b = summarise(curve(np.tile(coarse / 2, (3, 1)), coarse), replicates=10, seed=0)
    found = area_between(a, b, fine, coarse)
    assert found.value == pytest.approx(4.0)
    np.testing.assert_allclose(found.replicates, 4.0)
    assert area_between(b, a, coarse, fine).value == pytest.approx(4.0)
    apart = area_between(a, b, fine, coarse - 100)
    assert apart.value is None
    assert apart.note == "the two curves share no range"


def estimate(value: float, spread: float, seed: int = 0) -> Estimate:
    return Estimate(value, value + spread * np.random.default_rng(seed).normal(size=500))


def test_ranks_share_what_cannot_be_told_apart() -> None:
    clear = [estimate(0.3, 0.01, 1), estimate(0.1, 0.01, 2), estimate(0.2, 0.01, 3)]
    assert rank_with_ties(clear) == [3, 1, 2]
    # 0.10 and 0.11 are one class; the third is behind both and so comes third
    assert rank_with_ties([estimate(0.11, 0.05, 1), estimate(0.1, 0.05, 2), estimate(0.9, 0.05, 3)]) == [1, 1, 3]
    # paired replicates tell apart what separate intervals could not
    noise = np.random.default_rng(0).normal(size=500)
    assert rank_with_ties([Estimate(0.11, 0.11 + 0.05 * noise), Estimate(0.1, 0.1 + 0.05 * noise)]) == [2, 1]
    assert rank_with_ties([]) == []


def test_difference_of_something_missing_keeps_its_reason() -> None:
    missing = Estimate(None, np.full(500, np.nan), "never reaches")
    found = difference(estimate(1.0, 0.1), missing)
    assert (found.value, found.note) == (None, "never reaches")
    assert difference(estimate(1.0, 0.1), estimate(0.4, 0.1)).value == pytest.approx(0.6)
