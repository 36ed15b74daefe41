"""AdamW for all weights, or Muon for the matrices among them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from benchsuite_models.training.config import DiffusionRecipe, Noise, Optimisation, UNet
from benchsuite_models.training.loop import fit, generator_of
from benchsuite_models.training.muon import Muon
from benchsuite_models.training.optimiser import Optimiser
from benchsuite_models.training.run import train_diffusion
from diffusers_factory import Images

ADAM = Optimisation(steps=8, batch=1, learning_rate=1e-2, weight_decay=0.0, warm_up=1, checkpoint_every=3)
MUON = Optimisation(steps=8, batch=1, learning_rate=1e-2, weight_decay=0.0, restarts=(5,), muon=5)


class Network(torch.nn.Module):
    """A table, a convolution and a matrix, on one input."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = torch.nn.Embedding(3, 4)
        self.convolution = torch.nn.Conv2d(4, 6, 3, padding=1)
        self.matrix = torch.nn.Linear(6, 2)
        self.frozen = torch.nn.Parameter(torch.ones(2, 2), requires_grad=False)

    def forward(self) -> torch.Tensor:
        rows = self.table(torch.tensor([0, 2])).T.reshape(1, 4, 2, 1)
        pooled: torch.Tensor = self.matrix(self.convolution(rows).mean(dim=(2, 3)))
        return (pooled - 1).square().sum()


def changes(config: Optimisation, step: int, learning_rate: float = 1e-2) -> dict[str, torch.Tensor]:
    """{name: how one step moves each weight}."""
    network = Network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    Optimiser(network, config, step).step(network(), learning_rate, clip=1e9)
    return {name: value - before[name] for name, value in network.state_dict().items()}


def test_muon_takes_every_direction_of_a_matrix_the_same_way() -> None:
    """Against the definition: the singular vectors of the gradient, each with about the same weight."""
    network, moved = Network(), changes(MUON, 5)
    network().backward()
    for name, parameter in (("convolution", network.convolution.weight), ("matrix", network.matrix.weight)):
        assert parameter.grad is not None
        gradient, step = parameter.grad.flatten(1), moved[f"{name}.weight"].flatten(1)
        left, size, right = torch.linalg.svd(gradient, full_matrices=False)
        some = size > 1e-3 * size[0]
        turned = left.T @ step @ right.T / (-1e-2 * 0.2 * max(step.shape) ** 0.5)
        along = turned.diagonal()[some]
        assert (along > 0.6).all(), name
        assert (along < 1.3).all(), name
        apart = turned[some][:, some] - along.diag()
        assert apart.abs().max() < 1e-3, name


def test_all_but_matrices_are_adamws() -> None:
    adam, muon = changes(ADAM, 0), changes(MUON, 5)
    for name in ("table.weight", "convolution.bias", "matrix.bias", "frozen"):
        assert torch.equal(adam[name], muon[name]), name
    assert not torch.allclose(adam["matrix.weight"], muon["matrix.weight"], rtol=0.01)
    assert muon["table.weight"][1].abs().max() == 0  # a row that the batch did not see
    assert muon["frozen"].abs().max() == 0


def test_steps_before_are_adamws_throughout() -> None:
    adam, before = changes(ADAM, 4), changes(MUON, 4)
    assert all(torch.equal(adam[name], before[name]) for name in adam)


def test_the_learning_rate_is_that_of_the_step() -> None:
    whole, half = changes(MUON, 5, 1e-2), changes(MUON, 5, 5e-3)
    for name in whole:
        assert half[name] == pytest.approx(whole[name] / 2, abs=3e-7), name  # two roundings of a weight near 1


@pytest.mark.parametrize("stop", [4, 5, 6, 7])
def test_a_run_in_pieces_is_the_run_in_one_go(tmp_path: Path, stop: int) -> None:
    """Stopped before, at and after the step where the optimiser changes."""

    def run(name: str, steps_seen: int) -> Network:
        network = Network()

        def track(items: range, description: str, total: int) -> list[int]:
            return list(items)[:steps_seen]

        config = Optimisation(8, 1, 1e-2, warm_up=1, checkpoint_every=1, restarts=(5,), muon=5)
        fit(
            network, lambda step, generator: network(), config, seed=0, checkpoint=tmp_path / name,
            identity={}, description="", track=track,
        )  # fmt: skip
        return network

    run("pieces", stop)
    pieces, whole = run("pieces", 99).state_dict(), run("whole", 99).state_dict()
    assert all(torch.equal(pieces[name], whole[name]) for name in whole)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has no Muon before 2.9")
def test_steps_are_those_of_torchs_own_muon() -> None:
    """That makes its products in bfloat16, eight bits, so that each step differs by some per cent."""
    ours, theirs = (torch.nn.Parameter(torch.randn(6, 9, generator=generator_of(0, 0))) for _ in range(2))
    options = {"lr": 1e-2, "weight_decay": 0.5}
    mine: torch.optim.Optimizer = Muon([ours], **options)
    other = torch.optim.Muon([theirs], adjust_lr_fn="match_rms_adamw", **options)
    for step in range(1, 5):
        gradient = torch.randn(6, 9, generator=generator_of(0, step))
        before = [weight.detach().clone() for weight in (ours, theirs)]
        for weight, optimiser in ((ours, mine), (theirs, other)):
            weight.grad = gradient.clone()
            optimiser.step()
        moved, expected = (w.detach() - b for w, b in zip((ours, theirs), before, strict=True))
        assert (moved - expected).norm() < 0.03 * expected.norm(), step


def test_a_convolution_is_the_matrix_of_its_channels() -> None:
    weight = torch.nn.Parameter(torch.randn(4, 2, 3, 3, generator=generator_of(0, 0)))
    matrix = torch.nn.Parameter(weight.detach().clone().flatten(1))
    for parameter in (weight, matrix):
        parameter.grad = torch.sin(parameter.detach())
        Muon([parameter], lr=1e-2, weight_decay=0.0).step()
    assert torch.equal(weight.detach().flatten(1), matrix.detach())


def test_muon_begins_with_a_run_of_the_optimiser() -> None:
    with pytest.raises(ValueError, match=r"muon=3 is neither 0 nor one of the restarts \(5,\)"):
        Optimisation(8, 1, 1e-2, restarts=(5,), muon=3)


@pytest.mark.parametrize(("steps", "muon"), [(6, 4), (3, 2), (1, None)])
def test_it_moves_with_the_number_of_steps(tmp_path: Path, steps: int, muon: int | None) -> None:
    recipe = DiffusionRecipe(
        "ddpm",
        "images",
        UNet(widths=(8, 16), groups=4, head=8),
        Noise(-4.0, 4.0),
        Optimisation(steps=6, batch=4, learning_rate=1e-3, warm_up=2, restarts=(4,), muon=4),
    )
    train_diffusion(
        "muon", recipe, tmp_path, device="cpu", seed=0, steps=steps,
        datasets=lambda spec: Images(), track=lambda items, description, total: items,
    )  # fmt: skip
    written = json.loads((tmp_path / "recipe.json").read_text())["config"]["optimisation"]
    assert written["muon"] == muon
