"""The noise sweep against direct computation: errors, gaps and posteriors of a mixture, taps of a toy network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from benchsuite_models.exact_mixture import ExactMixture
from numpy.typing import NDArray
from scipy.stats import multivariate_normal
from toys import CLASS, TinyNet, ToyData, ToyModel, Unconditional

from benchsuite import BenchsuiteError, DiffusionModel, Factor, NoiseSweep, Record
from benchsuite.protocols.common import (
    Items,
    Meter,
    Taps,
    flatten_small,
    forward_noise,
    item_keys,
    level_number,
    pool,
)
from benchsuite.protocols.noise_sweep import PROBE_DRAW, count_passes, heads, levels, noise_sweep
from benchsuite.protocols.settings import SweepSettings

Array = NDArray[np.float64]

MEANS = np.array([[1.0, 0.5], [-1.0, 0.5], [0.3, -1.2]])
WEIGHTS, VARIANCE = np.array([0.5, 0.3, 0.2]), 0.2
SETTINGS = SweepSettings(low=-2.0, high=3.0, nodes=6, draws=3, tap_stride=2)
FULL = NoiseSweep(heads=True, taps=True)


def mixture(**factors: list[int]) -> ExactMixture:
    model = ExactMixture(MEANS, WEIGHTS, VARIANCE, factors or None)
    model.load()
    return model


def drawn(model: ExactMixture, n: int, role: str = "test") -> Items:
    x, labels = model.sample(n, torch.Generator().manual_seed(len(role)))
    return Items(x, labels, tuple(f"{role}/{i}" for i in range(n)), model.factors)


def toy_items(role: str = "test") -> Items:
    data = ToyData()
    data.load()
    part = data.split(role)
    return Items(part.images, part.labels, part.ids, data.factors)


def toy_probe() -> dict[str, Items]:
    return {"train": toy_items("train"), "val": toy_items("val")}


@torch.no_grad()
def sweep(
    model: DiffusionModel,
    items: Items,
    request: NoiseSweep = FULL,
    settings: SweepSettings = SETTINGS,
    probe: dict[str, Items] | None = None,
    batch: int = 64,
    seed: int = 3,
    meter: Meter | None = None,
    exact: bool = False,
) -> Record:
    return noise_sweep(
        model,
        items,
        probe or {},
        request,
        settings,
        seed=seed,
        dataset="d",
        batch=batch,
        meter=meter or Meter(),
        exact=exact,
    )


def toy(**options: float) -> ToyModel:
    model = ToyModel(**options)  # type: ignore[arg-type]
    model.load()
    return model


# ------------------------------------------------------------------------- errors, gaps, posteriors


def responsibilities(x: Array, sigma: float, allowed: NDArray[np.bool_]) -> Array:
    """p(component | x) among the allowed components (N, 3), from scipy densities."""
    spread = VARIANCE + sigma**2
    density = np.stack([multivariate_normal(m, spread * np.eye(2)).pdf(x) for m in MEANS], axis=1)
    p = WEIGHTS * density * allowed
    return p / p.sum(axis=1, keepdims=True)


def posterior_mean(x: Array, sigma: float, p: Array) -> Array:
    shrink = VARIANCE / (VARIANCE + sigma**2)
    return (1 - shrink) * p @ MEANS + shrink * x


def test_errors_gaps_and_posteriors_of_a_mixture() -> None:
    """Three heads of a two-factor mixture at every level and draw, recomputed with numpy and scipy."""
    labels = {"even": [0, 1, 0], "third": [0, 0, 1]}
    model = mixture(**labels)
    items = drawn(model, 7)
    record = sweep(model, items, NoiseSweep(heads=True))
    np.testing.assert_allclose(record["log_snr"], [-2, -1, 0, 1, 2, 3], atol=1e-12)
    assert record.meta["heads"] == ["even", "third", "joint"]
    carries = {name: np.array(column)[None] == items.column(name)[:, None] for name, column in labels.items()}
    carries["joint"] = carries["even"] & carries["third"]
    keys = item_keys(3, "d", "noise_sweep", items.ids, items.x.device)
    x0 = items.x.double().numpy()
    for t, log_snr in enumerate(record["log_snr"]):
        sigma = float(np.exp(-log_snr / 2))
        for draw in range(SETTINGS.draws):
            rows = slice(7 * draw, 7 * (draw + 1))
            x = x0 + sigma * forward_noise(keys, level_number(log_snr), draw, (2,)).double().numpy()
            everyone = responsibilities(x, sigma, np.ones((1, 3), bool))
            plain = posterior_mean(x, sigma, everyone)
            error = ((plain - x0) ** 2).sum(axis=1) / sigma**2
            np.testing.assert_allclose(record["error/unconditional"][rows, t], error, rtol=2e-4, atol=1e-4)
            for head, allowed in carries.items():
                given = posterior_mean(x, sigma, responsibilities(x, sigma, allowed))
                error, gap = (((given - other) ** 2).sum(axis=1) / sigma**2 for other in (x0, plain))
                np.testing.assert_allclose(record[f"error/{head}"][rows, t], error, rtol=2e-4, atol=1e-4)
                np.testing.assert_allclose(record[f"gap/{head}"][rows, t], gap, rtol=2e-4, atol=1e-4)
            for name, column in labels.items():
                exact = everyone @ np.eye(2)[column]
                np.testing.assert_allclose(record[f"posterior/{name}"][rows, t], exact, atol=1e-4)
    assert record["items"].tolist() == list(items.ids) * 3
    for name in labels:
        assert record[f"labels/{name}"].tolist() == items.column(name).tolist() * 3


def test_spread_of_the_heads_on_an_exact_population() -> None:
    """sum_k p(k | x) ‖D_k - D‖² / sigma², recomputed; it is what `gap` averages to over the label given x."""
    labels = {"even": [0, 1, 0], "third": [0, 0, 1]}
    model = mixture(**labels)
    items, meter = drawn(model, 7), Meter()
    record = sweep(model, items, NoiseSweep(heads=True), exact=True, meter=meter)
    # three conditional heads and, for the spread, two values of each of two factors
    counted = count_passes(SETTINGS, NoiseSweep(heads=True), 7, 0, 3, model.sigma_range, 2 + 2)
    assert meter.rows == counted == 6 * 7 * 3 * (1 + 3 + 4)
    keys = item_keys(3, "d", "noise_sweep", items.ids, items.x.device)
    for t, log_snr in enumerate(record["log_snr"]):
        sigma = float(np.exp(-log_snr / 2))
        x = (items.x + sigma * forward_noise(keys, level_number(log_snr), 0, (2,))).double().numpy()
        everyone = responsibilities(x, sigma, np.ones((1, 3), bool))
        plain = posterior_mean(x, sigma, everyone)
        for name, column in labels.items():
            total = np.zeros(7)
            for value in (0, 1):
                carries = np.array(column) == value
                head = posterior_mean(x, sigma, responsibilities(x, sigma, carries[None]))
                total += everyone[:, carries].sum(axis=1) * ((head - plain) ** 2).sum(axis=1) / sigma**2
            np.testing.assert_allclose(record[f"spread/{name}"][:7, t], total, rtol=2e-4, atol=1e-5)
    assert not any(name.startswith("spread/") for name in sweep(model, items).arrays)


def test_one_factor_has_no_joint_head() -> None:
    model = mixture()
    assert heads(model, model.factors) == {"class": ["class"]}
    record = sweep(model, drawn(model, 4), NoiseSweep(heads=True))
    assert "error/joint" not in record.arrays
    other = [*model.factors, Factor("unknown to the model", ("a", "b"))]
    assert heads(model, other) == {"class": ["class"]}


def test_factors_of_one_name_and_different_sizes_are_refused() -> None:
    with pytest.raises(
        BenchsuiteError, match="factor 'class' has 3 values in exact-mixture but 2 in the data set"
    ):
        heads(mixture(), [CLASS])


class Listening(ToyModel):
    """Remembers what it was asked; returns zeros."""

    def __init__(self, sigma_max: float = 100.0) -> None:
        super().__init__(sigma_max=sigma_max)
        self.heard: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]] = []

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        self.heard.append((x.clone(), sigma.clone(), None if labels is None else labels.clone()))
        return torch.zeros_like(x)


def test_heads_share_the_noise_and_get_the_right_labels() -> None:
    model, items = Listening(), toy_items()
    sweep(model, items, NoiseSweep(heads=True))
    assert len(model.heard) == SETTINGS.nodes * SETTINGS.draws
    for x, sigma, labels in model.heard:
        assert labels is not None
        plain, given = x.chunk(2)
        assert torch.equal(plain, given)
        assert sigma.unique().numel() == 1
        assert labels[:12].eq(-1).all()
        assert torch.equal(labels[12:], items.labels)


def test_draws_come_in_antithetic_pairs() -> None:
    model, items = Listening(), toy_items()
    sweep(model, items, NoiseSweep(heads=True))
    first, second, third = (x[:12] - items.x for x, *_ in model.heard[:3])
    torch.testing.assert_close(first, -second, atol=1e-5, rtol=0)
    assert not torch.allclose(first, third, atol=0.1)
    # noise of the right size, and fresh at every level
    sigma = float(model.heard[0][1][0])
    assert float((first / sigma).std()) == pytest.approx(1, abs=0.15)
    again = (model.heard[3][0][:12] - items.x) / float(model.heard[3][1][0])
    assert abs(float((first / sigma * again).mean())) < 0.3


def test_models_of_different_range_share_noise_where_both_have_levels() -> None:
    """Pairs of models are compared on the same (image, noise), though one's grid starts later."""
    wide, narrow, items = Listening(), Listening(sigma_max=1.5), toy_items()
    whole, part = (sweep(model, items, NoiseSweep(heads=True)) for model in (wide, narrow))
    np.testing.assert_allclose(part["log_snr"], whole["log_snr"][2:])
    for (x, sigma, _), (y, same, _) in zip(wide.heard[2 * 3 :], narrow.heard, strict=True):
        assert torch.equal(sigma, same)
        assert torch.equal(x, y)


