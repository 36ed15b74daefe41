"""Mutual information from two heads: the integral, its forms, its flags, and models that mislead it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from benchsuite_metrics.mutual_information import MutualInformation, cumulative_information
from benchsuite_models.exact_mixture import ExactMixture
from closed_forms import two_gaussians
from numpy.typing import NDArray
from toys import SMALL, DrawnData, ToyData, Unconditional

from benchsuite import Curve, DiffusionModel, NotApplicableError, Record, measure
from benchsuite.api import Report
from benchsuite.discovery import Catalog
from benchsuite.protocols.settings import SweepSettings
from benchsuite.request import Settings

Array = NDArray[np.float64]
M, VARIANCE = 1.3, 0.16
GRID = np.linspace(-8, 9, 69)


# ------------------------------------------------------------------------------------------ integral


def test_integral_of_a_linear_gaussian_channel() -> None:
    """I = ½ ln(1 + snr) has the rate ½ snr / (1 + snr): exact at every level, from far fewer nodes than we use."""
    for nodes, absolute, relative in ((69, 3e-4, 1e-3), (18, 0.015, 0.05)):
        grid = np.linspace(-8, 9, nodes)
        rate = 0.5 / (1 + np.exp(-grid))
        found = cumulative_information(np.stack([rate, 3 * rate]), grid)
        truth = 0.5 * np.log1p(np.exp(grid))
        np.testing.assert_allclose(found, np.stack([truth, 3 * truth]), atol=absolute)
        # at low SNR items hardly differ, so that a bias as small as the value itself would show
        np.testing.assert_allclose(found[0, grid < 0], truth[grid < 0], rtol=relative)


def test_what_lies_below_the_grid_is_added() -> None:
    """A grid that starts late still gives the whole: below it information is proportional to the SNR."""
    late = GRID[GRID >= -5]
    found = cumulative_information(0.5 / (1 + np.exp(-late)), late)
    np.testing.assert_allclose(found, 0.5 * np.log1p(np.exp(late)), atol=2e-4)
    assert found[0] == 0.5 / (1 + np.exp(5.0))


def test_two_levels_are_enough_to_integrate() -> None:
    np.testing.assert_allclose(cumulative_information(np.array([1.0, 3.0]), np.array([0.0, 0.5])), [1.0, 2.0])


# ----------------------------------------------------------------------------------- forms and flags


def record(rates: dict[str, Array], entropy: float = np.log(2), exact: bool = False) -> Record:
    """A sweep of one factor with given errors and gaps (M, T)."""
    items = np.array([f"i{n}" for n in range(len(rates["gap"]))])
    arrays = {
        "log_snr": GRID,
        "items": items,
        "error/unconditional": rates["plain"],
        "error/class": rates["given"],
        "gap/class": rates["gap"],
    }
    for array in arrays.values():
        array.flags.writeable = False
    meta = {"heads": ["class"], "entropy": {"class": entropy}, "exact": exact, "factors": {"class": 2}}
    return Record("noise_sweep", arrays, meta)


def computed(made: Record, filtered: Record | None = None) -> list[Curve]:
    """Curves of a sweep and, unless the factor has too many values, of a label filter."""
    nothing = Record("label_filter", {"log_snr": GRID, "items": made["items"]}, {"filtered": []})
    return MutualInformation().compute({"noise_sweep": made, "label_filter": filtered or nothing})


def forms(made: Record) -> dict[str, Array]:
    return {c.variant: c.per_item.mean(axis=0) for c in computed(made)}


def test_the_published_form_is_the_difference_of_errors() -> None:
    """Rates of the linear channel: the difference of errors gives I whatever the gap between the heads says."""
    rate = np.tile(1 / (1 + np.exp(-GRID)), (4, 1))
    made = record({"plain": 5 + rate, "given": np.full((4, 69), 5.0), "gap": 4 * rate}, entropy=10.0)
    found = forms(made)
    truth = 0.5 * np.log1p(np.exp(GRID))
    assert found.keys() == {"", "plug-in"}
    np.testing.assert_allclose(found[""], truth, atol=1e-4)
    np.testing.assert_allclose(found["plug-in"], 4 * truth, atol=4e-4)


def test_on_an_exact_population_the_quietest_combination_is_published() -> None:
    """Two unbiased forms with opposite noise: their mean has none."""
    noise = np.random.default_rng(0).normal(size=(500, 1)) * np.ones((1, 69))
    rate = np.tile(1 / (1 + np.exp(-GRID)), (500, 1))
    made = record(
        {"plain": 5 + rate + noise, "given": np.full((500, 69), 5.0), "gap": rate - noise}, 10.0, exact=True
    )
    curves = {c.variant: c for c in computed(made)}
    assert curves.keys() == {"", "mse-difference", "plug-in"}
    assert curves[""].extra["form"] == "control-variate"
    assert curves[""].per_item.std(axis=0).max() < 1e-6
    np.testing.assert_allclose(curves[""].per_item.mean(axis=0), 0.5 * np.log1p(np.exp(GRID)), atol=1e-3)
    # repeated ids are one item: combining must not be fooled by noise that cancels within it
    assert curves["plug-in"].per_item.std(axis=0).max() > 0.4


def test_what_the_posterior_leaves_open_quiets_the_spread_of_the_heads() -> None:
    """Their integrals run past H with the noise of few items; where the posterior is certain none is left."""
    rng = np.random.default_rng(0)
    spread = 0.1 * (1 + 0.5 * rng.normal(size=(6, 1))) * np.ones((1, 69))
    made = record({"plain": 5 + 2 * spread, "given": np.full((6, 69), 5.0), "gap": spread}, exact=True)
    made.arrays["spread/class"] = spread
    odds = np.exp(2 * (GRID + 3) + 0.3 * rng.normal(size=(6, 1)))
    p = np.where(GRID < 0, 0.5 + 0.5 * odds / (1 + odds), 1.0)
    made.arrays["posterior/class"] = np.stack([p, 1 - p], axis=2)
    curves = {c.variant: c for c in computed(made)}
    assert curves.keys() == {"", "rao-blackwell", "mse-difference", "plug-in"}
    assert curves[""].extra["form"] == "posterior"
    assert curves["rao-blackwell"].per_item.mean(axis=0).max() > np.log(2) + 0.05
    integral = 0.5 * spread[:, :1] * (1 + GRID + 8)  # of a constant rate, and as much again below the grid
    np.testing.assert_allclose(curves["rao-blackwell"].per_item, integral, atol=1e-9)
    np.testing.assert_allclose(curves[""].per_item[:, GRID >= 0], np.log(2), atol=1e-12)
    assert not curves[""].flags


def test_what_is_known_jointly_quiets_the_mse_difference() -> None:
    """All factors together have too many values for a posterior; what it leaves open will do."""
    rng = np.random.default_rng(0)
    noisy = 0.1 * (1 + 0.5 * rng.normal(size=(6, 69)))
    made = record({"plain": 5 + noisy, "given": np.full((6, 69), 5.0), "gap": noisy}, exact=True)
    made.arrays["information/class"] = np.where(GRID < 0, 0.3 + 0.1 * rng.normal(size=(6, 1)), np.log(2))
    curves = {c.variant: c for c in computed(made)}
    assert curves.keys() == {"", "mse-difference", "plug-in"}
    assert curves[""].extra["form"] == "posterior"
    np.testing.assert_allclose(curves[""].per_item[:, GRID >= 0], np.log(2), atol=1e-12)
    assert curves["mse-difference"].per_item[:, -1].std() > 0.01


def filtered(p: Array, labels: list[int], **facts: Any) -> Record:
    """A label filter of one factor that gave p (M, T, K) to its values, and its coarse half."""
    items = np.array([f"i{n}" for n in range(len(p))])
    arrays = {
        "log_snr": GRID[: p.shape[1]],
        "items": items,
        "labels/class": np.array(labels),
        "filter/class": np.log(p).astype(np.float32),
        "coarse/class": np.log(p).astype(np.float32),
        "mixture/class": np.full(p.shape[:2], 2.0),
    }
    return Record("label_filter", arrays, {"filtered": ["class"], "exact": False, "spacing": 0.25} | facts)


def test_the_log_score_of_the_filter_is_published() -> None:
    """H + ln pi(true), twice the fine minus the coarse one; the integrals stay beside it."""
    rate = np.tile(1 / (1 + np.exp(-GRID)), (2, 1))
    sweep = record({"plain": 5 + rate, "given": np.full((2, 69), 5.0), "gap": rate}, entropy=1.0)
    p = np.array([[[0.5, 0.5], [0.8, 0.2]], [[0.5, 0.5], [0.4, 0.6]]])
    made = filtered(p, [0, 1])
    made.arrays["coarse/class"] = made["coarse/class"].copy()
    made.arrays["coarse/class"][:, 1] -= 0.125
    curves = {c.variant: c for c in computed(sweep, made)}
    assert curves.keys() == {"", "filter-bound", "mixture", "mse-difference", "plug-in"}
    bound = 1.0 + np.log([[0.5, 0.8], [0.5, 0.6]])
    np.testing.assert_allclose(curves["filter-bound"].per_item, bound, atol=1e-6)
    np.testing.assert_allclose(curves[""].per_item, bound + np.array([0.0, 0.125]), atol=1e-6)
    np.testing.assert_allclose(curves["mixture"].per_item, [[1.0, 1.25]] * 2)  # the residual and a quarter of 1
    assert curves[""].extra["form"] == "filter"
    assert curves[""].log_snr.tolist() == GRID[:2].tolist()


@pytest.mark.parametrize(("spacing", "chains"), [(0.25, 2), (0.125, 1)])
def test_the_luck_of_one_coarse_chain_is_not_in_every_other_level(spacing: float, chains: int) -> None:
    """Where every level is kept, neighbours are of two chains of coarse steps; else all may be of one."""
    rate, levels = np.zeros((1, 69)), np.arange(21)
    fine = 0.5 + 0.4 * levels / 20
    behind = 0.1 + 0.002 * levels  # of both chains
    luck = np.where(levels % 2 == 0, 0.05, -0.05)
    made = filtered(np.stack([fine, 1 - fine], axis=1)[None], [0], spacing=spacing)
    coarse = made["filter/class"].astype(np.float64)
    coarse[0, :, 0] -= behind + luck
    made.arrays["coarse/class"] = coarse
    (published,) = [
        c for c in computed(record({"plain": rate, "given": rate, "gap": rate}), made) if not c.variant
    ]
    added = published.per_item[0] - np.log(2) - np.log(fine)
    expected = behind + luck
    if chains == 2:
        expected = behind.copy()  # a straight line is its own mean
        expected[0] += luck[0]  # where both filters start
        expected[-1] = behind[-2:].mean()
    np.testing.assert_allclose(added, expected, atol=1e-6)


def test_exact_posteriors_take_the_label_noise_out_of_the_score() -> None:
    rate = np.zeros((1, 69))
    sweep = record({"plain": rate, "given": rate, "gap": rate}, np.log(2), exact=True)
    p = np.array([[[0.5, 0.5], [0.9, 0.1]]])
    made = filtered(p, [1], exact=True)
    made.arrays["posterior/class"] = p.astype(np.float32)
    (published,) = [c for c in computed(sweep, made) if not c.variant]
    assert published.per_item[0, 1] == pytest.approx(np.log(2) + 0.9 * np.log(0.9) + 0.1 * np.log(0.1))


def test_a_tail_above_the_entropy_is_flagged_and_not_clipped() -> None:
    rate = np.tile(1 / (1 + np.exp(-GRID)), (3, 1))
    made = record({"plain": 5 + rate, "given": np.full((3, 69), 5.0), "gap": rate}, entropy=1.0)
    published = next(c for c in computed(made) if not c.variant)
    assert published.per_item.max() > 4
    assert published.ceiling == 1.0  # onsets are taken against H, not against this maximum
    assert published.flags == ("exceeds H by 3.50 nats at log-SNR 9.0",)


def test_falling_information_is_flagged() -> None:
    rate = np.where(GRID < 0, 0.2, -0.1)[None].repeat(3, axis=0)
    made = record({"plain": 5 + rate, "given": np.full((3, 69), 5.0), "gap": np.abs(rate)}, entropy=2.0)
    published, gap = computed(made)
    assert published.variant == ""
    assert len(published.flags) == 1
    assert published.flags[0].startswith("falls by 0.4")
    assert published.flags[0].endswith("though information cannot")
    assert gap.flags == ()


def test_what_chance_explains_is_not_flagged() -> None:
    """The same mean of 0.3 nats too much and 0.4 nats of fall, once in every item and once in a few of many."""
    rate = np.where(GRID < 0, 0.2, -0.1)
    shared = np.repeat(rate[None], 40, axis=0)
    rare = np.zeros_like(shared)
    rare[:2] = 20 * rate
    found = []
    for given in (shared, rare):
        made = record({"plain": 50 + given, "given": np.full_like(given, 50.0), "gap": np.abs(given)}, entropy=0.5)
        published = next(c for c in computed(made) if not c.variant)
        found.append(tuple(flag.partition(" by ")[0] for flag in published.flags))
    assert found == [("exceeds H", "falls"), ()]


def test_twice_the_entropy_is_flagged_whatever_the_error() -> None:
    rate = np.zeros((40, 69))
    rate[0] = 20.0
    made = record({"plain": 50 + rate, "given": np.full_like(rate, 50.0), "gap": rate}, entropy=0.9)
    published = next(c for c in computed(made) if not c.variant)
    assert [flag.partition(" by ")[0] for flag in published.flags] == ["exceeds H"]


def given_up(p: Array, **facts: Any) -> tuple[str, ...]:
    """Flags of the published curve for probabilities (M, T) of the true one of two values."""
    rate = np.zeros((len(p), 69))
    made = filtered(np.stack([p, 1 - p], axis=2), [0] * len(p), **facts)
    sweep = record({"plain": rate, "given": rate, "gap": rate})
    return next(c for c in computed(sweep, made) if not c.variant).flags


def test_a_value_given_up_after_it_was_certain_is_flagged_in_as_few_as_one_path() -> None:
    p = np.tile([0.5, 0.9, 0.9999, 0.9999], (60, 1))
    assert given_up(p) == ()
    p[7] = [0.5, 0.9995, 0.9, 1e-3]
    said = "gives up the true value in {} of 60 paths where it had been all but certain"
    assert given_up(p) == (said.format(1),)
    p[9] = [0.5, 0.9995, 0.3, 0.9]  # and came back
    assert given_up(p) == (said.format(2),)
    p[7], p[9] = [0.5, 0.99, 0.9, 1e-3], [0.5, 1e-3, 0.3, 0.9]  # never as certain; of another value
    assert given_up(p) == ()


def test_a_filter_that_is_right_is_seldom_said_to_give_up() -> None:
    """Wonham's filter of X = ±1 seen in dY = X dt + dW, which is exact: P(1) = sigmoid(2 Y)."""
    generator, runs, paths = np.random.default_rng(0), 100, 20
    steps = 0.15 + 0.15**0.5 * generator.standard_normal((runs, paths, 69))
    y = steps.cumsum(axis=2)
    right, overconfident = (
        sum(bool(given_up(np.clip(1 / (1 + np.exp(-k * run)), 1e-9, 1 - 1e-9))) for run in y) for k in (2, 5)
    )
    assert right <= 5 + 3 * (100 * 0.05 * 0.95) ** 0.5
    assert overconfident > 50


