"""The last stage of a recipe that trains between items: partners, inputs, and targets that are still exact."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from benchsuite_models.finite_population import FinitePopulation
from benchsuite_models.training.config import Blend, Noise, Stage
from benchsuite_models.training.diffusion import TrainingSet, paired_loss
from benchsuite_models.training.loop import generator_of
from diffusers_factory import Images
from staged_training import losses

from benchsuite import Split

CPU = torch.device("cpu")
LABELS = torch.cartesian_prod(torch.arange(2), torch.arange(3))[torch.tensor([4, 0, 3, 5, 1, 2])]
NAMES = ("hue", "form")
BLEND = Blend(("form",), low=20.0, high=20.0)
NOISE = Noise(-4.0, 4.0)


def rooms() -> TrainingSet:
    items = torch.randn((6, 1, 2, 2), generator=torch.Generator().manual_seed(3))
    return TrainingSet(items, LABELS, FinitePopulation(items.flatten(1)))


@pytest.mark.parametrize("column", [0, 1])
def test_partners_differ_in_one_factor(column: int) -> None:
    data, chosen = rooms(), torch.arange(6).repeat(50)
    found = data.partners(chosen, column, generator_of(0, 0))
    assert torch.equal((LABELS[found] != LABELS[chosen]).sum(0), torch.tensor([0, 300][:: 1 if column else -1]))
    for item in range(6):  # all of them, in equal parts
        others = found[chosen == item].bincount()
        others = others[others > 0]
        assert len(others) == (1, 2)[column]
        assert others.min() > 12
    assert torch.equal(found, data.partners(chosen, column, generator_of(0, 0)))


@pytest.mark.parametrize(
    "labels", [LABELS[:5], torch.cat([LABELS, LABELS[:1]]), LABELS[:, :1].unique(dim=0).repeat(1, 2)]
)
def test_partners_of_incomplete_combinations_are_refused(labels: torch.Tensor) -> None:
    data = TrainingSet(torch.zeros(len(labels), 1, 2, 2), labels)
    with pytest.raises(ValueError, match="combinations of values are missing"):
        data.partners(torch.tensor([0]), 1, generator_of(0, 0))


class Remembering:
    """A denoiser that notes what it sees."""

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        self.x, self.sigma = x, sigma
        return x


def blending(*blends: Blend | None) -> Stage:
    return Stage(0, blends=blends)


def seen(*blends: Blend | None) -> tuple[torch.Tensor, torch.Tensor]:
    """x (10, 4) and sigma (10,) of the first head; all three see the same."""
    denoiser: Any = Remembering()
    paired_loss(denoiser, rooms(), 30, NOISE, generator_of(0, 0), CPU, blending(*blends), NAMES)
    heads = denoiser.x.flatten(1).split(10)
    assert all(torch.equal(heads[0], head) for head in heads)
    return heads[0], denoiser.sigma[:10]


def test_every_second_input_lies_between_an_item_and_a_partner() -> None:
    plain, blended = seen(), seen(BLEND)
    for before, after in zip(plain, blended, strict=True):
        assert torch.equal(before[1::2], after[1::2])
    x, sigma = (part[::2] for part in blended)
    assert torch.allclose(sigma, torch.tensor(-10.0).exp())
    data = rooms()
    items, parts = data.items.flatten(1), []
    chosen = torch.randint(6, (10,), generator=generator_of(0, 0))[::2]
    for row, item in zip(x, chosen.tolist(), strict=True):
        partners = [i for i in range(6) if i != item and LABELS[i, 0] == LABELS[item, 0]]
        ways = items[partners] - items[item]
        part = ((row - items[item]) * ways).sum(1) / ways.square().sum(1)
        off = (row - items[item] - part[:, None] * ways).norm(dim=1)
        assert off.min() < 1e-3  # noise of e^-10
        parts.append(part[off.argmin()].item())
    assert all(0 <= part <= 1 for part in parts)
    assert max(parts) - min(parts) > 0.3


def test_targets_between_items_are_the_exact_denoiser() -> None:
    """What knows every posterior mean has no loss, wherever its inputs lie, and what copies has some."""
    data = rooms()

    def exact(x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        rows = []
        for point, s, told in zip(x.flatten(1).double(), sigma.double(), labels, strict=True):
            may_be = data.items[((told == LABELS) | (told < 0)).all(1)].flatten(1).double()
            rows.append(torch.softmax(-(point - may_be).square().sum(1) / (2 * s**2), 0) @ may_be)
        return torch.stack(rows).float().view_as(x)

    blend = blending(replace(BLEND, factors=NAMES, low=-1.0, high=3.0, emphasis=50.0))
    denoiser: Any = exact
    assert paired_loss(denoiser, data, 60, NOISE, generator_of(0, 1), CPU, blend, NAMES).item() < 1e-8
    denoiser = Remembering()
    assert paired_loss(denoiser, data, 60, NOISE, generator_of(0, 1), CPU, blend, NAMES).item() > 0.1


def test_errors_along_the_way_count_more() -> None:
    """Items on a line: all of an error towards the partner is along the way, none of one across it."""
    way = torch.tensor([3.0, 4.0, 0.0, 0.0])
    items = torch.stack([-way, way]).view(2, 1, 2, 2)
    data = TrainingSet(items, torch.tensor([[0, 0], [0, 1]]), FinitePopulation(items.flatten(1)))
    across = torch.tensor([4.0, -3.0, 0.0, 1.0])
    found = {}
    for emphasis in (0.0, 7.0):
        blend = blending(replace(BLEND, low=-3.0, high=3.0, emphasis=emphasis))
        for name, error in (("along", way), ("across", across)):

            def off(x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor, by: Any = error) -> torch.Tensor:
                """The exact mean of two points, all labels told or not, and an error."""
                log_odds = 2 * (x.flatten(1) @ way) / sigma**2
                mean = torch.tanh(log_odds / 2)[:, None] * way
                told = labels[:, 1:]
                mean = torch.where(told < 0, mean, (2 * told - 1) * way)
                return (mean + by).view_as(x)

            denoiser: Any = off
            loss = paired_loss(denoiser, data, 60, NOISE, generator_of(0, 2), CPU, blend, NAMES)
            found[name, emphasis] = loss.item()
    assert found["along", 7.0] == pytest.approx(8 * found["along", 0.0], rel=1e-3)
    assert found["across", 7.0] == pytest.approx(found["across", 0.0], rel=1e-3)


class Grid(Images):
    """Every combination of two factors once."""

    def split(self, name: str) -> Split:
        images = super().split(name).images[:9]
        labels = torch.cartesian_prod(torch.arange(3), torch.arange(3))
        return Split(images, labels, tuple(f"{name}/{i}" for i in range(9)))


def test_a_recipe_blends_from_its_step_on(tmp_path: Path) -> None:
    plain = losses(tmp_path / "plain", Grid(factors=2))
    stage = Stage(4, blends=(Blend(("other1",), -2.0, 4.0),))
    late = losses(tmp_path / "late", Grid(factors=2), stage)
    assert plain[:4] == late[:4]
    assert plain[4] != late[4]
    losses(tmp_path / "short", Grid(factors=2), stage, steps=3)
    written = json.loads((tmp_path / "short" / "recipe.json").read_text())["config"]
    assert written["stages"][0]["start"] == written["optimisation"]["restarts"][0] == 2


def test_every_blend_of_a_stage_gets_its_turn() -> None:
    other = replace(BLEND, factors=("hue",), low=10.0, high=10.0)
    denoiser: Any = Remembering()
    levels = []
    for step in range(40):
        paired_loss(denoiser, rooms(), 30, NOISE, generator_of(0, step), CPU, blending(BLEND, other), NAMES)
        levels.append(round(-2 * denoiser.sigma[0].log().item()))
    assert set(levels) == {10, 20}
    assert 10 <= levels.count(10) <= 30


def test_a_stage_may_blend_at_some_of_its_steps() -> None:
    denoiser: Any = Remembering()
    blended = 0
    for step in range(40):
        paired_loss(denoiser, rooms(), 30, NOISE, generator_of(0, step), CPU, blending(BLEND, None), NAMES)
        blended += round(-2 * denoiser.sigma[0].log().item()) == 20
    assert 10 <= blended <= 30
