"""Training recipes: what they leave behind, that interruption changes nothing, and what they refuse."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from benchsuite_models.ddpm import DDPM
from benchsuite_models.latent_diffusion import LatentDiffusion
from benchsuite_models.recipes import LatentDiffusionDigits, LatentDiffusionMNIST
from benchsuite_models.score_sde import ScoreSDE
from benchsuite_models.training.autoencoder import build_autoencoder, train_autoencoder
from benchsuite_models.training.config import Autoencoder, DiffusionRecipe, Noise, Optimisation, UNet
from benchsuite_models.training.loop import fit, generator_of
from benchsuite_models.training.run import train_diffusion
from diffusers_factory import Images
from safetensors.torch import load_file

from benchsuite import BenchsuiteError, Dataset, DiffusionModel, ModelLoadError, UsageError

STEPS = 6
OPTIMISATION = Optimisation(steps=STEPS, batch=8, learning_rate=1e-3, warm_up=2, checkpoint_every=2)
FROZEN = Optimisation(steps=1, batch=5, learning_rate=0.0)
UNET = UNet(widths=(8, 16), groups=4, head=8)
NOISE = Noise(-6.0, 6.0)
RECIPES = {
    "ddpm": DiffusionRecipe("ddpm", "images", UNET, NOISE, OPTIMISATION),
    "score-sde": DiffusionRecipe("score-sde", "images", UNET, NOISE, OPTIMISATION),
    "latent-diffusion": DiffusionRecipe(
        "latent-diffusion",
        "images",
        UNET,
        NOISE,
        OPTIMISATION,
        Autoencoder((8, 8), latent_channels=2, layers=1, groups=4, kl=1e-3, optimisation=OPTIMISATION),
    ),
}
ADAPTERS: dict[str, type[DiffusionModel]] = {
    "ddpm": DDPM,
    "score-sde": ScoreSDE,
    "latent-diffusion": LatentDiffusion,
}


class Interrupted(Exception):
    pass


def all_of(items: Iterable[int], description: str, total: int) -> Iterable[int]:
    return items


def stop_after(steps: int) -> Callable[..., Iterator[int]]:
    """A progress bar during which the power fails."""
    done = 0

    def track(items: Iterable[int], description: str, total: int) -> Iterator[int]:
        nonlocal done
        for item in items:
            if done == steps:
                raise Interrupted
            done += 1
            yield item

    return track


def train(
    family: str,
    out: Path,
    track: Callable[..., Any] = all_of,
    seed: int = 0,
    steps: int | None = None,
    factors: int = 1,
) -> dict[str, Any]:
    def datasets(spec: str) -> Dataset:
        assert spec == "images"
        return Images(factors=factors)

    return train_diffusion(
        f"{family}-images",
        RECIPES[family],
        out,
        device="cpu",
        seed=seed,
        steps=steps,
        datasets=datasets,
        track=track,
    )


def weights(out: Path) -> dict[str, torch.Tensor]:
    return {
        f"{path.parent.name if path.parent != out else ''}/{name}": value
        for path in out.rglob("diffusion_pytorch_model.safetensors")
        for name, value in load_file(path).items()
    }


@pytest.mark.parametrize("family", RECIPES)
def test_a_recipe_leaves_a_model_that_its_adapter_opens(tmp_path: Path, family: str) -> None:
    results = train(family, tmp_path)
    model = ADAPTERS[family](str(tmp_path))  # type: ignore[call-arg]
    dataset = Images()
    model.bind(dataset)
    model.load()
    assert [(f.name, f.size) for f in model.factors] == [("class", 3)]
    part = dataset.split("val")
    x0 = model.encode(part.images)
    sigma = torch.full((len(x0),), 0.5)
    denoised = [model.denoise(x0 + 0.5 * torch.randn_like(x0), sigma, labels) for labels in (None, part.labels)]
    assert all(torch.isfinite(d).all() for d in denoised)

    assert not (tmp_path / "checkpoint").exists()
    record = json.loads((tmp_path / "recipe.json").read_text())
    assert record["results"] == results
    assert record["recipe"] == f"{family}-images"
    assert (record["seed"], record["config"]["optimisation"]["steps"]) == (0, STEPS)
    assert record["data"] == dataset.fingerprint()
    assert set(record["versions"]) == {"benchsuite", "diffusers", "python", "torch"}
    assert results["parameters"] == sum(p.numel() for p in model.network.parameters())  # type: ignore[union-attr]
    with (tmp_path / "loss.csv").open() as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == list(range(1, STEPS + 1))
    with (tmp_path / "held_out.csv").open() as file:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    assert [rows[0]["log_snr"], rows[-1]["log_snr"]] == [NOISE.low, NOISE.high]
    assert results["held_out_conditional"] == pytest.approx(sum(r["conditional"] for r in rows) / len(rows))
    assert all(value.dtype == torch.float16 for value in weights(tmp_path).values())
    if family == "latent-diffusion":
        scale = json.loads((tmp_path / "vae" / "config.json").read_text())["scaling_factor"]
        assert model.encode(dataset.split("train").images).std().item() == pytest.approx(1.0, abs=2e-3)
        assert results["autoencoder"]["scaling_factor"] == scale


def test_the_curve_of_a_long_run_is_of_blocks_of_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train("ddpm", tmp_path / "whole")
    monkeypatch.setattr("benchsuite_models.training.run.CURVE", STEPS // 3)
    train("ddpm", tmp_path / "blocks")
    curves = []
    for name in ("whole", "blocks"):
        with (tmp_path / name / "loss.csv").open() as file:
            curves.append({int(row["step"]): float(row["loss"]) for row in csv.DictReader(file)})
    whole, blocks = curves
    assert list(blocks) == sorted({*range(3, STEPS + 1, 3), STEPS})
    for last, mean in blocks.items():
        block = [whole[step] for step in whole if (last - 1) // 3 * 3 < step <= last]
        assert mean == pytest.approx(sum(block) / len(block), rel=6e-3)  # three digits


@pytest.mark.parametrize(("family", "stop"), [("ddpm", 3), ("latent-diffusion", 9)])
def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(tmp_path: Path, family: str, stop: int) -> None:
    whole = train(family, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(family, tmp_path / "parts", track=stop_after(stop))
    assert not (tmp_path / "parts" / "recipe.json").exists()
    taken: list[int] = []

    def count(items: Iterable[int], description: str, total: int) -> Iterator[int]:
        for item in items:
            taken.append(item)
            yield item

    assert train(family, tmp_path / "parts", track=count) == whole
    stages = 2 if family == "latent-diffusion" else 1
    assert len(taken) == stages * STEPS - stop // 2 * 2  # a checkpoint every 2 steps
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert (tmp_path / "whole" / "loss.csv").read_text() == (tmp_path / "parts" / "loss.csv").read_text()


def test_a_finished_run_is_not_repeated_and_not_overwritten(tmp_path: Path) -> None:
    results = train("ddpm", tmp_path)
    assert train("ddpm", tmp_path, track=stop_after(0)) == results
    with pytest.raises(UsageError, match=r"holds another model \(it differs in seed\); train elsewhere"):
        train("ddpm", tmp_path, seed=1)
    with pytest.raises(UsageError, match=r"differs in config"):
        train("ddpm", tmp_path, steps=2)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        train("ddpm", tmp_path, track=stop_after(3))
    with pytest.raises(UsageError, match=r"checkpoint/unet belongs to another run \(it differs in seed\)"):
        train("ddpm", tmp_path, seed=1)


def test_steps_override_both_stages_in_proportion(tmp_path: Path) -> None:
    train("latent-diffusion", tmp_path, steps=3)
    config = json.loads((tmp_path / "recipe.json").read_text())["config"]
    assert config["optimisation"]["steps"] == 3
    assert config["autoencoder"]["optimisation"]["steps"] == 3
    with pytest.raises(UsageError, match="steps=0 is not a positive number"):
        train("ddpm", tmp_path / "none", steps=0)


def test_several_factors(tmp_path: Path) -> None:
    train("ddpm", tmp_path, factors=2)
    model = DDPM(str(tmp_path))
    model.load()
    assert [f.size for f in model.factors] == [3, 3]
    x = torch.zeros(2, 1, 8, 8)
    both = model.denoise(x, torch.ones(2), torch.tensor([[1, -1], [-1, 2]]))
    assert not torch.equal(both[0], both[1])


def test_seed_decides_the_result(tmp_path: Path) -> None:
    train("ddpm", tmp_path / "a", steps=1)
    train("ddpm", tmp_path / "b", steps=1, seed=1)
    one, other = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert not torch.equal(one["/conv_in.weight"], other["/conv_in.weight"])


def test_divergence_is_reported(tmp_path: Path) -> None:
    layer = torch.nn.Linear(1, 1)

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        return layer(torch.ones(1)).sum() * (math.inf if step == 1 else 1)

    with pytest.raises(BenchsuiteError, match=r"tiny: the loss is -?inf at step 1; lower the learning rate"):
        fit(
            layer,
            loss,
            OPTIMISATION,
            seed=0,
            checkpoint=tmp_path / "c",
            identity={},
            description="tiny",
            track=all_of,
        )


def test_a_kill_between_two_checkpoints_loses_neither(tmp_path: Path) -> None:
    """The old checkpoint is gone and the new one not yet renamed: the new one is taken."""

    def run(checkpoint: Path, track: Callable[..., Any] = all_of) -> float:
        layer = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.constant_(layer.weight, 3.0)

        def loss(step: int, generator: torch.Generator) -> torch.Tensor:
            return (layer.weight - torch.rand(1, generator=generator)).pow(2).sum()

        config = replace(OPTIMISATION, learning_rate=0.1)
        fit(layer, loss, config, seed=0, checkpoint=checkpoint, identity={}, description="", track=track)
        return layer.weight.item()

    whole = run(tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(tmp_path / "parts", stop_after(4))
    (tmp_path / "parts").rename(tmp_path / "parts.new")
    assert run(tmp_path / "parts", stop_after(2)) == whole


def test_a_restart_is_a_new_run_from_the_average(tmp_path: Path) -> None:
    """7 steps with a restart at 4 = 4 steps, then 3 of a new run that begins with what the first leaves."""

    def run(name: str, start: float, steps: int, first: int = 0, restarts: tuple[int, ...] = ()) -> float:
        layer = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.constant_(layer.weight, start)

        def loss(step: int, generator: torch.Generator) -> torch.Tensor:
            return (layer.weight - math.sin(1.0 + first + step)).pow(2).sum()

        config = replace(OPTIMISATION, steps=steps, learning_rate=0.3, warm_up=1, ema=0.1, restarts=restarts)
        fit(layer, loss, config, seed=0, checkpoint=tmp_path / name, identity={}, description="", track=all_of)
        return layer.weight.item()

    first = run("first", 3.0, 4)
    assert run("whole", 3.0, 7, restarts=(4,)) == pytest.approx(run("second", first, 3, first=4), abs=1e-6)
    assert abs(run("without", 3.0, 7) - run("second again", first, 3, first=4)) > 0.05


@pytest.mark.parametrize(("steps", "restarts"), [(3, [2]), (1, []), (12, [8])])
def test_restarts_move_with_the_number_of_steps(tmp_path: Path, steps: int, restarts: list[int]) -> None:
    """A recipe of 6 steps with a restart at 4, shortened and lengthened; each run ends in a decay."""
    recipe = replace(RECIPES["ddpm"], optimisation=replace(OPTIMISATION, restarts=(4,)))
    train_diffusion(
        "short", recipe, tmp_path, device="cpu", seed=0, steps=steps, datasets=lambda s: Images(), track=all_of
    )
    written = json.loads((tmp_path / "recipe.json").read_text())["config"]["optimisation"]
    assert (written["steps"], written["restarts"]) == (steps, restarts)


def test_fit_minimises_and_averages(tmp_path: Path) -> None:
    """A quadratic bowl: the average ends near the minimum, and a hard-coded batch generator is honoured."""
    layer = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(layer.weight, 3.0)
    seen = []

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        seen.append(torch.rand(1, generator=generator).item())
        return (layer.weight - 1).pow(2).sum()

    config = replace(OPTIMISATION, steps=300, learning_rate=0.05, weight_decay=0.0, ema=0.9)
    losses = fit(
        layer, loss, config, seed=7, checkpoint=tmp_path / "c", identity={}, description="bowl", track=all_of
    )
    assert losses[0] == 4.0
    assert layer.weight.item() == pytest.approx(1.0, abs=1e-2)
    assert seen[5] == torch.rand(1, generator=generator_of(7, 5)).item()
    assert len(set(seen)) == 300


@pytest.mark.parametrize("family", ["ddpm", "latent-diffusion"])
def test_a_recipe_with_stable_targets_trains(tmp_path: Path, family: str) -> None:
    recipe = replace(RECIPES[family], targets="posterior")
    results = train_diffusion(
        "stable", recipe, tmp_path, device="cpu", seed=0, steps=None, datasets=lambda s: Images(), track=all_of
    )
    assert math.isfinite(results["training_loss"])
    assert json.loads((tmp_path / "recipe.json").read_text())["config"]["targets"] == "posterior"


def test_detail_counts_what_is_within_blocks(tmp_path: Path) -> None:
    """An autoencoder that returns 0: error = mean x² + detail * mean (x - mean of its block)²."""
    x = torch.randn((6, 8, 4, 4), generator=torch.Generator().manual_seed(0))  # 2 channels, blocks of 2 x 2
    losses = {}
    for detail in (0.0, 10.0):
        config = Autoencoder((8, 8), 2, layers=1, groups=4, kl=0.0, optimisation=FROZEN, detail=detail)
        network = build_autoencoder((8, 4, 4), config)
        torch.nn.init.zeros_(network.decoder.conv_out.weight)
        torch.nn.init.zeros_(network.decoder.conv_out.bias)
        [losses[detail]] = train_autoencoder(
            network, x, config, patch=2, seed=0, device=torch.device("cpu"),
            checkpoint=tmp_path / str(detail), identity={}, track=all_of,
        )  # fmt: skip
    seen = x[torch.randint(6, (FROZEN.batch,), generator=generator_of(0, 0))]
    blocks = torch.nn.functional.pixel_shuffle(seen, 2).unfold(2, 2, 2).unfold(3, 2, 2)
    within = (blocks - blocks.mean(dim=(4, 5), keepdim=True)).square().mean().item()
    assert losses[0.0] == pytest.approx(seen.square().mean().item(), rel=1e-5)
    assert losses[10.0] == pytest.approx(seen.square().mean().item() + 10 * within, rel=1e-5)


@pytest.mark.parametrize("family", RECIPES)
def test_snapshots_are_the_average_at_their_step(tmp_path: Path, family: str) -> None:
    """A snapshot after k of n steps is what interrupting there leaves as its average, and opens like the model."""
    recipe = RECIPES[family]
    kept = replace(recipe, optimisation=replace(recipe.optimisation, snapshots=(2, 4)))

    def run(track: Callable[..., Any]) -> None:
        train_diffusion(
            "kept", kept, tmp_path, device="cpu", seed=0, steps=None, datasets=lambda spec: Images(), track=track
        )

    before = STEPS if family == "latent-diffusion" else 0  # those of the autoencoder
    with pytest.raises(Interrupted):
        run(stop_after(before + 4))
    average = load_file(tmp_path / "checkpoint" / "unet" / "average.safetensors")
    run(all_of)
    assert sorted(p.name for p in (tmp_path / "steps").iterdir()) == ["2", "4"]
    model = ADAPTERS[family](str(tmp_path), step=4)
    model.load()
    assert model.network is not None
    for name, value in model.network.state_dict().items():
        assert torch.equal(value, average[name].half().float()), name
    finished, early = ADAPTERS[family](str(tmp_path)), ADAPTERS[family](str(tmp_path), step=2)
    finished.load()
    early.load()
    assert len({m.fingerprint() for m in (finished, model, early)}) == 3
    with pytest.raises(ModelLoadError, match="not kept as it was after 3 training steps, only after 2, 4"):
        ADAPTERS[family](str(tmp_path), step=3).load()


def test_a_public_recipe_opens_its_data_set(tmp_path: Path) -> None:
    def datasets(spec: str) -> Dataset:
        assert spec == "digits"
        return Images((1, 8, 8), values=10)

    recipe = LatentDiffusionDigits()
    recipe.train(tmp_path, device="cpu", seed=0, steps=1, datasets=datasets, track=all_of)
    record = json.loads((tmp_path / "recipe.json").read_text())
    assert record["recipe"] == recipe.name == "latent-diffusion-digits"
    assert record["config"]["unet"] == json.loads(json.dumps(asdict(recipe.config.unet)))


@pytest.mark.parametrize(("directory", "opened"), [("", "mnist"), ("some/where", "mnist:some/where")])
def test_the_recipe_of_mnist_is_told_where_the_files_are_and_does_not_tell(
    tmp_path: Path, directory: str, opened: str
) -> None:
    def datasets(spec: str) -> Dataset:
        assert spec == opened
        return Images((1, 32, 32), values=10)

    recipe = LatentDiffusionMNIST(directory)
    recipe.train(tmp_path, device="cpu", seed=0, steps=1, datasets=datasets, track=all_of)
    assert json.loads((tmp_path / "benchsuite.json").read_text())["dataset"] == "mnist"
    assert "some/where" not in (tmp_path / "recipe.json").read_text()
