"""Every metric on exact models, through `benchsuite.measure`, against quadrature.

Tolerances are a bias allowance plus three standard errors as the metric itself states them (its 95 % interval is
3.92 standard errors wide); that the stated errors are honest is tested at the end.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from benchsuite_models.exact_mixture import ExactMixture
from closed_forms import rho_where, simplex, two_gaussians
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm
from toys import DrawnData

from benchsuite import Dataset, DiffusionModel, measure
from benchsuite.api import MeasuredCurve, Report
from benchsuite.discovery import Catalog
from benchsuite.protocols.settings import ForkSettings, SweepSettings, UTurnSettings
from benchsuite.request import Settings

Array = NDArray[np.float64]

ALL = ("mutual-information", "class-retention", "linear-probe", "fork-entropy")
SETTINGS = Settings(
    probe_items=2000,
    bootstrap=300,
    batch=16384,
    sweep=SweepSettings(draws=2),
    u_turn=UTurnSettings(low=-5.0, high=4.0, every=1.0, steps_per_level=4, end=7.0, draws=2),
    fork=ForkSettings(low=-4.0, high=3.0, every=1.0, steps_per_level=4, end=7.0, k=12, items=300),
)
M, VARIANCE = 1.3, 0.16


@pytest.fixture(scope="module")
def ask(first_party: Catalog) -> Callable[..., Report]:
    """`measure` with these settings and nobody else's plugins."""

    def measured(
        model: DiffusionModel,
        metrics: tuple[str, ...] = ALL,
        n: int = 2000,
        dataset: Dataset | None = None,
        seed: int = 0,
        grid: tuple[float, ...] | None = None,
        settings: Settings = SETTINGS,
    ) -> Report:
        return measure(
            model,
            dataset,
            metrics,
            grid=grid,
            n=n,
            seed=seed,
            settings=settings,
            device="cpu",
            catalog=first_party,
        )

    return measured


def rho(log_snr: Array, half_distance: float = M, variance: float = VARIANCE) -> Array:
    """rho of two Gaussians at ±half_distance at every level."""
    return half_distance**2 / (variance + np.exp(-log_snr))


def level_of(target: float, half_distance: float = M, variance: float = VARIANCE) -> float:
    """The log-SNR at which rho equals `target`."""
    return float(-np.log(half_distance**2 / target - variance))


def check(curve: MeasuredCurve, truth: Array, allowance: float, fitted: bool = False) -> None:
    """Within `allowance` plus three of the standard errors that the curve states, at every level."""
    error = (curve.high - curve.low) / 3.92
    slack = allowance + 3 * error + 1e-12
    if fitted:
        # next to chance a fitted direction may point the wrong way and lose twice the distance from chance
        slack += np.where(truth < 0.55, 2 * (truth - 0.5).clip(0), 0.0)
    np.testing.assert_array_less(np.abs(curve.value - truth), slack)
    assert error.max() < 2 * allowance + 0.02  # the test means something


# ---------------------------------------------------------------------------------- two Gaussians (T1)

PUBLISHED = {  # shared findings, A §7: rho -> I (nats), agreement = retention, Bayes accuracy
    0.1: (0.04765, 0.54567, 0.62409),
    1.0: (0.33683, 0.77520, 0.84134),
    4.0: (0.63272, 0.96570, 0.97725),
    9.0: (0.68930, 0.99792, 0.99865),
}


@pytest.mark.parametrize(("at", "values"), PUBLISHED.items())
def test_the_closed_forms_of_this_file_give_the_published_table(at: float, values: tuple[float, ...]) -> None:
    np.testing.assert_allclose(two_gaussians(at), values, atol=1e-5)
    np.testing.assert_allclose(simplex(2, np.sqrt(2 * at)), values[:2], atol=1e-5)  # two ways to one number


@pytest.fixture(scope="module")
def two(ask: Callable[..., Report]) -> Report:
    return ask(ExactMixture([[M, 0.0], [-M, 0.0]], covariances=VARIANCE))


@pytest.mark.parametrize(
    ("metric", "variant", "allowance"),
    [
        ("mutual-information", "", 0.01),
        ("mutual-information", "mse-difference", 0.01),
        ("mutual-information", "plug-in", 0.01),
        ("class-retention", "", 0.01),
        ("linear-probe", "", 0.02),
        ("linear-probe", "accuracy", 0.015),
        ("fork-entropy", "", 0.03),
        ("fork-entropy", "agreement", 0.01),
    ],
)
def test_two_gaussians(two: Report, metric: str, variant: str, allowance: float) -> None:
    curve = two.curve(metric, variant=variant)
    information, agreement, accuracy = np.array([two_gaussians(r) for r in rho(curve.log_snr)]).T
    truth = {
        ("mutual-information", variant): information,
        ("class-retention", ""): agreement,
        ("linear-probe", ""): information,
        ("linear-probe", "accuracy"): accuracy,
        ("fork-entropy", ""): np.log(2) - information,
        ("fork-entropy", "agreement"): agreement,
    }[metric, variant]
    check(curve, truth, allowance, fitted=variant == "accuracy")


