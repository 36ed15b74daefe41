"""The denoising loss: its levels and weights, which heads meet what, and the targets it is measured against."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from benchsuite_models.conditioning import Conditioning
from benchsuite_models.finite_population import FinitePopulation
from benchsuite_models.process import DataRange, VarianceExploding
from benchsuite_models.training.config import Noise
from benchsuite_models.training.diffusion import (
    Denoiser,
    TrainingSet,
    draw_log_snr,
    drop_labels,
    held_out_losses,
    level_weight,
    paired_loss,
)
from benchsuite_models.training.loop import generator_of
from diffusers_factory import Images

from benchsuite import Factor


def test_levels_cover_the_range_and_favour_the_middle() -> None:
    noise = Noise(-8.0, 9.0, centre=0.0, width=2.0)
    drawn = torch.cat([draw_log_snr(128, noise, generator_of(0, step)) for step in range(50)])
    assert drawn.min() >= -8
    assert drawn.max() <= 9
    # half uniform (6 / 17 of it in the middle), half normal (86.6 % of it within 1.5 standard deviations)
    middle = (drawn.abs() < 3).float().mean().item()
    assert middle == pytest.approx(0.5 * 6 / 17 + 0.5 * 0.8664, abs=0.01)
    assert (drawn > 8).float().mean().item() == pytest.approx(0.5 / 17, abs=0.005)


def test_dropped_labels_keep_one_at_random() -> None:
    labels = torch.tensor([[1, 2, 0]]).repeat(6000, 1)
    kept = drop_labels(labels, generator_of(0, 0))
    assert ((kept >= 0).sum(dim=1) == 1).all()
    assert torch.equal(kept[kept >= 0], labels[kept >= 0])
    assert (kept >= 0).float().mean(dim=0).tolist() == pytest.approx([1 / 3] * 3, abs=0.02)


class Remembering(torch.nn.Module):
    """An epsilon network that notes what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[torch.Tensor] = []
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor, sigma: torch.Tensor, index: torch.Tensor) -> Any:
        self.given, self.seen = [index], [x]
        return type("Output", (), {"sample": torch.zeros_like(x)})


def test_weights_of_the_levels() -> None:
    """Of the squared error of the image: 1 / sigma² (simple loss), 1 + 1 / sigma² (v), the latter up to 10."""
    sigma = torch.tensor([0.01, 0.1, 1.0, 10.0])

    def of_the_image(noise: Noise) -> list[float]:
        weights: list[float] = (level_weight(sigma, noise) / sigma**2).tolist()
        return weights

    assert of_the_image(Noise(-9.0, 9.0)) == pytest.approx([1e4, 1e2, 1.0, 0.01], rel=1e-4)
    assert of_the_image(Noise(-9.0, 9.0, weight=1.0)) == pytest.approx([10001, 101, 2, 1.01], rel=1e-4)
    assert of_the_image(Noise(-9.0, 9.0, weight=1.0, cap=10.0)) == pytest.approx([10, 10, 2, 1.01], rel=1e-4)


def test_three_heads_meet_the_same_noise() -> None:
    """A third of the rows knows everything, a third nothing, a third one factor; their inputs are equal."""
    factors = (Factor("hue", ("r", "g")), Factor("form", ("o", "v", "x")))
    network = Remembering()
    conditioning = Conditioning.with_null_last(factors)
    denoiser = Denoiser(network, VarianceExploding(0.01, 100.0), DataRange(-1.0, 1.0), conditioning, patch=2)
    items, labels = torch.zeros(8, 1, 4, 4), torch.tensor([[1, 2]]).repeat(8, 1)
    flat, weighted = Noise(-4.0, 4.0), Noise(-4.0, 4.0, weight=1.0)
    losses = [
        paired_loss(
            denoiser, TrainingSet(items, labels), 30, noise, generator_of(0, 0), torch.device("cpu")
        ).item()
        for noise in (flat, weighted)
    ]
    everything, nothing = 1 * 4 + 2, 2 * 4 + 3  # row of (hue, form) in the product table, each with its null last
    told, untold, one = network.given[0].split(10)
    assert set(told.tolist()) == {everything}
    assert set(untold.tolist()) == {nothing}
    assert set(one.tolist()) == {1 * 4 + 3, 2 * 4 + 2}
    first, *others = network.seen[0].split(10)
    assert first.shape == (10, 4, 2, 2)  # blocks of 2 x 2 pixels are channels
    assert all(torch.equal(first, other) for other in others)
    # score 0 means D(x) = x, so the error of each row is |n|²/dim, and the weight is 1 + sigma²
    again = generator_of(0, 0)
    torch.randint(8, (10,), generator=again)
    sigma = (-draw_log_snr(10, flat, again) / 2).exp()
    power = torch.randn((10, 1, 4, 4), generator=again).pow(2).mean(dim=(1, 2, 3))
    assert losses[0] == pytest.approx(power.mean().item(), rel=1e-4)
    assert losses[1] == pytest.approx(((1 + sigma**2) * power).mean().item(), rel=1e-4)


