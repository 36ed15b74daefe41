"""Mean field of finite depth: thresholds, widths and inversions of B §5, and why there may be no transition."""

from __future__ import annotations

import numpy as np
import pytest
from benchsuite_models.rhm_finite import inversion, susceptibility_peak, threshold, width
from benchsuite_models.rhm_theory import mean_field, no_transition

# L -> threshold, 10-90 % width of v = 32, m = 8, s = 2
FINITE = {
    3: (0.65466251, 0.4220),
    5: (0.69500849, 0.2150),
    7: (0.71397322, 0.1027),
    9: (0.72295544, 0.0487),
    12: (0.72845028, 0.0160),
}


@pytest.mark.parametrize(("depth", "expected"), FINITE.items())
def test_thresholds_and_widths_of_finite_depth(depth: int, expected: tuple[float, float]) -> None:
    assert threshold(32, 8, 2, depth) == pytest.approx(expected[0], abs=6e-9)
    assert width(32, 8, 2, depth) == pytest.approx(expected[1], abs=6e-5)


def test_thresholds_rise_to_epsilon_star_and_sharpen() -> None:
    found = [threshold(32, 8, 2, depth) for depth in range(3, 21)]
    assert (np.diff(found) > 0).all()
    assert found[-1] == pytest.approx(0.73103709, abs=6e-9)
    assert found[-1] < 68 / 93
    assert (np.diff([width(32, 8, 2, depth) for depth in range(3, 13)]) < 0).all()


def test_levels_change_order_where_published() -> None:
    assert inversion(32, 8, 2, 7) == pytest.approx(0.561986, abs=1e-6)
    assert inversion(32, 8, 2, 9) == pytest.approx(0.689804, abs=1e-6)


@pytest.mark.parametrize("size", [(32, 8, 2, 3), (16, 4, 2, 5), (32, 17, 2, 5)])
def test_tokens_may_be_safer_than_the_class_at_every_epsilon(size: tuple[int, int, int, int]) -> None:
    assert inversion(*size) is None
    leads = [np.subtract(*mean_field(e, *size).retention[:: -size[3]]) for e in np.linspace(0.01, 0.99, 197)]
    assert max(leads) < 1e-12


def test_most_tokens_change_together_near_the_threshold() -> None:
    for depth, where, peak in ((7, 0.7275, 5.9004), (9, 0.7315, 7.9805), (12, 0.732, 11.4769)):
        at, chi = susceptibility_peak(32, 8, 2, depth)
        assert at == pytest.approx(where, abs=6e-4)
        assert chi == pytest.approx(peak, abs=5e-4)


def test_the_absence_of_a_transition_is_said_in_words() -> None:
    assert no_transition(32, 8, 2) == ""
    assert "F'(1) = s m (v - 1) / (v^s - 1) = 1.0303 >= 1, the class is lost" in no_transition(32, 17, 2)
    assert "= 1 >= 1, the class is lost" in no_transition(3, 2, 2)  # marginal
    assert "F'(1/v) = 1.93939 >= 1, the class is kept" in no_transition(32, 1, 2)