def test_published_tolerances_hold_without_the_allowance_for_sampling(two: Report) -> None:
    """0.03 nats and 0.015, at 2 000 items, flat."""
    for metric, index, tolerance in (("mutual-information", 0, 0.03), ("class-retention", 1, 0.015)):
        curve = two.curve(metric)
        truth = np.array([two_gaussians(r)[index] for r in rho(curve.log_snr)])
        assert np.abs(curve.value - truth).max() < tolerance


def test_onsets_and_widths(two: Report) -> None:
    """I / H = 1/2 at rho = 1.0440; retention is half way from 1/2 to 1 where E tanh = 1/2."""
    half = level_of(rho_where(0.5))
    width = level_of(rho_where(0.9)) - level_of(rho_where(0.1))
    information = two.curve("mutual-information")
    assert information.log_snr_50 == pytest.approx(half, abs=0.1)
    assert information.width == pytest.approx(width, abs=0.25)
    assert two.curve("linear-probe").log_snr_50 == pytest.approx(half, abs=0.1)
    assert two.curve("fork-entropy").log_snr_50 == pytest.approx(half, abs=0.25)  # 300 items, one per log-SNR
    kept = level_of(brentq(lambda r: two_gaussians(r)[1] - 0.75, 0.01, 9))
    assert two.curve("class-retention").log_snr_50 == pytest.approx(kept, abs=0.1)


def test_identities_between_routes(two: Report) -> None:
    """fork entropy + I = H; two-fork agreement = retention; H - NLL(probe) <= I; accuracy <= E max p."""
    information, forks = two.curve("mutual-information"), two.curve("fork-entropy")
    shared = np.interp(forks.log_snr, information.log_snr, information.value)
    error = (forks.high - forks.low) / 3.92
    np.testing.assert_array_less(np.abs(forks.value + shared - np.log(2)), 0.04 + 3 * error)
    agreement, retention = two.curve("fork-entropy", variant="agreement"), two.curve("class-retention")
    error = (agreement.high - agreement.low) / 3.92
    np.testing.assert_array_less(
        np.abs(agreement.value - np.interp(agreement.log_snr, retention.log_snr, retention.value)),
        0.015 + 3 * error,
    )
    probe = two.curve("linear-probe")
    error = (probe.high - probe.low) / 3.92
    truth = np.array([two_gaussians(r)[0] for r in rho(probe.log_snr)])
    np.testing.assert_array_less(probe.value, truth + 3 * error + 1e-3)


def test_information_never_falls_and_never_exceeds_the_entropy(two: Report) -> None:
    for variant in ("", "mse-difference", "plug-in"):
        curve = two.curve("mutual-information", variant=variant)
        error = (curve.high - curve.low) / 3.92
        assert (curve.value <= np.log(2) + 3 * error + 1e-3).all()
        assert (np.maximum.accumulate(curve.value) - curve.value <= 0.02).all()
    row = next(row for row in two.rows if row["metric"] == "mutual-information")
    assert row["flags"] == []
    assert two.curve("mutual-information").ceiling == pytest.approx(np.log(2))


# ------------------------------------------------------------------------------------------- K classes


@pytest.mark.parametrize("classes", [4, 10])
def test_simplex(ask: Callable[..., Report], classes: int) -> None:
    """Equidistant classes: information, retention and fork entropy from one-dimensional integrals."""
    distance, variance = 2.0, 0.0625
    model = ExactMixture(preset="simplex", classes=classes, dim=classes, distance=distance, std=variance**0.5)
    report = ask(model, ("mutual-information", "class-retention", "fork-entropy"), n=2000)

    def truth(log_snr: Array) -> Array:
        return np.array([simplex(classes, c) for c in distance / np.sqrt(2 * (variance + np.exp(-log_snr)))]).T

    information, retention = report.curve("mutual-information"), report.curve("class-retention")
    expected = truth(information.log_snr)[0]
    check(information, expected, 0.01)
    assert np.abs(information.value - expected).max() < 0.03
    check(retention, truth(retention.log_snr)[1], 0.01)
    assert retention.floor == pytest.approx(1 / classes, abs=0.01)
    forks = report.curve("fork-entropy")
    check(forks, np.log(classes) - truth(forks.log_snr)[0], 0.04)
    half = brentq(lambda x: truth(np.array([x]))[0, 0] - np.log(classes) / 2, -6, 6)
    assert information.log_snr_50 == pytest.approx(half, abs=0.1)