def test_seed_and_data_set_change_the_noise_and_nothing_else_does() -> None:
    model, items = mixture(), drawn(mixture(), 5)
    record = sweep(model, items)
    assert np.array_equal(record["error/class"], sweep(model, items)["error/class"])
    assert not np.allclose(record["error/class"], sweep(model, items, seed=4)["error/class"])
    reversed_items = items.take(range(4, -1, -1))
    flipped = sweep(model, reversed_items)
    np.testing.assert_allclose(flipped["error/class"][:5], record["error/class"][4::-1], rtol=1e-5)


# --------------------------------------------------------------------------------------------- taps


def test_taps_are_the_pooled_activations_of_the_unconditional_pass() -> None:
    model, items, probe = toy(), toy_items(), toy_probe()
    record = sweep(model, items, probe=probe)
    np.testing.assert_allclose(record["tap_log_snr"], [-2, 0, 2], atol=1e-12)
    everyone = [("test", items), *probe.items()]
    assert record["tap_role"].tolist() == [role for role, group in everyone for _ in group.ids]
    assert record["tap_items"].tolist() == [i for _, group in everyone for i in group.ids]
    assert record["tap_labels/class"].tolist() == [int(y) for _, group in everyone for y in group.labels[:, 0]]
    network = model.network
    assert isinstance(network, TinyNet)
    for s, log_snr in enumerate(record["tap_log_snr"]):
        sigma = float(np.exp(-log_snr / 2))
        rows = []
        for role, group in everyone:
            keys = item_keys(3, "d", "noise_sweep", group.ids, group.x.device)
            draw = 0 if role == "test" else PROBE_DRAW  # an oracle's probe meets the test images under other noise
            rows.append(group.x + sigma * forward_noise(keys, level_number(log_snr), draw, (1, 4, 4)))
        x = torch.cat(rows)
        scaled = x / (1 + sigma**2) ** 0.5
        null = torch.full((len(x),), 2)  # -1 % 3, as the toy reads it
        with torch.no_grad():
            down = torch.tanh(network.down.conv(scaled))
            mid = network.mid(down)
            tokens = (mid + network.embed(null)[:, :, None, None]).flatten(2).transpose(1, 2)
            expected = {
                "down": quadrants(down),  # the first of a tuple, (B, C, H, W)
                "mid": quadrants(mid),
                "tokens": tokens.mean(dim=1),  # (B, T, C)
                "flat": network.flat(tokens.mean(dim=1)),  # (B, D)
                "input": scaled.flatten(1),
                "denoised": model.denoise(x, x.new_full((len(x),), sigma)).flatten(1),
            }
        for name, value in expected.items():
            np.testing.assert_allclose(record[f"tap/{name}"][s], value.numpy(), atol=2e-5)
    assert {name for name in record.arrays if name.startswith("tap/")} == {f"tap/{name}" for name in expected}