def test_stable_targets_are_posterior_means_of_what_a_head_may_know() -> None:
    """Row by row Σ w x with w ∝ exp(-‖x - x_i‖² / 2 sigma²) over the items that carry the labels told."""
    generator = torch.Generator().manual_seed(0)
    items = torch.randn((12, 1, 2, 2), generator=generator)
    items[6:] = items[:6]  # every image occurs with both values of the second factor
    labels = torch.stack([torch.arange(12) % 3, torch.arange(12) // 6], dim=1)
    data = TrainingSet(items, labels, FinitePopulation(items.flatten(1)))
    chosen, sigma = torch.tensor([0, 4, 11]), torch.tensor([0.3, 1.0, 30.0])
    x = items[chosen] + sigma.view(-1, 1, 1, 1) * torch.randn((3, 1, 2, 2), generator=generator)
    told = labels[chosen]
    given = torch.stack([told, torch.full_like(told, -1), torch.tensor([[0, -1], [-1, 0], [2, -1]])])
    targets = data.targets(chosen, x, sigma, given).view(3, 3, 4)
    for head in range(3):
        for row in range(3):
            may_be = [
                i
                for i in range(12)
                if all(g in (-1, v) for g, v in zip(given[head, row].tolist(), labels[i].tolist(), strict=True))
            ]
            points = items[may_be].flatten(1).double()
            distance = (x[row].flatten().double() - points).square().sum(1)
            expected = torch.softmax(-distance / (2 * sigma[row].double() ** 2), 0) @ points
            torch.testing.assert_close(targets[head, row].double(), expected, atol=1e-6, rtol=1e-6)
    # a factor that says nothing of the image moves no target: its head is the one without labels, exactly
    silent = torch.stack([torch.full_like(told, -1), torch.tensor([[-1, 1], [-1, 0], [-1, 1]])])
    without, with_silent = data.targets(chosen, x, sigma, silent).chunk(2)
    assert torch.equal(without, with_silent)
    plain = TrainingSet(items, labels).targets(chosen, x, sigma, given)
    assert torch.equal(plain, items[chosen].repeat(3, 1, 1, 1))


def test_stable_targets_have_the_same_mean_and_no_variance() -> None:
    """The gradient of the ordinary loss is that of the stable one plus noise of mean zero (law of total mean)."""
    points = torch.tensor([-1.0, 0.0, 2.0]).view(3, 1, 1, 1)
    data = TrainingSet(points, torch.zeros(3, 1, dtype=torch.long), FinitePopulation(points.flatten(1)))
    generator = torch.Generator().manual_seed(1)
    chosen = torch.randint(3, (200_000,), generator=generator)
    x = points[chosen] + torch.randn((200_000, 1, 1, 1), generator=generator)
    near = (x.flatten() - 0.5).abs() < 0.05
    given = torch.full((1, 200_000, 1), -1)
    stable = data.targets(chosen, x, torch.ones(200_000), given).flatten()[near]
    item = points[chosen].flatten()[near]
    standard_errors = 4 * item.std().item() / near.sum().item() ** 0.5
    assert stable.mean().item() == pytest.approx(item.mean().item(), abs=standard_errors)
    assert stable.std().item() < 0.05 * item.std().item()


class Constant(torch.nn.Module):
    """Score of data concentrated at `value` of its class, at 0 without one; the exact network for such data."""

    def forward(self, y: torch.Tensor, sigma: torch.Tensor, index: torch.Tensor) -> Any:
        centre = torch.tensor([-0.5, 0.5, 0.0])[index].view(-1, 1, 1, 1)
        return type("Output", (), {"sample": (centre - y) / sigma.view(-1, 1, 1, 1) ** 2})


def test_losses_of_a_known_denoiser() -> None:
    """D = class value, so the conditional error is 0 and the unconditional one 0.25 / sigma²."""
    conditioning = Conditioning.with_null_last(Images(values=2).factors)
    denoiser = Denoiser(Constant(), VarianceExploding(0.01, 100.0), DataRange(-1.0, 1.0), conditioning)
    labels = torch.tensor([[0], [1]] * 8)
    items = torch.where(labels == 0, -0.5, 0.5).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous()
    noise = Noise(-4.0, 4.0)
    for row in held_out_losses(denoiser, items, labels, noise, seed=0, device=torch.device("cpu"), levels=5):
        assert row["conditional"] == pytest.approx(0.0, abs=1e-6)
        assert row["unconditional"] == pytest.approx(0.25 * math.exp(row["log_snr"]), rel=1e-3)
    generator = generator_of(0, 0)
    loss = paired_loss(denoiser, TrainingSet(items, labels), 64, noise, generator, torch.device("cpu"))
    again = generator_of(0, 0)
    torch.randint(len(items), (32,), generator=again)
    snr = draw_log_snr(32, noise, again).exp()
    assert loss.item() == pytest.approx(0.5 * 0.25 * snr.mean().item(), rel=1e-3)  # half the rows are told