def test_a_model_without_conditional_head() -> None:
    made = record({name: np.zeros((2, 69)) for name in ("plain", "given", "gap")})
    made.meta["heads"] = []
    with pytest.raises(NotApplicableError, match="no conditional head"):
        computed(made)


# ------------------------------------------------------------------------------- models that mislead


class Wrapped(DiffusionModel):
    """A perfect denoiser with a planted fault; nothing about it says that it is exact."""

    name = "wrapped"
    family = "toy"

    def __init__(self, fault: str, size: float = 0.0) -> None:
        self.inner = ExactMixture([[M, 0.0], [-M, 0.0]], covariances=VARIANCE)
        self.fault, self.size = fault, size
        self.shape, self.sigma_range, self.factors = (2,), (0.005, 200.0), self.inner.factors

    def load(self, device: str = "cpu", dtype: str = "float32") -> None: ...

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        null = torch.full((len(x), 1), -1) if labels is None else labels
        if self.fault == "deaf":
            null = torch.full_like(null, -1)
        elif self.fault == "wrong class":
            null = torch.where(null >= 0, 1 - null, null)
        clean = self.inner.denoise(x, sigma, null)
        if self.fault == "disagreement":
            # errors of power ‖e‖² = size (in noise units) in both heads, independent of each other and of x0:
            # signs that look random in x, another pattern for each head
            frequency = torch.where(null < 0, 7919.0, 9973.0)
            sign = torch.where(torch.sin(frequency * x.double()) > 0, 1.0, -1.0)
            clean = clean + sigma[:, None] * (self.size / 2) ** 0.5 * sign.to(x.dtype)
        return clean