def test_unequal_classes(ask: Callable[..., Report]) -> None:
    """Weights 0.85 and 0.15 on a line, by direct integration over x: entropy, information, retention and floor."""
    weights, means = np.array([0.85, 0.15]), np.array([M, -M])
    report = ask(ExactMixture(means[:, None], weights, VARIANCE), ("mutual-information", "class-retention"))

    def truth(log_snr: float) -> tuple[float, float]:
        spread = np.sqrt(VARIANCE + np.exp(-log_snr))
        x = np.linspace(-M - 9 * spread, M + 9 * spread, 20_001)
        joint = weights[:, None] * norm.pdf(x, means[:, None], spread)
        density = joint.sum(axis=0)
        p = joint / np.maximum(density, 1e-300)
        step = x[1] - x[0]
        left = -(density * (p * np.log(np.maximum(p, 1e-300))).sum(axis=0)).sum() * step
        return left, float((density * (p**2).sum(axis=0)).sum() * step)

    entropy = float(-(weights * np.log(weights)).sum())
    information, retention = report.curve("mutual-information"), report.curve("class-retention")
    check(information, np.array([entropy - truth(x)[0] for x in information.log_snr]), 0.01)
    check(retention, np.array([truth(x)[1] for x in retention.log_snr]), 0.01)
    assert information.ceiling == pytest.approx(entropy, abs=1e-9)
    # the floor is agreement at the noisiest level, where p has not moved from the weights
    assert retention.floor == pytest.approx((weights**2).sum(), abs=0.015)


# ------------------------------------------------------------------------- several factors, controls

COARSE, FINE = 6.0, 0.8


@pytest.fixture(scope="module")
def hierarchy(ask: Callable[..., Report]) -> Report:
    """Four modes ±COARSE u ± FINE v: two independent channels."""
    means = [[a * COARSE, b * FINE] for a in (1, -1) for b in (1, -1)]
    model = ExactMixture(means, covariances=0.05, factors={"coarse": [0, 0, 1, 1], "fine": [0, 1, 0, 1]}, dummy=4)
    return ask(model, ("mutual-information", "class-retention", "linear-probe"))


@pytest.mark.parametrize(("factor", "size"), [("coarse", COARSE), ("fine", FINE)])
def test_a_hierarchy_factorises(hierarchy: Report, factor: str, size: float) -> None:
    """Each factor is a two-Gaussian problem of its own, with its own emergence level."""
    for metric, index in (("mutual-information", 0), ("class-retention", 1), ("linear-probe", 0)):
        curve = hierarchy.curve(metric, factor)
        truth = np.array([two_gaussians(r)[index] for r in rho(curve.log_snr, size, 0.05)])
        check(curve, truth, 0.02 if metric == "linear-probe" else 0.01)
    half = level_of(rho_where(0.5), size, 0.05)
    assert hierarchy.curve("mutual-information", factor).log_snr_50 == pytest.approx(half, abs=0.1)


def test_two_levels_emerge_in_order_and_as_far_apart_as_they_should(hierarchy: Report) -> None:
    onsets = [hierarchy.curve("mutual-information", f).log_snr_50 for f in ("coarse", "fine")]
    assert onsets[0] is not None
    assert onsets[1] is not None
    truth = [level_of(rho_where(0.5), size, 0.05) for size in (COARSE, FINE)]
    assert onsets[1] - onsets[0] == pytest.approx(truth[1] - truth[0], abs=0.15)


def test_chain_rule(hierarchy: Report) -> None:
    """I(coarse, fine; x) = I(coarse; x) + I(fine; x) for independent channels: the joint head against the sum."""
    joint = hierarchy.curve("mutual-information", "joint")
    parts = [hierarchy.curve("mutual-information", f) for f in ("coarse", "fine", "dummy")]
    error = sum((c.high - c.low) / 3.92 for c in (joint, *parts))
    np.testing.assert_array_less(np.abs(joint.value - sum(c.value for c in parts)), 0.02 + 3 * error)


