"""U-turns and forks: where paths start, what they share, who judges them, what they cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from benchsuite_models.exact_mixture import ExactMixture
from closed_forms import two_gaussians
from toys import DrawnData, ToyData, ToyModel, ToyReadout

from benchsuite import BenchsuiteError, DiffusionModel, Readout, Record
from benchsuite.own_data import ExactReadout
from benchsuite.protocols import fork as fork_protocol
from benchsuite.protocols import u_turn as u_turn_protocol
from benchsuite.protocols.common import Items, Meter
from benchsuite.protocols.returns import schedule
from benchsuite.protocols.settings import METHODS, ForkSettings, UTurnSettings

SETTINGS = UTurnSettings(low=-3.0, high=3.0, every=2.0, steps_per_level=2, end=4.0, draws=2)
FORK = ForkSettings(low=-3.0, high=3.0, every=2.0, steps_per_level=2, end=4.0, k=3, items=5)
M, VARIANCE = 1.3, 0.16


@pytest.fixture(autouse=True)
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


def toy_items() -> Items:
    data = ToyData()
    data.load()
    part = data.split("test")
    return Items(part.images, part.labels, part.ids, data.factors)


def u_turn(
    model: DiffusionModel,
    items: Items,
    readout: Readout,
    settings: UTurnSettings = SETTINGS,
    batch: int = 64,
    seed: int = 0,
    meter: Meter | None = None,
) -> Record:
    return u_turn_protocol.u_turn(
        model, items, readout, settings, seed=seed, dataset="d", batch=batch, meter=meter or Meter()
    )


def fork(
    model: DiffusionModel,
    items: Items,
    readout: Readout,
    settings: ForkSettings = FORK,
    batch: int = 64,
    seed: int = 0,
    meter: Meter | None = None,
) -> Record:
    return fork_protocol.fork(
        model, items, readout, settings, seed=seed, dataset="d", batch=batch, meter=meter or Meter()
    )


def toy(**options: Any) -> ToyModel:
    model = ToyModel(**options)
    model.load()
    return model


class Listening(ToyModel):
    """Remembers every question; answers with zeros."""

    def __init__(self, sigma_max: float = 100.0) -> None:
        super().__init__(sigma_max=sigma_max)
        self.heard: list[tuple[torch.Tensor, float]] = []

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        assert labels is None  # the way back is unconditional
        assert sigma.unique().numel() == 1
        self.heard.append((x.clone(), float(sigma[0])))
        return torch.zeros_like(x)


# ----------------------------------------------------------------------------------------- schedule


def test_schedule() -> None:
    plan = schedule(SETTINGS, (1e-6, 1e6))
    np.testing.assert_allclose(-2 * np.log(plan.sigmas), np.arange(-3, 5), atol=1e-12)
    assert plan.entries == (0, 2, 4, 6)
    np.testing.assert_allclose(plan.log_snr, [-3, -1, 1, 3], atol=1e-12)
    assert plan.passes("sde-2m") == plan.passes("ancestral") == 8 + 6 + 4 + 2
    assert plan.passes("ode-heun") == 2 * 20 - 4


def test_schedule_is_cut_to_the_models_range() -> None:
    """log-SNR -1.5 … 3.5: the level at -3 is not there, and the last pass is at 3."""
    plan = schedule(SETTINGS, (float(np.exp(-3.5 / 2)), float(np.exp(1.5 / 2))))
    np.testing.assert_allclose(-2 * np.log(plan.sigmas), [-1, 0, 1, 2, 3], atol=1e-12)
    assert plan.entries == (0, 2, 4)
    with pytest.raises(BenchsuiteError, match=r"no starting level in \[-3.0, 3.0\] .* log-SNR 3.20 to 20.00"):
        schedule(SETTINGS, (float(np.exp(-10)), float(np.exp(-1.6))))


# -------------------------------------------------------------------------------- where paths start


def test_items_enter_exactly_at_their_level() -> None:
    """At each starting level the newest rows are x0 + sigma n, n standard normal and not x0's business."""
    model, items = Listening(), toy_items()
    u_turn(model, items, ToyReadout(), replace(SETTINGS, draws=1))
    plan = schedule(SETTINGS, model.sigma_range)
    assert [sigma for _, sigma in model.heard] == pytest.approx(plan.sigmas.tolist())
    assert [len(x) for x, _ in model.heard] == [12, 12, 24, 24, 36, 36, 48, 48]
    entered = torch.stack([(model.heard[i][0][-12:] - items.x) / model.heard[i][1] for i in plan.entries])
    assert float(entered.mean()) == pytest.approx(0, abs=4 / np.sqrt(entered.numel()))
    assert float(entered.std()) == pytest.approx(1, abs=4 / np.sqrt(2 * entered.numel()))
    noise = entered.flatten(1)
    correlation = np.corrcoef(torch.cat([noise, items.x.flatten()[None]]).numpy())
    assert np.abs(correlation - np.eye(5)).max() < 4 / np.sqrt(noise.shape[1])


