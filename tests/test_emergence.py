"""Order of emergence: what comes first, what cannot be told apart, and Kendall's tau against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau

from benchsuite.emergence import emergence, kendall_tau
from benchsuite.statistics import Estimate


def onset(value, spread=0.01, seed=0, n=400):
    """An onset whose replicates scatter around it."""
    return Estimate(value, value + spread * np.random.default_rng(seed).standard_normal(n))


NEVER = Estimate(None, np.full(400, np.nan), "never reaches 50% of the way from floor to ceiling")


@pytest.mark.parametrize("levels", [2, 3, 50])  # few levels: many ties
def test_tau_is_scipys_tau_b(levels):
    rng = np.random.default_rng(levels)
    a, b = rng.integers(levels, size=(2, 60, 7)).astype(float)
    expected = [kendalltau(x, y).statistic for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(kendall_tau(a, b), expected, atol=1e-12)


def test_tau_is_undefined_without_an_order_and_where_a_value_is_missing():
    a = np.array([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0], [1.0, np.nan, 3.0]])
    tau = kendall_tau(a, np.array([3.0, 2.0, 1.0]) + np.zeros((3, 3)))
    np.testing.assert_array_equal(np.isnan(tau), [False, True, True])
    assert tau[0] == -1.0


def test_earliest_first_with_the_factors_that_never_emerge_named():
    found = emergence({"texture": onset(3.0), "dummy": NEVER, "floor": onset(-4.0), "shape": onset(0.5)})
    assert [place.factor for place in found.order] == ["floor", "shape", "texture"]
    assert found.left_out == {"dummy": NEVER.note}
    assert found.tau is None


def test_factors_are_tied_when_their_paired_distance_may_be_zero():
    shared = 0.5 * np.random.default_rng(1).standard_normal(400)  # what all factors of a model have in common
    floor = Estimate(-1.0, -1.0 + shared)
    wall = Estimate(-0.9, -0.9 + shared + 0.01 * np.random.default_rng(2).standard_normal(400))
    shape = Estimate(-0.89, -0.89 + shared + 0.1 * np.random.default_rng(3).standard_normal(400))
    found = emergence({"shape": shape, "wall": wall, "floor": floor})
    assert [(p.factor, p.tied) for p in found.order] == [("floor", False), ("wall", False), ("shape", True)]
    (low, high), (_, wall_low) = floor.interval(), wall.interval()
    assert low < wall.value < high < wall_low, "their own intervals overlap: only pairing tells them apart"


def test_tau_against_the_oracle_and_its_interval():
    oracle = {name: onset(level, seed=i) for i, (name, level) in enumerate(zip("abcde", range(5), strict=True))}
    model = dict(oracle) | {"b": onset(2.5, seed=8)}  # b falls behind c: one pair of ten is reversed
    found = emergence(model, oracle, "ideal")
    assert found.tau.value == pytest.approx((9 - 1) / 10)
    assert found.tau.interval() == (pytest.approx(0.8), pytest.approx(0.8))
    assert found.compared == 5
    blurred = dict(oracle) | {"b": onset(1.9, spread=0.3, seed=8)}  # c at 2 is overtaken in some replicates
    low, high = emergence(blurred, oracle).tau.interval()
    assert (low, high) == (pytest.approx(0.8), pytest.approx(1.0))


def test_factors_that_the_oracle_never_fixes_are_ordered_but_not_compared():
    model = {"a": onset(0.0), "b": onset(1.0), "c": onset(2.0), "extra": onset(3.0)}
    oracle = {"a": onset(0.0), "b": onset(1.0), "c": NEVER}
    found = emergence(model, oracle, "ideal")
    assert [place.factor for place in found.order] == ["a", "b", "c", "extra"]
    assert found.left_out == {
        "c": f"no place to compare: ideal {NEVER.note}",
        "extra": "no place to compare: ideal not measured",
    }
    assert (found.tau.value, found.compared) == (1.0, 2)


def test_one_shared_factor_is_no_order():
    found = emergence({"a": onset(0.0), "b": onset(1.0)}, {"a": onset(0.0)})
    assert (found.tau.value, found.compared) == (None, 1)
    assert found.tau.interval() is None
    assert emergence({"a": NEVER}, {"a": onset(0.0)}).tau.value is None


def test_a_factor_missing_in_many_replicates_takes_the_interval_away():
    rare = np.random.default_rng(5).standard_normal(400)
    rare[:40] = np.nan
    model = {"a": onset(-9.0), "b": Estimate(0.0, rare)}
    assert emergence(model, {"a": onset(0.0), "b": onset(1.0)}).tau.interval() is None
