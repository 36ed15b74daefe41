"""The label filter against Bayes' rule written out, path by path, and against what it promises."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from benchsuite_models.exact_mixture import ExactMixture
from numpy.typing import NDArray
from toys import CLASS, SMALL, ToyData, ToyModel

from benchsuite import BenchsuiteError, DiffusionModel, Record, measure
from benchsuite.errors import UsageError
from benchsuite.protocols.common import MAX_DRAWS, Items, Meter, item_keys, level_number
from benchsuite.protocols.label_filter import APART, LOG_FLOOR, count_passes, label_filter, levels
from benchsuite.protocols.settings import FilterSettings
from benchsuite.randomness import normal

Array = NDArray[np.float64]

MEANS = np.array([[1.0, 0.5], [-1.0, 0.5], [0.3, -1.2]])
WEIGHTS, VARIANCE = np.array([0.5, 0.3, 0.2]), 0.2
SETTINGS = FilterSettings(low=-6.0, high=5.0, nodes=45, draws=2, negligible=0.0)


def mixture(**factors: list[int]) -> ExactMixture:
    model = ExactMixture(MEANS, WEIGHTS, VARIANCE, factors or None)
    model.load()
    return model


def drawn(model: ExactMixture, n: int) -> Items:
    x, labels = model.sample(n, torch.Generator().manual_seed(4))
    return Items(x, labels, tuple(f"test/{i}" for i in range(n)), model.factors)


@torch.no_grad()
def run(
    model: DiffusionModel,
    items: Items,
    settings: FilterSettings = SETTINGS,
    priors: dict[str, Array] | None = None,
    batch: int = 4096,
    meter: Meter | None = None,
) -> Record:
    if priors is None:
        assert isinstance(model, ExactMixture)
        priors = {name: p.double().numpy() for name, p in model.prior().items()}
    return label_filter(model, items, priors, settings, seed=3, dataset="d", batch=batch, meter=meter or Meter())


def by_hand(x0: Array, stream: int, settings: FilterSettings, draw: int, every: int) -> Array:
    """ln pi (T, K) of one item from the density of its path, one Gaussian per step; of every `every`-th level.

    Class k has mean m_k and variance s²: D_k(x) = (s² x + sigma² m_k) / (s² + sigma²).
    """
    grid = np.linspace(settings.low, settings.high, settings.nodes)
    key = torch.tensor([stream])
    sign = -1.0 if draw % 2 else 1.0

    def z(block: int) -> Array:
        return sign * normal(key, block * MAX_DRAWS + draw // 2, (2,))[0].double().numpy()

    def head(x: Array, sigma: float) -> Array:
        return (VARIANCE * x + sigma**2 * MEANS) / (VARIANCE + sigma**2)

    # sigma² falls from level to level: x = x0 + a Brownian motion that runs backwards to 0
    sigmas = np.exp(-grid / 2)
    path = [x0 + sigmas[0] * z(level_number(grid[0]))]
    for i in range(1, len(grid)):
        kept = (sigmas[i] / sigmas[i - 1]) ** 2
        spread = sigmas[i] * math.sqrt(1 - kept)
        path.append(kept * path[-1] + (1 - kept) * x0 + spread * z(level_number(grid[i])))
    # before the first level the classes are known by their means, read off noise alone
    means = head(sigmas[0] * z(APART), sigmas[0])
    log_pi = np.log(WEIGHTS) - ((path[0] - means) ** 2).sum(axis=1) / (2 * sigmas[0] ** 2)
    rows = [log_pi]
    for i in range(every, len(grid), every):
        j = i - every
        kept = (sigmas[i] / sigmas[j]) ** 2
        centre = kept * path[j] + (1 - kept) * head(path[j], sigmas[j])
        rows.append(rows[-1] - ((path[i] - centre) ** 2).sum(axis=1) / (2 * sigmas[i] ** 2 * (1 - kept)))
    table = np.stack(rows)
    return np.maximum(table - np.logaddexp.reduce(table, axis=1, keepdims=True), LOG_FLOOR)


def test_the_filter_is_bayes_rule_along_the_path() -> None:
    model = mixture()
    items = drawn(model, 5)
    record = run(model, items)
    keys = item_keys(3, "d", "label_filter", items.ids, torch.device("cpu"))
    assert record["filter/class"].shape == (10, 45, 3)
    for draw in range(2):
        for n in range(5):
            x0, row = items.x[n].double().numpy(), draw * 5 + n
            fine = by_hand(x0, int(keys[n]), SETTINGS, draw, 1)
            np.testing.assert_allclose(record["filter/class"][row], fine, atol=2e-3)
            coarse = by_hand(x0, int(keys[n]), SETTINGS, draw, 2)
            np.testing.assert_allclose(record["coarse/class"][row, ::2], coarse, atol=2e-3)
    assert record["items"].tolist() == [*items.ids, *items.ids]
    np.testing.assert_array_equal(record["labels/class"], np.tile(items.column("class"), 2))


def divergence(record: Record, factor: str, log_pi: str = "filter") -> Array:
    """Mean over paths of KL(exact posterior ‖ pi) at every level (T,), nats."""
    p = record[f"posterior/{factor}"].astype(np.float64)
    found: Array = (p * (np.log(np.maximum(p, 1e-30)) - record[f"{log_pi}/{factor}"])).sum(axis=2).mean(axis=0)
    return found


def test_it_converges_to_the_exact_posterior() -> None:
    """A value of two modes, whose head bends within a step: twice as many steps, half the divergence."""
    means = np.array([[2.0, 0.0], [-2.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
    model = ExactMixture(means, covariances=VARIANCE, factors={"axis": [0, 0, 1, 1]})
    model.load()
    items = drawn(model, 1000)
    worst, extrapolated = [], 0.0
    for nodes in (29, 57, 113):
        record = run(model, items, FilterSettings(low=-7.0, high=7.0, nodes=nodes))
        fine, coarse = divergence(record, "axis"), divergence(record, "axis", "coarse")
        worst.append(float(fine.max()))
        extrapolated = float(np.abs(2 * fine - coarse).max())
    assert 1.6 < worst[0] / worst[1] < 2.6
    assert 1.6 < worst[1] / worst[2] < 2.6
    assert worst[2] < 0.02
    # what is proportional to the step is gone
    assert extrapolated < 0.4 * worst[2]


def test_the_first_step_comes_from_infinite_noise() -> None:
    """A grid that starts where some of the information is there already is told so."""
    model = mixture()
    items = drawn(model, 400)
    late = run(model, items, FilterSettings(low=-2.0, high=5.0, nodes=29))
    p = late["posterior/class"][:, 0].astype(np.float64)
    known = float((p * np.log(p / WEIGHTS)).sum(axis=1).mean())
    assert known > 0.05
    assert divergence(late, "class")[0] < 0.05 * known


def test_the_spread_of_the_heads() -> None:
    """sum_k pi_k ‖eps_k - eps_pi‖², and with pi the exact posterior the information rate."""
    model = mixture()
    items = drawn(model, 50)
    record = run(model, items)
    sigma = np.exp(-record["log_snr"] / 2)
    # D_k - D_j = sigma² (m_k - m_j) / (s² + sigma²)
    means = MEANS * (sigma / (VARIANCE + sigma**2))[:, None, None]  # (T, K, 2)
    pi = np.exp(record["filter/class"].astype(np.float64))
    centre = np.einsum("mtk,tkd->mtd", pi, means)
    spread = (pi * ((means - centre[:, :, None]) ** 2).sum(axis=3)).sum(axis=2)
    np.testing.assert_allclose(record["mixture/class"], spread, rtol=2e-3, atol=1e-5)


def test_a_path_has_the_law_of_fresh_noise_at_every_level() -> None:
    """x - x0 over sigma is standard normal at each level; from the posterior of a single broad class."""

    class Spy(ToyModel):
        seen: list[tuple[float, torch.Tensor]]

        def denoise(self, x: torch.Tensor, sigma: torch.Tensor, labels: Any = None) -> torch.Tensor:
            self.seen.append((float(sigma[0]), x[labels[:, 0] == 0] / sigma[0]))
            return super().denoise(x, sigma, labels)

    model = Spy()
    model.load()
    model.seen = []
    items = Items(torch.zeros(600, 1, 4, 4), torch.zeros(600, 1, dtype=torch.int64), ids(600), (CLASS,))
    settings = FilterSettings(low=-3.0, high=3.0, nodes=7, negligible=0.0)
    run(model, items, settings, {"class": np.array([0.5, 0.5])})
    by_level: dict[float, list[torch.Tensor]] = {}
    for sigma, n in model.seen[len(model.seen) // 8 :]:  # after the start
        by_level.setdefault(sigma, []).append(n)
    assert len(by_level) == 7
    found = [torch.cat(parts) for _, parts in sorted(by_level.items(), reverse=True)]
    for n in found:
        assert n.mean() == pytest.approx(0, abs=5 / math.sqrt(n.numel()))
        assert n.var() == pytest.approx(1, abs=5 * math.sqrt(2 / n.numel()))
    # neighbouring levels, one log-SNR apart, are correlated as e^{-1/2}
    overlap = float((found[2] * found[3]).mean())
    assert overlap == pytest.approx(math.exp(-0.5), abs=5 / math.sqrt(found[2].numel()))


def ids(n: int) -> tuple[str, ...]:
    return tuple(f"i{k}" for k in range(n))


def test_batches_and_ranges_make_no_difference() -> None:
    model = mixture()
    items = drawn(model, 7)
    settings = replace(SETTINGS, nodes=23)
    whole, small = run(model, items, settings), run(model, items, settings, batch=9)
    for name in ("filter/class", "coarse/class", "mixture/class"):
        np.testing.assert_allclose(whole[name], small[name], atol=1e-4)
    some = run(model, items.take([5, 2]), settings)
    np.testing.assert_allclose(some["filter/class"][:2], whole["filter/class"][[5, 2]], atol=1e-4)
    # a model whose range starts later sees the same path
    model.sigma_range = (model.sigma_range[0], math.exp(1.5))
    late = run(model, items, settings)
    assert late["log_snr"][0] == -3.0
    np.testing.assert_allclose(late["posterior/class"], whole["posterior/class"][:, 6:], atol=1e-5)
    with pytest.raises(BenchsuiteError, match=r"only 0 levels of the filter's grid \[-6.0, -5.0\]"):
        levels(FilterSettings(low=-6.0, high=-5.0, nodes=5), model.sigma_range)


def test_ruled_out_values_cost_nothing_and_change_nothing() -> None:
    model = ExactMixture(MEANS, WEIGHTS, 0.01)
    model.load()
    items = drawn(model, 60)
    full, thrifty = Meter(), Meter()
    settings = replace(SETTINGS, high=6.0, nodes=49)
    every = run(model, items, settings, meter=full)
    pruned = run(model, items, replace(settings, negligible=1e-6), meter=thrifty)
    assert full.rows == count_passes(settings, 60, 3, model.sigma_range) == 60 * 2 * (49 + 1) * 3
    assert thrifty.rows < 0.8 * full.rows
    for name in ("filter/class", "coarse/class"):
        a, b = (np.exp(r[name].astype(np.float64)) for r in (every, pruned))
        np.testing.assert_allclose(a, b, atol=2e-4)
        np.testing.assert_allclose(b.sum(axis=2), 1, atol=1e-5)


def test_values_of_probability_zero_and_factors_of_many_values_are_left_out() -> None:
    model = ToyModel()
    model.load()
    data = ToyData()
    data.load()
    part = data.split("test")
    items = Items(part.images, part.labels, part.ids, data.factors)
    settings = FilterSettings(low=-3.0, high=3.0, nodes=4)
    meter = Meter()
    only = run(model, items, settings, {"class": np.array([1.0, 0.0])}, meter=meter)
    assert meter.rows == 0
    np.testing.assert_allclose(only["filter/class"][..., 0], 0)
    np.testing.assert_allclose(only["filter/class"][..., 1], LOG_FLOOR)
    few = FilterSettings(low=-3.0, high=3.0, nodes=4, most_values=1)
    none = run(model, items, few, {"class": np.array([0.5, 0.5])})
    assert none.meta["filtered"] == []
    assert not any(name.startswith(("filter/", "coarse/", "mixture/")) for name in none.arrays)


def test_two_factors_are_filtered_on_one_path() -> None:
    model = mixture(left=[0, 1, 0], up=[0, 0, 1])
    items = drawn(model, 200)
    record = run(model, items)
    assert record.meta["filtered"] == ["left", "up"]
    for name in ("left", "up"):
        p = record[f"posterior/{name}"].astype(np.float64)
        off = np.abs(p - np.exp(record[f"filter/{name}"])).sum(axis=2).mean(axis=0) / 2
        assert off.max() < 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"low": 3.0, "high": 1.0}, "low < high"),
        ({"nodes": 1}, "nodes must be at least 2, got 1"),
        ({"draws": 0}, "draws must be positive, got 0"),
        ({"negligible": 0.5}, r"negligible must lie in \[0, 0.1\), got 0.5"),
    ],
)
def test_settings_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        FilterSettings(**options)


def test_steps_between_recorded_levels() -> None:
    """Recording every third level of a path changes nothing but what is written down."""
    model = mixture()
    items = drawn(model, 4)
    every = run(model, items, replace(SETTINGS, nodes=31))
    few = run(model, items, replace(SETTINGS, nodes=11, steps_per_level=3))
    np.testing.assert_allclose(few["log_snr"], every["log_snr"][::3])
    for name in ("filter/class", "coarse/class", "mixture/class", "posterior/class"):
        np.testing.assert_array_equal(few[name], every[name][:, ::3])


def test_an_oracle_that_states_the_spread_is_not_filtered() -> None:
    """One pass gives its rate without noise; on images that it does not hold there is no such shortcut."""
    report = measure(
        "empirical-bayes",
        ToyData(),
        ("mutual-information",),
        n=6,
        settings=replace(SMALL, label_filter=replace(SMALL.label_filter, low=-4.0, high=4.0, nodes=9)),
        device="cpu",
    )
    (row,) = report.rows
    assert row["split"] == "train"
    assert row["extra"]["form"] == "posterior"
    assert {curve["variant"] for curve in row["curves"]} == {"", "rao-blackwell", "mse-difference", "plug-in"}