def test_the_first_step_leaves_from_the_level_it_entered() -> None:
    """With D = 0 an ancestral step gives x' = (s'/s)² x + s' √(1 - (s'/s)²) z: z is standard normal again."""
    settings = replace(SETTINGS, method="ancestral", draws=1)
    model, items = Listening(), toy_items()
    u_turn(model, items, ToyReadout(), settings)
    for i in range(len(model.heard) - 1):
        (x, sigma), (x_next, sigma_next) = model.heard[i : i + 2]
        shrink = (sigma_next / sigma) ** 2
        z = (x_next[: len(x)] - shrink * x) / (sigma_next * np.sqrt(1 - shrink))
        assert float(z.std()) == pytest.approx(1, abs=4 / np.sqrt(2 * z.numel()))


def test_models_of_different_range_share_noise_where_both_have_levels() -> None:
    wide, narrow, items = Listening(), Listening(sigma_max=2.0), toy_items()
    settings = replace(SETTINGS, draws=1)
    for model in (wide, narrow):
        u_turn(model, items, ToyReadout(), settings)
    assert narrow.heard[0][1] == pytest.approx(np.exp(0.5))
    # the wide model's own noisiest group has joined earlier, so the common groups are its last rows
    for (x, sigma), (y, same) in zip(wide.heard[2:], narrow.heard, strict=True):
        assert sigma == same
        torch.testing.assert_close(x[12:], y)


def test_draws_are_antithetic_and_seeds_differ() -> None:
    """With D = 0 every path is (s / s_entry)² x0 plus noise, all of whose terms change sign with the draw."""
    items = toy_items()
    first, other = Listening(), Listening()
    u_turn(first, items, ToyReadout())
    u_turn(other, items, ToyReadout(), seed=1)
    assert not torch.allclose(first.heard[0][0], other.heard[0][0], atol=0.1)
    plan = schedule(SETTINGS, first.sigma_range)
    half = len(first.heard) // 2  # draw after draw
    for (x, sigma), (y, same) in zip(first.heard[:half], first.heard[half:], strict=True):
        assert sigma == same
        groups = [items.x * (sigma / s) ** 2 for s in plan.entry_sigmas if s >= sigma * (1 - 1e-5)]
        torch.testing.assert_close((x + y) / 2, torch.cat(groups), atol=1e-5, rtol=1e-4)


def test_forks_share_the_way_up_and_part_on_the_way_down() -> None:
    model, items = Listening(), toy_items()
    fork(model, items, ToyReadout())
    start, following = (x[: FORK.k * len(items)].chunk(FORK.k) for x, _ in model.heard[:2])  # one batch for all
    for path in range(1, FORK.k):
        assert torch.equal(start[0], start[path])
        assert not torch.allclose(following[0], following[path], atol=0.1)


# -------------------------------------------------------------------------------------- who judges


class Scaled(ToyModel):
    """A 'latent' model: its space is three times the image."""

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        return 3 * images

    def decode(self, x: torch.Tensor) -> torch.Tensor:
        return x / 3