@pytest.fixture(scope="module")
def ask(first_party: Catalog) -> Callable[..., Report]:
    settings = Settings(probe_items=4, bootstrap=200, batch=16384, sweep=SweepSettings(draws=2))

    def measured(model: DiffusionModel, n: int = 3000) -> Report:
        data = DrawnData(ExactMixture([[M, 0.0], [-M, 0.0]], covariances=VARIANCE), test=n, train=1000)
        return measure(
            model, data, ("mutual-information",), n=n, settings=settings, device="cpu", catalog=first_party
        )

    return measured


def truth(log_snr: Array) -> Array:
    return np.array([two_gaussians(M**2 / (VARIANCE + np.exp(-x)))[0] for x in log_snr])


def test_disagreeing_heads_fool_the_plug_in_form_only(ask: Callable[..., Report]) -> None:
    """Independent head errors of total power d² add ½ · 2 d² per unit log-SNR to the plug-in integrand: d² = 0.06
    over 17 units and the residual is 1.08 nats of nothing. The other forms cancel them.
    """
    power = 0.06
    report = ask(Wrapped("disagreement", power), n=1500)
    for variant in ("", "filter-bound", "mixture", "mse-difference"):
        curve = report.curve("mutual-information", variant=variant)
        error = (curve.high - curve.low) / 3.92
        np.testing.assert_array_less(np.abs(curve.value - truth(curve.log_snr)), 0.01 + 3 * error)
    plug_in = report.curve("mutual-information", variant="plug-in")
    planted = power * (plug_in.log_snr - plug_in.log_snr[0] + 1)
    error = (plug_in.high - plug_in.low) / 3.92
    np.testing.assert_array_less(np.abs(plug_in.value - truth(plug_in.log_snr) - planted), 0.02 + 3 * error)
    (row,) = report.rows
    assert [flag.partition(" nats")[0][:-5] for flag in row["flags"]] == ["plug-in: exceeds H by"]
    published = report.curve("mutual-information")
    half = np.interp(np.log(2) / 2, truth(published.log_snr), published.log_snr)
    assert published.log_snr_50 == pytest.approx(half, abs=0.2)


