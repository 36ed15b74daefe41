"""Susceptibility: estimators against planted correlations, the metric on records, controls without hierarchy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from benchsuite_metrics.susceptibility import (
    PEAK_FLAG,
    Susceptibility,
    correlation_function,
    correlation_length,
    find_peak,
    ratio_of_means,
    susceptibility,
)
from benchsuite_models.exact_gaussian import ExactGaussian
from benchsuite_models.exact_mixture import ExactMixture
from benchsuite_models.exact_rhm import ExactRHM, epsilon_beliefs
from numpy.typing import NDArray

from benchsuite import NotApplicableError, Record, UsageError, measure
from benchsuite.boards import boards
from benchsuite.protocols.settings import UTurnSettings
from benchsuite.request import Settings
from benchsuite.results import parse_results

Array = NDArray[Any]
P = 12
LINE = np.abs(np.arange(P)[:, None] - np.arange(P)).astype(float)


def blocks(b: int, items: int = 1500, turns: int = 4, seed: int = 0) -> Array:
    """Changes in rigid blocks of b neighbours; every item and block changes with a probability of its own."""
    rng = np.random.default_rng(seed)
    rate = rng.uniform(0.1, 0.9, (items, 1, P // b))
    return np.repeat(rng.random((items, turns, P // b)) < rate, b, axis=2)


def standard_error(values: Array) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))


# --------------------------------------------------------------------------------------- estimators


def half_sum(changed: Array) -> Array:
    """The published script's: pairs i <= j only."""
    x = changed - changed.mean(axis=1, keepdims=True)
    c = np.einsum("nri,nrj->nij", x, x)
    return ratio_of_means(np.triu(c).sum(axis=(1, 2)), np.einsum("nii->n", c))


def between_items(changed: Array) -> Array:
    """Covariances over items and U-turns alike: items that change a lot correlate everything."""
    flat = changed.reshape(1, -1, changed.shape[2])
    return susceptibility(flat)


def own_ratios(changed: Array) -> Array:
    """A ratio per item instead of a ratio of means; items in which nothing changed are left out."""
    x = changed - changed.mean(axis=1, keepdims=True)
    together, alone = (x.sum(axis=2) ** 2).sum(axis=1), (x**2).sum(axis=(1, 2))
    return together[alone > 0] / alone[alone > 0]


def finds_block_sizes(estimator: Callable[[Array], Array]) -> bool:
    """Whether chi of rigid blocks of b = 1, 2, 3, 4, P is b, within 5 standard errors."""
    for b in (1, 2, 3, 4, P):
        values = estimator(blocks(b).astype(float))
        error = standard_error(values) if len(values) > 1 else 0.0
        if abs(values.mean() - b) > 5 * error + 1e-9:
            return False
    return True


def test_chi_is_the_size_of_the_blocks() -> None:
    assert finds_block_sizes(susceptibility)
    assert 5 * standard_error(susceptibility(blocks(2))) < 0.5  # so the half sum's 1.5 is told from 2


@pytest.mark.parametrize("wrong", [half_sum, between_items])
def test_other_definitions_do_not_find_it(wrong: Callable[[Array], Array]) -> None:
    assert not finds_block_sizes(wrong)


def test_the_half_sum_is_halfway_to_one() -> None:
    full, half = susceptibility(blocks(4)).mean(), half_sum(blocks(4)).mean()
    assert half == pytest.approx((full + 1) / 2, rel=1e-12)


def test_the_ratio_is_of_means() -> None:
    """Items that hardly change weigh little: a mean of ratios would count them in full."""
    still, lively = np.zeros((50, 4, P)), blocks(P, items=50).astype(float)
    still[:, 0, 0] = 1.0  # one position, once: 1 in every such item
    both = np.concatenate([still, lively])
    c = [np.cov(item.T) for item in both]
    expected = sum(m.sum() for m in c) / sum(np.trace(m) for m in c)
    assert susceptibility(both).mean() == pytest.approx(expected, rel=1e-12)
    assert own_ratios(both).mean() < 0.9 * expected


def test_any_numbers_may_change_not_only_yes_or_no() -> None:
    rng = np.random.default_rng(3)
    covariance = np.array([[2.0, 0.9, 0.0], [0.9, 1.0, -0.3], [0.0, -0.3, 0.5]])
    x = rng.multivariate_normal(np.zeros(3), covariance, size=(4000, 3)) + rng.standard_normal((4000, 1, 3))
    values = susceptibility(x)
    assert values.mean() == pytest.approx(covariance.sum() / np.trace(covariance), abs=4 * standard_error(values))
    plus_minus = 2 * blocks(3).astype(float) - 1
    np.testing.assert_allclose(susceptibility(plus_minus), susceptibility(blocks(3)), rtol=1e-9)