def quadrants(maps: torch.Tensor) -> torch.Tensor:
    return torch.stack(
        [maps[:, :, y : y + 2, x : x + 2].mean(dim=(2, 3)) for y in (0, 2) for x in (0, 2)], dim=2
    ).flatten(1)


def test_exact_models_offer_their_log_posterior_as_a_tap() -> None:
    model = mixture()
    probe = {"train": drawn(model, 6, "train"), "val": drawn(model, 3, "val")}
    record = sweep(model, drawn(model, 4), probe=probe)
    tap = record["tap/log-posterior"]
    assert tap.shape == (3, 4 + 6 + 3, 3)
    np.testing.assert_allclose(np.exp(tap).sum(axis=2), 1, rtol=1e-5)
    np.testing.assert_allclose(
        np.exp(tap[:, :4]).transpose(1, 0, 2), record["posterior/class"][:4, ::2], atol=1e-6
    )


def test_taps_are_the_same_with_and_without_heads() -> None:
    model, items, probe = toy(), toy_items(), toy_probe()
    both, alone = sweep(model, items, probe=probe), sweep(model, items, NoiseSweep(taps=True), probe=probe)
    for name, array in alone.arrays.items():
        if name.startswith("tap"):
            close = np.allclose(array, both[name], atol=2e-5) if array.dtype.kind == "f" else array == both[name]
            assert np.all(close), name
    np.testing.assert_allclose(alone["log_snr"], both["tap_log_snr"])
    assert alone.meta["heads"] == []