def test_a_dummy_factor_has_no_information(hierarchy: Report) -> None:
    """Drawn independently of x: whatever is reported for it is bias."""
    curve = hierarchy.curve("mutual-information", "dummy")
    error = (curve.high - curve.low) / 3.92
    np.testing.assert_array_less(np.abs(curve.value), 0.005 + 3 * error)
    assert curve.log_snr_50 is None
    assert np.abs(hierarchy.curve("linear-probe", "dummy").value).max() < 0.02
    np.testing.assert_allclose(hierarchy.curve("class-retention", "dummy").value, 0.25, atol=1e-5)
    row = next(r for r in hierarchy.rows if (r["metric"], r["factor"]) == ("mutual-information", "dummy"))
    assert row["scalar_notes"]["log_snr_50"] == "never reaches 50% of the way from floor to ceiling"


# --------------------------------------------------------------------------- settings, black boxes


def test_the_integral_does_not_depend_on_the_grid(two: Report, ask: Callable[..., Report]) -> None:
    """Half the nodes, and a grid that starts later: the residual below it is added back."""
    model = ExactMixture([[M, 0.0], [-M, 0.0]], covariances=VARIANCE)
    for grid in ((-8.0, 9.0, 35), (-4.0, 9.0, 53)):
        curve = ask(model, ("mutual-information",), grid=grid).curve("mutual-information")
        np.testing.assert_allclose(curve.log_snr, np.linspace(*grid))
        check(curve, np.array([two_gaussians(r)[0] for r in rho(curve.log_snr)]), 0.01)


class Disguised(DiffusionModel):
    """A perfect model of the ordinary kind: the exact denoiser, without saying so."""

    name = "disguised"
    family = "toy"

    def __init__(self, inner: ExactMixture) -> None:
        self.inner, self.shape, self.sigma_range, self.factors = inner, inner.shape, (0.005, 200.0), inner.factors

    def load(self, device: str = "cpu", dtype: str = "float32") -> None: ...

    def denoise(self, x, sigma, labels=None):  # type: ignore[no-untyped-def]
        return self.inner.denoise(x, sigma, labels)


def test_a_perfect_black_box_gives_the_same_numbers(ask: Callable[..., Report]) -> None:
    """No posterior, no Rao–Blackwell, no control variate: the same means, with honest wider intervals."""
    source = ExactMixture([[M, 0.0], [-M, 0.0]], covariances=VARIANCE)
    report = ask(Disguised(source), dataset=DrawnData(source, test=2000, train=2000))
    for metric, index, allowance in (
        ("mutual-information", 0, 0.01),
        ("class-retention", 1, 0.01),
        ("linear-probe", 0, 0.02),
    ):
        curve = report.curve(metric)
        check(curve, np.array([two_gaussians(r)[index] for r in rho(curve.log_snr)]), allowance)
    row = next(row for row in report.rows if row["metric"] == "mutual-information")
    assert row["extra"]["form"] == "filter"
    variants = ["", "filter-bound", "mixture", "mse-difference", "plug-in"]
    assert [curve["variant"] for curve in row["curves"]] == variants
    assert row["n_items"] == 2000


@pytest.mark.parametrize(
    ("metric", "index", "half", "n"),
    [
        ("mutual-information", 0, rho_where(0.5), 400),
        ("class-retention", 1, brentq(lambda r: two_gaussians(r)[1] - 0.75, 0.01, 9), 150),
    ],
)
def test_intervals_cover_the_truth(
    ask: Callable[..., Report], metric: str, index: int, half: float, n: int
) -> None:
    """50 seeds: 95 % intervals of the curve where it moves, and of the onset, cover 90 % or more.

    (The default grid: on a coarser one the straight line between levels misses the onset by half an interval.)
    (At the ceiling, where nothing but rare misses is left to resample, no bootstrap interval holds its level.)
    """
    model = ExactMixture([[M], [-M]], covariances=VARIANCE)
    turns = UTurnSettings(low=-4.0, high=3.0, every=1.0, steps_per_level=4, end=6.0, draws=1)
    settings = Settings(probe_items=4, bootstrap=200, batch=16384, sweep=SweepSettings(), u_turn=turns)
    levels = np.array([-3.0, -2.0, -1.0, 0.0])
    truth, onset = np.array([two_gaussians(r)[index] for r in rho(levels)]), level_of(half)
    values, onsets = 0, 0
    for seed in range(50):
        report = ask(model, (metric,), n=n, seed=seed, settings=settings)
        curve, fifty = report.curve(metric), report.rows[0]["scalars"]["log_snr_50"]
        low, high = (np.interp(levels, curve.log_snr, edge) for edge in (curve.low, curve.high))
        values += int(((low <= truth) & (truth <= high)).sum())
        onsets += fifty["low"] <= onset <= fifty["high"]
    assert values >= 0.9 * 50 * len(levels)
    assert onsets >= 0.9 * 50