def test_linearised_values_have_the_spread_of_the_ratio() -> None:
    """Their standard error against the scatter of chi over 300 repetitions."""
    runs = [susceptibility(blocks(3, items=60, seed=seed)) for seed in range(300)]
    scatter = np.std([values.mean() for values in runs], ddof=1)
    stated = np.mean([standard_error(values) for values in runs])
    assert stated == pytest.approx(scatter, rel=0.15)  # 300 repetitions: 4 %; second order in 1 / 60 items


def test_blocks_of_items_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = susceptibility(blocks(3)), correlation_function(blocks(3), LINE)
    monkeypatch.setattr("benchsuite_metrics.susceptibility.BLOCK", 7)
    np.testing.assert_allclose(susceptibility(blocks(3)), whole[0], rtol=1e-12)
    np.testing.assert_allclose(correlation_function(blocks(3), LINE)[1], whole[1][1], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("b", [1, 2, 3, 4])
def test_correlation_length_of_blocks(b: int) -> None:
    """The mean distance of two positions of one block of neighbours is (b² - 1) / 3b."""
    values = correlation_length(blocks(b), LINE)
    assert values.mean() == pytest.approx((b**2 - 1) / (3 * b), abs=4 * standard_error(values) + 1e-12)


def test_correlation_function_of_blocks() -> None:
    """C(r) / C(0) is the share of pairs at distance r that sit in one block."""
    r, c = correlation_function(blocks(3, items=6000), LINE)
    np.testing.assert_array_equal(r, np.arange(1, P))
    share = [8 / 11, 4 / 10, *[0.0] * 9]
    np.testing.assert_allclose(c, share, atol=0.04)


def test_many_distances_are_binned() -> None:
    places = np.stack(np.divmod(np.arange(100), 10), axis=1).astype(float)
    distances = np.linalg.norm(places[:, None] - places, axis=2)
    changed = np.repeat(np.random.default_rng(0).random((30, 5, 1)) < 0.5, 100, axis=2)
    r, c = correlation_function(changed, distances)
    np.testing.assert_array_equal(r, np.arange(1, 14))  # the diagonal is 12.7
    np.testing.assert_allclose(c, 1.0)


def test_nothing_changed_is_undefined() -> None:
    nothing = np.zeros((5, 3, P), dtype=bool)
    assert np.isnan(susceptibility(nothing)).all()
    assert np.isnan(correlation_length(nothing, LINE)).all()
    assert np.isnan(correlation_function(nothing, LINE)[1]).all()


@pytest.mark.parametrize("shape", [(5, 1, 4), (5, 4)])
def test_one_u_turn_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"must be \(items, U-turns >= 2, positions\), got \(5, "):
        susceptibility(np.zeros(shape))


# ----------------------------------------------------------------------------------------- records

LEVELS = np.array([-4.0, -2.0, 0.0, 2.0, 4.0])


def record(changed: Array, antithetic: bool = False, distances: Array | None = LINE) -> Record:
    """Of changes (N, U, R, P), stored draw by draw."""
    n, levels, draws, positions = changed.shape
    rows = changed.transpose(2, 0, 1, 3).reshape(draws * n, levels, positions)
    items = np.array([f"item-{i}" for i in range(n)] * draws)
    arrays = {"log_snr": LEVELS[:levels], "items": items, "changed": rows}
    if distances is not None:
        arrays["position_distances"] = distances
    meta = {"antithetic": antithetic, "positions": "token", "steps": 9, "method": "sde-2m", "spacing": 0.25}
    return Record("u_turn", arrays, meta)


def peaked(height: int = 4) -> Array:
    """Rigid blocks of 1, 2, `height`, 2, 1 at five levels."""
    return np.stack([blocks(b, items=300, seed=b) for b in (1, 2, height, 2, 1)], axis=1)