def test_a_head_that_ignores_its_label_has_no_information(ask: Callable[..., Report]) -> None:
    report = ask(Wrapped("deaf"), n=200)
    for variant in ("mixture", "mse-difference", "plug-in"):
        np.testing.assert_allclose(report.curve("mutual-information", variant=variant).value, 0, atol=1e-5)
    curve = report.curve("mutual-information")
    # a score of the prior: off by how unlike the values' frequencies are among 200 and among 1 000 items
    np.testing.assert_allclose(curve.value, curve.value[0], atol=1e-6)
    assert curve.value[0] == pytest.approx(0, abs=1e-3)
    assert curve.log_snr_50 is None


def test_a_head_that_gets_the_wrong_label_is_flagged(ask: Callable[..., Report]) -> None:
    """The conditional answer is the worse one: information falls, which it cannot."""
    report = ask(Wrapped("wrong class"), n=500)
    assert report.curve("mutual-information").value[-1] < -0.1
    assert any("though information cannot" in flag for flag in report.rows[0]["flags"])


def test_an_unconditional_model_is_not_applicable(first_party: Catalog) -> None:
    report = measure(
        Unconditional(),
        ToyData(),
        ("mutual-information", "class-retention"),
        n=6,
        settings=SMALL,
        device="cpu",
        catalog=first_party,
    )
    by_metric = {row["metric"]: row for row in report.rows}
    assert by_metric["mutual-information"]["status"] == "not_applicable"
    assert "no conditional head" in by_metric["mutual-information"]["reason"]
    assert by_metric["class-retention"]["status"] == "ok"
    with pytest.raises(KeyError, match="not_applicable: the model has no conditional head"):
        report.curve("mutual-information")