def test_hooks_are_gone_after_the_sweep() -> None:
    model = toy()
    sweep(model, toy_items(), probe=toy_probe())
    assert model.network is not None
    assert all(not module._forward_hooks for module in model.network.modules())


def test_a_tap_that_is_not_there_is_named() -> None:
    with pytest.raises(BenchsuiteError, match="no module 'middle' to tap"):
        Taps(TinyNet(0), ["middle"])
    assert Taps(None, ["middle"]).pooled == {}  # a model without network has baselines only


def test_pooling() -> None:
    x = torch.arange(24.0)
    quadrants = [[2.5, 4.5, 10.5, 12.5]]
    torch.testing.assert_close(pool(torch.arange(16.0).view(1, 1, 4, 4)), torch.tensor(quadrants))
    torch.testing.assert_close(pool(x.reshape(2, 3, 4, 1)), x.reshape(2, 3, 4).mean(dim=2))
    wide = torch.arange(4 * 129.0).view(1, 129, 2, 2)
    assert torch.equal(pool(wide[:, :128]), wide[:, :128].flatten(1))
    torch.testing.assert_close(pool(wide), wide.mean(dim=(2, 3)))
    torch.testing.assert_close(pool(x.reshape(1, 4, 6)), x.reshape(4, 6).mean(dim=0)[None])
    assert torch.equal(pool(x.reshape(4, 6).half()), x.reshape(4, 6))
    large = torch.randn(2, 3, 40, 60, generator=torch.Generator().manual_seed(0))
    small = flatten_small(large)
    assert small.shape == (2, 3 * 18 * 18)
    torch.testing.assert_close(small.mean(), large.mean(), atol=0.02, rtol=0)
    assert torch.equal(flatten_small(large[:, :, :8, :8]), large[:, :, :8, :8].flatten(1))


# ------------------------------------------------------------------------------------ cost and range


@pytest.mark.parametrize("batch", [1, 2, 7, 1000])
def test_no_batch_size_changes_a_number(batch: int) -> None:
    for model, items, probe in (
        (toy(), toy_items(), toy_probe()),
        (
            mixture(),
            drawn(mixture(), 5),
            {"train": drawn(mixture(), 4, "train"), "val": drawn(mixture(), 2, "val")},
        ),
    ):
        record, other = (sweep(model, items, probe=probe, batch=b) for b in (64, batch))
        assert record.arrays.keys() == other.arrays.keys()
        for name, array in record.arrays.items():
            if array.dtype.kind == "f":
                np.testing.assert_allclose(other[name], array, rtol=1e-5, atol=1e-5)
            else:
                assert np.array_equal(other[name], array)


@pytest.mark.parametrize("request_", [FULL, NoiseSweep(heads=True), NoiseSweep(taps=True), NoiseSweep()])
@pytest.mark.parametrize("model", [ToyModel, Unconditional])
def test_counted_passes_are_those_made(request_: NoiseSweep, model: type[ToyModel]) -> None:
    for sigma_max in (100.0, 1.5):
        built = model()
        built.sigma_range = (0.01, sigma_max)
        built.load()
        items, meter, told = toy_items(), Meter(), []
        meter.on_rows = told.append
        sweep(built, items, request_, probe=toy_probe(), batch=10, meter=meter)
        conditional = len(heads(built, items.factors))
        counted = count_passes(SETTINGS, request_, 12, 24 + 8, conditional, built.sigma_range)
        assert counted == meter.rows == built.rows == sum(told)


def test_the_grid_is_cut_to_the_models_range() -> None:
    settings = SweepSettings(low=-4, high=4, nodes=9)
    assert levels(settings, (np.exp(-1.5), np.exp(1.0))).tolist() == [-2, -1, 0, 1, 2, 3]
    assert levels(settings, (1e-9, 1e9)).tolist() == [-4, -3, -2, -1, 0, 1, 2, 3, 4]
    with pytest.raises(BenchsuiteError, match=r"only 1 levels .* log-SNR -0.50 to 0.50"):
        levels(settings, (float(np.exp(-0.25)), float(np.exp(0.25))))


class Broken(ToyModel):
    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        out = super().denoise(x, sigma, labels)
        out[0] = torch.where(sigma[0] < 1.0, torch.nan, out[0])
        return out


def test_non_finite_output_is_refused_with_the_noise_level() -> None:
    model = Broken()
    model.load()
    with pytest.raises(
        BenchsuiteError, match=r"toy returned non-finite values at sigma = 0.606531 \(1 of 24 rows\)"
    ):
        sweep(model, toy_items(), NoiseSweep(heads=True))