def test_curves_of_a_record() -> None:
    chi, length = Susceptibility().compute({"u_turn": record(peaked())})
    np.testing.assert_allclose(chi.per_item.mean(axis=0), [1, 2, 4, 2, 1], atol=0.3)
    assert (chi.factor, chi.floor, chi.ceiling, chi.variant) == ("", 1.0, P, "")
    assert chi.items == tuple(f"item-{i}" for i in range(300))
    assert chi.extra["independent_draws"] == 4
    assert np.shape(chi.extra["correlation"]) == (5, P - 1)
    assert chi.extra["distances"] == list(range(1, P))
    assert (length.variant, length.ceiling) == ("correlation-length", pytest.approx((P**2 - 1) / (3 * P)))


def test_a_peak_carries_its_flag() -> None:
    (chi, _) = Susceptibility().compute({"u_turn": record(peaked())})
    (flag,) = chi.flags
    assert flag.startswith(PEAK_FLAG)
    assert "see how C(r) falls" in flag
    assert chi.extra["peak"]["log_snr"] == pytest.approx(0.0, abs=0.2)
    (chi,) = Susceptibility().compute({"u_turn": record(peaked(), distances=None)})
    assert "no distances to tell by" in chi.flags[0]


def test_a_maximum_at_the_end_or_within_the_errors_is_no_peak() -> None:
    rising = np.stack([blocks(b, items=100, seed=b) for b in (1, 1, 2, 3, 4)], axis=1)
    level = np.stack([blocks(2, items=100, seed=b) for b in range(5)], axis=1)
    for changed in (rising, rising[:, ::-1], level):
        (chi, _) = Susceptibility().compute({"u_turn": record(changed)})
        assert chi.extra["peak"] is None
        assert not chi.flags


def test_the_vertex_lies_between_levels() -> None:
    grid = np.linspace(-4, 4, 9)
    curve = np.maximum(6 - (grid - 0.3) ** 2, 0.0)
    found = find_peak(np.tile(curve, (6, 1)), tuple("abcdef"), grid)
    assert found is not None
    assert found["log_snr"] == pytest.approx(0.3)


def test_of_antithetic_draws_every_other_one_is_used() -> None:
    """The second of a pair is the first's opposite here, which would spoil every covariance."""
    changed = peaked()
    pairs = np.stack([changed, ~changed], axis=3).reshape(300, 5, 8, P)
    (chi, _) = Susceptibility().compute({"u_turn": record(pairs, antithetic=True)})
    (expected, _) = Susceptibility().compute({"u_turn": record(changed)})
    np.testing.assert_allclose(chi.per_item, expected.per_item)


@pytest.mark.parametrize(("draws", "antithetic"), [(1, False), (1, True), (2, True)])
def test_too_few_independent_draws_say_what_to_set(draws: int, antithetic: bool) -> None:
    with pytest.raises(
        NotApplicableError, match=r"found 1 of them; set u_turn.draws=16 and u_turn.antithetic=false"
    ):
        Susceptibility().compute({"u_turn": record(peaked()[:, :, :draws], antithetic)})


def test_levels_where_nothing_changed() -> None:
    changed = peaked()
    changed[:, 3:] = False
    (chi, _) = Susceptibility().compute({"u_turn": record(changed)})
    assert np.isfinite(chi.per_item[:, :3]).all()
    assert np.isnan(chi.per_item[:, 3:]).all()
    assert chi.flags[-1] == "undefined from log-SNR 2.0, where nothing changed"
    assert chi.extra["correlation"][4] == [None] * (P - 1)


def test_a_readout_without_positions_is_not_applicable() -> None:
    bare = record(peaked())
    del bare.arrays["changed"]
    with pytest.raises(NotApplicableError, match="no positions"):
        Susceptibility().compute({"u_turn": bare})


# ---------------------------------------------------------------------------------------- controls


def one_shot(model: Any, log_snr: Array, items: int, turns: int) -> Array:
    """Changes (N, U, R, P) in exact U-turns: noise, then one draw from the posterior."""
    generator = torch.Generator().manual_seed(1)
    model.load()
    x0, _ = model.sample(items, generator)
    before = model.positions(x0.double())
    found = []
    for level in log_snr:
        sigma = float(np.exp(-level / 2))
        x = x0.double().repeat_interleave(turns, dim=0)
        noised = x + sigma * torch.randn(x.shape, generator=generator, dtype=torch.float64)
        back = model.sample_posterior(noised, noised.new_full((len(x),), sigma), generator)
        after = model.positions(back).reshape(items, turns, *before.shape[1:])
        change = after - before[:, None]
        found.append(change.norm(dim=-1) if before.dim() == 3 else change)
    return torch.stack(found, dim=1).numpy()


