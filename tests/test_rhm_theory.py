"""Mean-field theory of the Random Hierarchy Model against exact rationals and published tables (B §3, §5)."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from benchsuite_models.rhm_theory import epsilon_star, mean_field, nu, p_star, slope, upward

from benchsuite import UsageError


def exact_upward(p: Fraction, v: int, m: int, s: int) -> Fraction:
    g = Fraction(1, v**s - 1)
    return (p**s + (m - 1) * g * (1 - p**s)) / (p**s + (m * v - 1) * g * (1 - p**s))


# (v, m) -> p*, epsilon*, nu at s = 2
BINARY = {
    (32, 8): (Fraction(7, 24), Fraction(68, 93), 1.892796),
    (32, 4): (Fraction(3, 28), Fraction(200, 217), 1.892796),
    (32, 12): (Fraction(11, 20), Fraction(72, 155), 3.008435),
    (32, 16): (Fraction(15, 16), Fraction(2, 31), 23.314),
    (16, 4): (Fraction(1, 4), Fraction(4, 5), 2.254249),
    (8, 3): (Fraction(2, 5), Fraction(24, 35), 3.422539),
    (8, 2): (Fraction(1, 6), Fraction(20, 21), 7.133804),
    (4, 2): (Fraction(1, 2), Fraction(2, 3), 6.578813),
}


@pytest.mark.parametrize(("size", "expected"), BINARY.items())
def test_binary_thresholds_are_rational(size: tuple[int, int], expected: tuple[Fraction, Fraction, float]) -> None:
    (v, m), (fixed, threshold, exponent) = size, expected
    assert exact_upward(fixed, v, m, 2) == fixed
    assert p_star(v, m, 2) == pytest.approx(float(fixed), abs=1e-14)
    assert epsilon_star(v, m, 2) == pytest.approx(float(threshold), abs=1e-14)
    assert nu(v, m, 2) == pytest.approx(exponent, rel=3e-6 if m < 16 else 3e-5)


@pytest.mark.parametrize(
    ("size", "fixed", "threshold", "exponent"),
    [
        ((32, 64, 3), 0.273382030012, 0.750057259342, 1.543586),
        ((16, 16, 3), 0.25, 0.8, 1.774706),
        ((8, 8, 3), 0.353553390593, 0.738796125036, 2.451930),
        ((4, 4, 3), 0.5, 2 / 3, 4.371465),
        ((3, 3, 3), 0.577350269190, 0.633974596216, 6.409083),
        ((4, 4, 4), 0.312383140409, 0.916822479455, 6.239903),
    ],
)
def test_wider_rules_have_the_published_thresholds(
    size: tuple[int, int, int], fixed: float, threshold: float, exponent: float
) -> None:
    assert p_star(*size) == pytest.approx(fixed, abs=1e-11)
    assert epsilon_star(*size) == pytest.approx(threshold, abs=1e-11)
    assert nu(*size) == pytest.approx(exponent, abs=1e-6)


@pytest.mark.parametrize("size", [(32, 17, 2), (3, 2, 2), (8, 1, 2), (4, 2, 3)])
def test_no_transition_is_none(size: tuple[int, int, int]) -> None:
    """F'(1) >= 1 (class always lost; exactly 1 at (3, 2, 2)), or F'(1/v) >= 1 (class always kept)."""
    v, m, s = size
    step = Fraction(1, 10**9)
    at_one = (1 - exact_upward(1 - step, v, m, s)) / step
    at_chance = (exact_upward(Fraction(1, v) + step, v, m, s) - Fraction(1, v)) / step
    assert max(at_one, at_chance) > 1 - 1e-6  # the reason, independently of the code
    assert p_star(*size) is epsilon_star(*size) is nu(*size) is None


def test_thresholds_fall_with_the_number_of_rules() -> None:
    values = [epsilon_star(32, m, 2) for m in range(2, 17)]
    known = [0.997849, 0.961068, 0.921659, 0.879331, 0.833747, 0.784516, 0.731183, 0.673212, 0.609971]
    known += [0.540707, 0.464516, 0.380306, 0.286738, 0.182163, 0.064516]
    np.testing.assert_allclose(np.array(values, dtype=float), known, atol=6e-7)


def test_slope_is_the_derivative() -> None:
    for p in (0.05, 7 / 24, 0.6, 0.99):
        h = Fraction(1, 10**7)
        exact = (exact_upward(Fraction(p) + h, 32, 8, 2) - exact_upward(Fraction(p) - h, 32, 8, 2)) / (2 * h)
        assert slope(p, 32, 8, 2) == pytest.approx(float(exact), rel=1e-10)
    assert upward(0.5, 32, 8, 2) == pytest.approx(0.583892617450, abs=1e-12)
    assert upward(0.9, 32, 8, 2) == pytest.approx(0.946276280385, abs=1e-12)


@pytest.mark.parametrize("depth", [1, 2, 5, 10, 20])
def test_all_depths_cross_at_the_threshold(depth: int) -> None:
    assert mean_field(68 / 93, 32, 8, 2, depth).class_retention == pytest.approx(7 / 24, abs=1e-9)


RETENTION = {  # epsilon -> p_L at L = 3, 5, 7, 10
    0.5: (0.80420685, 0.93628744, 0.98347893, 0.99806200),
    0.65: (0.52815956, 0.72139978, 0.89350891, 0.98520753),
    0.8: (0.12594984, 0.05601477, 0.03353399, 0.03128410),
}


@pytest.mark.parametrize(("epsilon", "values"), RETENTION.items())
def test_class_retention_table(epsilon: float, values: tuple[float, ...]) -> None:
    computed = [mean_field(epsilon, 32, 8, 2, depth).class_retention for depth in (3, 5, 7, 10)]
    np.testing.assert_allclose(computed, values, atol=6e-9)


def test_retention_of_every_level() -> None:
    published = [0.980442501, 0.988692283, 0.993595788, 0.995923860, 0.996355725, 0.995047367, 0.991363984]
    levels = mean_field(0.5, 32, 8, 2, 7).retention
    np.testing.assert_allclose(levels, [*published, 0.983478927], atol=6e-10)


def test_root_and_leaf_change_order_at_the_inversion() -> None:
    """Below epsilon = .561986 the leaves are safer than nothing above them: the class is; then the reverse."""
    for epsilon, sign in ((0.5619, 1), (0.5621, -1)):
        levels = mean_field(epsilon, 32, 8, 2, 7).retention
        assert np.sign(levels[-1] - levels[0]) == sign


def test_retention_falls_with_epsilon() -> None:
    grid = [mean_field(e, 32, 8, 2, 7).retention for e in np.linspace(0, 1, 101)]
    assert (np.diff(np.array(grid)[:, [0, -1]], axis=0) <= 1e-15).all()
    np.testing.assert_allclose(grid[0], 1, atol=1e-12)
    assert grid[-1][-1] == pytest.approx(1 / 32, abs=1e-12)  # nothing is known of the class


def test_susceptibility_peaks_at_the_threshold() -> None:
    table = {0.5: 1.73186, 0.65: 2.46976, 0.7: 3.78770, 0.8: 2.52204, 0.9: 1.46031}
    for epsilon, value in table.items():
        assert mean_field(epsilon, 32, 8, 2, 9).susceptibility() == pytest.approx(value, abs=6e-6)
    for depth, where, peak in ((7, 0.7275, 5.9004), (9, 0.7315, 7.9805), (12, 0.732, 11.4769)):
        grid = np.arange(0.6, 0.85, 0.0005)
        chi = [mean_field(e, 32, 8, 2, depth).susceptibility() for e in grid]
        assert grid[int(np.argmax(chi))] == pytest.approx(where, abs=6e-4)
        assert max(chi) == pytest.approx(peak, abs=1e-4)


def test_pair_marginals_are_those_of_single_leaves() -> None:
    """Whatever the height of the common ancestor, a leaf is kept with probability P_0 (checked to 1e-12)."""
    theory = mean_field(0.7, 32, 8, 2, 6)
    chain = np.eye(2)
    for height in range(1, 7):
        pair = theory._siblings(height)
        np.testing.assert_allclose(pair, pair.T)
        assert chain[0] @ pair.sum(1) == pytest.approx(theory.retention[0], abs=1e-12)
        chain = chain @ theory._transfer(height)


def test_nothing_changes_without_noise() -> None:
    assert all(math.isnan(c) for c in mean_field(0.0, 8, 3, 2, 4).correlations())


def test_bad_values_are_refused() -> None:
    with pytest.raises(UsageError, match=r"epsilon must be in \[0, 1\], got 1.2"):
        mean_field(1.2, 8, 3, 2, 4)
    with pytest.raises(UsageError, match="L must be at least 1, got 0"):
        mean_field(0.2, 8, 3, 2, 0)
