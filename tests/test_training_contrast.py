"""The last stage of a recipe that weighs differences between heads: who is told what, and what counts."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from benchsuite_models.finite_population import FinitePopulation
from benchsuite_models.training.config import Blend, DiffusionRecipe, Noise, Optimisation, Pairs, Stage, UNet
from benchsuite_models.training.diffusion import FAVOURED, UNTOLD, TrainingSet, paired_loss
from benchsuite_models.training.loop import generator_of
from diffusers_factory import Images
from staged_training import losses

CPU = torch.device("cpu")
NOISE = Noise(-4.0, 4.0)
#: two factors that are seen and one that is not: every point occurs once with either of its values
SEEN = torch.cartesian_prod(torch.arange(2), torch.arange(3))
POINTS = torch.randn((6, 4), generator=torch.Generator().manual_seed(3))
SHUFFLED = torch.tensor([7, 2, 9, 0, 11, 4, 1, 10, 3, 8, 5, 6])


def rooms() -> TrainingSet:
    labels = torch.cat([SEEN.repeat(2, 1), torch.arange(2).repeat_interleave(6)[:, None]], dim=1)[SHUFFLED]
    items = POINTS.repeat(2, 1)[SHUFFLED].view(12, 1, 2, 2)
    return TrainingSet(items, labels, FinitePopulation(items.flatten(1)))


def exact(data: TrainingSet) -> Any:
    def denoise(x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        rows = []
        for point, s, told in zip(x.flatten(1).double(), sigma.double(), labels, strict=True):
            may_be = data.items[((told == data.labels) | (told < 0)).all(1)].flatten(1).double()
            rows.append(torch.softmax(-(point - may_be).square().sum(1) / (2 * s**2), 0) @ may_be)
        return torch.stack(rows).float().view_as(x)

    return denoise


@pytest.mark.parametrize("favoured", [[], [1]])
def test_two_draws_from_the_posterior_are_told_apart(favoured: list[int]) -> None:
    """Against the probability of every (factor, one value, other value), by enumeration of both draws."""
    data, x, sigma, rows = rooms(), torch.tensor([0.3, -0.2, 0.5, 0.1]), 1.2, 20_000
    told = data.drawn_apart(
        x.expand(rows, 4).view(-1, 1, 2, 2), torch.full((rows,), sigma), generator_of(0, 0), favoured
    )
    assert told.shape == (2, rows, 3)
    assert ((told >= 0).sum(2) == 1).all()
    factor = (told[0] >= 0).int().argmax(1)
    assert torch.equal(factor, (told[1] >= 0).int().argmax(1))
    values = told.gather(2, factor.expand(2, rows)[:, :, None])[:, :, 0]
    found = Counter(zip(factor.tolist(), values[0].tolist(), values[1].tolist(), strict=True))

    p = torch.softmax(-(x - POINTS).square().sum(1) / (2 * sigma**2), 0)
    expected: Counter[tuple[int, int, int]] = Counter()
    for i, j in itertools.product(range(6), repeat=2):
        a, b = SEEN[i], SEEN[j]
        telling = torch.tensor([FAVOURED if column in favoured else 1.0 for column in range(2)])
        chance = torch.tensor([*torch.where(a != b, telling, UNTOLD).tolist(), UNTOLD])
        chance = chance / chance.sum() * p[i] * p[j]
        for k in range(2):
            expected[k, int(a[k]), int(b[k])] += chance[k].item()
        for unseen in itertools.product(range(2), repeat=2):
            expected[2, unseen[0], unseen[1]] += chance[2].item() / 4
    assert sum(expected.values()) == pytest.approx(1)
    assert found.keys() <= expected.keys()
    for key, chance in expected.items():
        error = (chance * (1 - chance) / rows) ** 0.5
        assert found[key] / rows == pytest.approx(chance, abs=4.5 * error), key


def test_a_certain_value_is_told_to_both() -> None:
    data = rooms()
    x, sigma = POINTS[2].expand(50, 4).view(-1, 1, 2, 2), torch.full((50,), 1e-2)
    one, other = data.drawn_apart(x, sigma, generator_of(0, 0))
    assert torch.equal(one[:, :2], other[:, :2])
    told = one[:, :2]
    assert torch.equal(told, torch.where(told >= 0, SEEN[2], -1))


def test_the_exact_denoiser_has_no_loss() -> None:
    data = rooms()
    assert paired_loss(exact(data), data, 80, NOISE, generator_of(0, 1), CPU, Stage(0, contrast=9.0)).item() < 1e-8


def test_only_errors_of_the_difference_count_more() -> None:
    """An error common to all heads weighs what it did, one that tells the heads apart the more."""
    data = rooms()
    truth, found = exact(data), {}
    for weight in (0.0, 5.0):
        for name, turn in (("common", 0.0), ("apart", 1.0)):

            def off(
                x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor, turn: float = turn
            ) -> torch.Tensor:
                """Off by one noise everywhere; where apart, to the other side in the last head."""
                head = torch.arange(4).repeat_interleave(len(x) // 4)
                sign = torch.where(head == 3, 1 - 2 * turn, 1.0)
                return truth(x, sigma, labels) + (sign * sigma).view(-1, 1, 1, 1)

            denoiser: Any = off
            found[name, weight] = paired_loss(
                denoiser, data, 80, NOISE, generator_of(0, 2), CPU, Stage(0, contrast=weight)
            ).item()
    assert found["common", 0.0] == pytest.approx(1, rel=1e-4)
    assert found["common", 5.0] == pytest.approx(1, rel=1e-4)
    assert found["apart", 0.0] == pytest.approx(1, rel=1e-4)
    assert found["apart", 5.0] == pytest.approx(1 + 5 / 4 * 2**2, rel=1e-4)  # 5 times (1 - -1)², over four heads


def test_a_stage_names_the_factors_that_are_told_apart_more_often() -> None:
    data, shares = rooms(), []
    for apart in ((), ("form",)):
        told: list[torch.Tensor] = []

        def asked(
            x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor, told: list[torch.Tensor] = told
        ) -> torch.Tensor:
            told.append(labels.chunk(4)[2])  # the first of the two heads that are told one label
            return x

        denoiser: Any = asked
        stage = Stage(0, Noise(-4.0, -3.0), contrast=1.0, apart=apart)
        paired_loss(denoiser, data, 4000, NOISE, generator_of(0, 3), CPU, stage, ("colour", "form", "unseen"))
        shares.append((told[0][:, 1] >= 0).float().mean().item())
    assert 0.3 < shares[0] < 0.7
    assert shares[1] > shares[0] + 0.08  # two factors: only where draws differ in both is there a choice


def test_a_recipe_contrasts_from_its_step_on_at_levels_of_its_own(tmp_path: Path) -> None:
    plain = losses(tmp_path / "plain", Images(factors=2))
    late = losses(tmp_path / "late", Images(factors=2), Stage(4, contrast=3.0))
    assert plain[:4] == late[:4]
    assert plain[4] != late[4]
    elsewhere = losses(tmp_path / "elsewhere", Images(factors=2), Stage(4, Noise(2.0, 3.0), contrast=3.0))
    assert late[:4] == elsewhere[:4]
    assert late[4] != elsewhere[4]
    losses(tmp_path / "short", Images(factors=2), Stage(4, contrast=3.0), steps=3)
    written = json.loads((tmp_path / "short" / "recipe.json").read_text())["config"]
    assert written["stages"][0]["start"] == written["optimisation"]["restarts"][0] == 2


def test_pairs_share_their_noise_at_levels_of_their_own() -> None:
    """One head is told nothing, the other one factor of an item that the noised one may be."""
    data, steps = rooms(), []

    def asked(x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        steps.append((x, sigma, labels))
        return x

    denoiser: Any = asked
    stage = Stage(0, contrast=1.0, apart=("form",), pairs=Pairs(0.5, centre=-1.0, width=0.7))
    names = ("colour", "form", "unseen")
    for step in range(60):
        paired_loss(denoiser, data, 400, NOISE, generator_of(0, step), CPU, stage, names)
    assert {len(x) for x, _, _ in steps} == {400}
    pairs = [step for step in steps if (step[2][:200] == -1).all()]  # else the first head is told all
    assert len(pairs) / 60 == pytest.approx(0.5, abs=4.5 * 0.5 / 60**0.5)
    for x, sigma, labels in pairs:
        assert torch.equal(x[:200], x[200:])
        assert ((labels[200:] >= 0).sum(1) == 1).all()
        log_snr = -2 * sigma.log()
        assert log_snr.mean().item() == pytest.approx(-1.0, abs=0.02)  # stratified: far better than chance
        assert log_snr.std().item() == pytest.approx(0.7, abs=0.03)
    told = torch.cat([labels[200:] for _, _, labels in pairs])
    assert (told[:, 1] >= 0).sum() > 1.3 * (told[:, 0] >= 0).sum()
    assert (told[:, 2] >= 0).any()


@pytest.mark.parametrize("weight", [0.0, 5.0])
def test_only_errors_of_the_difference_count_more_in_pairs(weight: float) -> None:
    data, stage = rooms(), Stage(0, pairs=Pairs(1.0, centre=-1.0, width=1.0, contrast=weight))
    truth = exact(data)
    for turn, expected in ((0.0, 1.0), (2.0, 1 + weight / 2 * 2**2)):  # weight times (1 - -1)², over two heads

        def off(x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor, turn: float = turn) -> torch.Tensor:
            sign = torch.where(torch.arange(len(x)) < len(x) // 2, 1.0, 1 - turn)
            return truth(x, sigma, labels) + (sign * sigma).view(-1, 1, 1, 1)

        denoiser: Any = off
        loss = paired_loss(denoiser, data, 80, NOISE, generator_of(0, 2), CPU, stage, ("colour", "form", "unseen"))
        assert loss.item() == pytest.approx(expected, rel=1e-4)
    assert paired_loss(truth, data, 80, NOISE, generator_of(0, 2), CPU, stage).item() < 1e-8


@pytest.mark.parametrize(
    "stage",
    [
        Stage(0, contrast=1.0),
        Stage(0, blends=(Blend(("form",), -2.0, 4.0),)),
        Stage(0, pairs=Pairs(0.5, centre=0.0, width=1.0)),
    ],
)
def test_stages_between_items_ask_for_stable_targets(stage: Stage) -> None:
    with pytest.raises(ValueError, match="set targets to 'posterior'"):
        DiffusionRecipe("ddpm", "images", UNet((8, 16)), NOISE, Optimisation(4, 9, 1e-3), stages=(stage,))


def test_stages_come_in_order() -> None:
    stages = (Stage(5), Stage(2, Noise(0.0, 1.0)), Stage(2))
    with pytest.raises(ValueError, match=r"stages start at \[5, 2, 2\]: put them in order"):
        DiffusionRecipe("ddpm", "images", UNet((8, 16)), NOISE, Optimisation(4, 9, 1e-3), stages=stages)
    recipe = DiffusionRecipe(
        "ddpm", "images", UNet((8, 16)), NOISE, Optimisation(4, 9, 1e-3), stages=(*stages[1:], stages[0])
    )
    assert [recipe.stage(step) for step in (0, 1, 2, 4, 5, 9)] == [Stage(0)] * 2 + [Stage(2)] * 2 + [Stage(5)] * 2