def test_a_gaussian_field_has_no_peak() -> None:
    """Exact U-turns of the power-law field: the closed form at every level, growing to the noisy end."""
    model, levels = ExactGaussian(dim=64), np.arange(-8.0, 5.0, 2.0)
    changed = one_shot(model, levels, 150, 8)
    made = record(changed, distances=model.position_distances())
    made.arrays["log_snr"] = levels
    (chi, length) = Susceptibility().compute({"u_turn": made})
    truth = model.susceptibility(np.exp(-levels / 2))
    error = chi.per_item.std(axis=0, ddof=1) / np.sqrt(150)
    assert (np.abs(chi.per_item.mean(axis=0) - truth) < 4 * error).all()
    assert error.max() < 0.3 < truth.max() - truth.min()
    assert (np.diff(truth) < 0).all()
    assert chi.extra["peak"] is None
    assert not chi.flags
    steps = np.diff(chi.per_item, axis=1)
    assert (steps.mean(axis=0) < 4 * steps.std(axis=0, ddof=1) / np.sqrt(150)).all()
    assert length.per_item[:, 0].mean() > 1.0


def test_a_flat_mixture_peaks_without_hierarchy_and_its_correlations_do_not_fall() -> None:
    """64 unrelated templates: chi peaks where the template is lost, at every distance alike."""
    model, levels = ExactMixture(preset="flat", classes=64), np.arange(-8.0, 5.0, 1.5)
    changed = one_shot(model, levels, 150, 8)
    made = record(changed, distances=None)
    made.arrays["log_snr"] = levels
    (chi,) = Susceptibility().compute({"u_turn": made})
    mean = chi.per_item.mean(axis=0)
    assert mean.max() > 3 * max(mean[0], mean[-1])
    assert chi.flags[0].startswith(PEAK_FLAG)
    line = np.abs(np.arange(32)[:, None] - np.arange(32)).astype(float)
    _, c = correlation_function(changed[:, int(mean.argmax())], line)
    near, far = c[:8].mean(), c[-8:].mean()
    assert near == pytest.approx(far, rel=0.25)
    assert far > 0.2


def test_correlations_in_a_hierarchy_fall_with_distance() -> None:
    """At its threshold, the default grammar under the epsilon-process: unlike those of the templates above."""
    model = ExactRHM(v=16, m=4, s=2, L=5)
    model.load()
    x0, _ = model.sample(100, torch.Generator().manual_seed(0))
    tokens = model.positions(x0)
    beliefs = epsilon_beliefs(tokens.repeat_interleave(12, dim=0), 16, 0.75)
    drawn = model.sample_from_beliefs(beliefs, torch.Generator().manual_seed(1))[-1]
    changed = (drawn.reshape(100, 12, -1) != tokens[:, None]).numpy()
    r, c = correlation_function(changed, model.position_distances())
    np.testing.assert_array_equal(r, [1, 3, 7, 15, 31])
    assert (np.diff(c) < 0).all()
    assert c[0] > 4 * c[-1]
    assert susceptibility(changed).mean() > 2.5


# ------------------------------------------------------------------------------- from end to end


def test_measured_through_the_engine() -> None:
    """Reverse SDE instead of one shot; a row that is about no factor goes through every report's reader."""
    turns = UTurnSettings(low=-6.0, high=3.0, every=3.0, steps_per_level=12, draws=6, antithetic=False)
    settings = Settings(batch=4096, bootstrap=100, probe_items=4, u_turn=turns)
    report = measure("exact-gaussian", None, [Susceptibility()], n=40, settings=settings)
    (row,) = report.rows
    assert (row["status"], row["factor"], row["scalars"]["log_snr_50"]) == ("ok", "", None)
    curve = report.curve("susceptibility")
    truth = ExactGaussian().susceptibility(np.exp(-curve.log_snr / 2))
    error = (curve.high - curve.low) / 3.92
    assert (np.abs(curve.value - truth) < 4 * error + 0.05).all()
    results = parse_results(report.document)
    assert [r.metric for board in boards(results) for line in board.lines for r in line.rows.values()] == [
        "susceptibility"
    ]


def test_a_run_without_enough_draws_is_a_row_that_says_so() -> None:
    settings = Settings(probe_items=4, u_turn=UTurnSettings(low=-2.0, high=2.0, every=2.0, draws=2))
    (row,) = measure("exact-gaussian", None, [Susceptibility()], n=4, settings=settings).rows
    assert (row["status"], row["factor"]) == ("not_applicable", "")
    assert "u_turn.antithetic=false" in row["reason"]