class Brightness(Readout):
    """Judges by absolute brightness, so that a forgotten decode shows."""

    name = "brightness"

    def __init__(self) -> None:
        self.accuracy = {"class": 0.5}
        self.seen: list[float] = []

    def to(self, device: str) -> Brightness:
        return self

    def probabilities(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        self.seen.append(float(images.abs().max()))
        bright = (images.flatten(1).mean(dim=1) > 0.35).float()
        return {"class": torch.stack([0.6 - 0.2 * bright, 0.4 + 0.2 * bright], dim=1)}

    def fingerprint(self) -> str:
        return "brightness"


def test_the_readout_judges_decoded_images_by_its_most_probable_value() -> None:
    model, images = Scaled(), toy_items()
    model.load()
    items = Items(model.encode(images.x), images.labels, images.ids, images.factors)
    readout = Brightness()
    record = u_turn(model, items, readout)
    own = readout.probabilities(images.x)["class"].argmax(dim=1).numpy()
    assert 0 < own.sum() < 12
    # what an item is compared to is the verdict on itself after encoding and decoding, not its label
    np.testing.assert_array_equal(record["reference/class"], np.tile(np.eye(2)[own][:, None], (2, 1, 1)))
    assert record.meta["readout_agrees_with_labels"]["class"] == (own == items.column("class")).mean()
    assert record["judged/class"].shape == (24, 4, 2)
    assert set(np.unique(record["judged/class"])) == {0.0, 1.0}
    assert record["items"].tolist() == [*items.ids, *items.ids]
    assert record["labels/class"].tolist() == items.column("class").tolist() * 2


class Painter(ToyModel):
    """Decodes everything to white."""

    def decode(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(x)


def test_what_came_back_is_decoded_before_it_is_judged() -> None:
    model = Painter()
    model.load()
    for run, name in ((u_turn, "judged/class"), (fork, "votes/class")):
        found = run(model, toy_items(), Brightness())[name]  # type: ignore[operator]
        assert (found[..., 1] == found.sum(axis=2)).all()  # white is bright, whatever the network made of it


def mixture() -> ExactMixture:
    model = ExactMixture([[M, 0.0], [-M, 0.0]], covariances=VARIANCE)
    model.load()
    return model


class Disguised(DiffusionModel):
    """An exact denoiser that does not say so: a perfect model of the ordinary kind."""

    name = "disguised"
    family = "toy"

    def __init__(self, inner: ExactMixture) -> None:
        self.inner, self.shape, self.sigma_range, self.factors = (
            inner,
            inner.shape,
            inner.sigma_range,
            inner.factors,
        )

    def load(self, device: str = "cpu", dtype: str = "float32") -> None: ...

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        return self.inner.denoise(x, sigma, labels)


def drawn(n: int) -> Items:
    data = DrawnData(mixture(), n)
    data.load()
    part = data.split("test")
    return Items(part.images, part.labels, part.ids, data.factors)


@pytest.mark.parametrize("exact", [True, False])
def test_retention_of_two_gaussians(exact: bool) -> None:
    """E sum p² by Gauss–Hermite at every level. An exact model's own posterior is the better reference; true
    labels give the same mean with more noise. A path that has joined late has taken few steps: no bias from that.
    """
    model = mixture()
    settings = UTurnSettings(low=-4.0, high=3.0, every=1.0, steps_per_level=4, end=7.0)
    n = 1500
    record = u_turn(model if exact else Disguised(model), drawn(n), ExactReadout(model), settings, batch=16384)
    if not exact:
        assert record["reference/class"].shape == (n, 1, 2)
        assert set(np.unique(record["reference/class"])) == {0.0, 1.0}
    values = (record["judged/class"] * record["reference/class"]).sum(axis=2).astype(float)
    for level, log_snr in enumerate(record["log_snr"]):
        truth = two_gaussians(M**2 / (VARIANCE + np.exp(-log_snr)))[1]
        error = values[:, level].std() / np.sqrt(n)
        assert values[:, level].mean() == pytest.approx(truth, abs=0.01 + 3 * error)
    assert error < 0.01


def test_votes_of_an_exact_readout_follow_its_posterior() -> None:
    """Two-fork agreement is the same E sum p²: the verdicts are drawn, so that votes are independent given x."""
    model = mixture()
    settings = ForkSettings(low=-2.0, high=1.0, every=1.0, steps_per_level=4, end=7.0, k=4, items=400)
    record = fork(model, drawn(500), ExactReadout(model), settings, batch=16384)
    votes = record["votes/class"]
    assert votes.shape == (400, 4, 2)
    np.testing.assert_array_equal(votes.sum(axis=2), 4)
    agreement = (votes * (votes - 1)).sum(axis=2).astype(float) / 12
    for level, log_snr in enumerate(record["log_snr"]):
        truth = two_gaussians(M**2 / (VARIANCE + np.exp(-log_snr)))[1]
        error = agreement[:, level].std() / 20
        assert agreement[:, level].mean() == pytest.approx(truth, abs=0.01 + 3 * error)


# ------------------------------------------------------------------------------------- cost, batches


@pytest.mark.parametrize("batch", [1, 5, 7, 1000])
def test_no_batch_size_changes_a_number(batch: int) -> None:
    # the toy's verdicts are one-hot; the mixture's are posteriors, where rounding shows
    for model, items, readout in (
        (toy(), toy_items(), ToyReadout()),
        (mixture(), drawn(9), ExactReadout(mixture())),
    ):
        for run in (u_turn, fork):
            record, other = (run(model, items, readout, batch=b) for b in (64, batch))  # type: ignore[operator]
            assert record.arrays.keys() == other.arrays.keys()
            for name, array in record.arrays.items():
                close = array.dtype.kind == "f" and np.allclose(other[name], array, atol=1e-5)
                assert close or np.array_equal(other[name], array), name


@pytest.mark.parametrize("sigma_max", [100.0, 2.0])
@pytest.mark.parametrize("method", METHODS)
def test_counted_passes_are_those_made(method: str, sigma_max: float) -> None:
    items = toy_items()
    turns, forks = replace(SETTINGS, method=method), replace(FORK, method=method)
    model, meter = toy(sigma_max=sigma_max), Meter()
    u_turn(model, items, ToyReadout(), turns, meter=meter)
    assert u_turn_protocol.count_passes(turns, 12, model.sigma_range) == meter.rows == model.rows
    model, meter = toy(sigma_max=sigma_max), Meter()
    fork(model, items, ToyReadout(), forks, meter=meter)
    assert fork_protocol.count_passes(forks, 12, model.sigma_range) == meter.rows == model.rows


def test_the_model_is_asked_for_no_more_than_a_batch() -> None:
    model = Listening()
    u_turn(model, toy_items(), ToyReadout(), batch=7)
    assert max(len(x) for x, _ in model.heard) <= 7


def test_a_fork_takes_the_first_items_only() -> None:
    items = toy_items()
    record = fork(toy(), items, ToyReadout())
    assert record["items"].tolist() == list(items.ids[:5])
    assert record["votes/class"].shape == (5, 4, 2)
    np.testing.assert_array_equal(record["votes/class"].sum(axis=2), 3)
    assert (record.meta["k"], record.meta["steps"], record.meta["spacing"]) == (3, 8, 1.0)
