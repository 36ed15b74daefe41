"""From a recipe to a checkpoint in diffusers' format, with everything that made it written beside the weights."""

from __future__ import annotations

import copy
import csv
import json
import platform
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

import benchsuite
from benchsuite import Dataset, Track, UsageError
from benchsuite.torchvision_compat import ensure_torchvision_importable
from benchsuite_models import factor_embedding
from benchsuite_models.card import FILE
from benchsuite_models.checkpoint import STEPS
from benchsuite_models.conditioning import Conditioning
from benchsuite_models.finite_population import FinitePopulation
from benchsuite_models.training.autoencoder import (
    build_autoencoder,
    encode,
    reconstruction_error,
    train_autoencoder,
)
from benchsuite_models.training.config import Autoencoder, DiffusionRecipe
from benchsuite_models.training.diffusion import (
    Denoiser,
    TrainingSet,
    build_process,
    build_unet,
    held_out_losses,
    paired_loss,
)
from benchsuite_models.training.loop import fit

RECORD = "recipe.json"
#: lines of a loss curve, up to twice as many: what a curve shows, and a fraction of the weights
CURVE = 5000


def train_diffusion(
    name: str,
    recipe: DiffusionRecipe,
    out: Path,
    *,
    device: str,
    seed: int,
    steps: int | None,
    datasets: Callable[[str], Dataset],
    track: Track,
) -> dict[str, Any]:
    """Train `recipe` on its data set's "train" split and measure it on "val".

    Leaves in `out` a diffusers directory (float16 safetensors), benchsuite.json, recipe.json (configuration,
    seed, versions, results), loss.csv (every step, or block of steps) and held_out.csv (per noise level, of the
    weights as written). While training there is also ``checkpoint/``, from which an interrupted run goes on
    exactly.

    Args:
        name: of the recipe.
        recipe: what to train.
        out: directory, made if absent.
        device: torch device.
        seed: of initialisation, batches and noise.
        steps: number of diffusion training steps; None takes the recipe's. The autoencoder's are in proportion.
        datasets: opens a data set by its spec.
        track: progress, see `benchsuite.Track`.

    Returns:
        The results that recipe.json holds. A finished run in `out` is not repeated.

    Raises:
        UsageError: fewer than one step, or `out` holds another recipe, seed or number of steps.
    """
    recipe = _with_steps(recipe, steps)
    dataset = datasets(recipe.dataset)
    identity = json.loads(
        json.dumps({"recipe": name, "config": asdict(recipe), "seed": seed, "data": dataset.fingerprint()})
    )
    finished = _finished(out, identity)
    if finished is not None:
        return finished
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    run = _Run(name, identity, out, torch.device(device), seed, track)
    train, held_out = dataset.split("train"), dataset.split("val")
    items, held_out_items = train.images, held_out.images
    results: dict[str, Any] = {}
    patch = recipe.patch
    if recipe.autoencoder is not None:
        items, held_out_items = (
            torch.nn.functional.pixel_unshuffle(images, patch) for images in (items, held_out_items)
        )
        patch = 1  # latents are seen as they are
        autoencoder, results["autoencoder"] = _autoencoder(
            run, recipe.autoencoder, recipe.patch, items, held_out_items
        )
        scale = autoencoder.config.scaling_factor
        items, held_out_items = (
            encode(autoencoder, images, run.device) * scale for images in (items, held_out_items)
        )

    torch.manual_seed(seed)
    process, data_range, scheduler = build_process(recipe.family, recipe.prediction)
    conditioning = Conditioning.with_null_last(dataset.factors, recipe.unet.summed_factors)
    fourier = recipe.family == "score-sde"
    network = build_unet(tuple(items.shape[1:]), conditioning, recipe.unet, fourier, patch).to(run.device)
    denoiser = Denoiser(network, process, data_range, conditioning, patch)
    batch = recipe.optimisation.batch
    data = TrainingSet(items, train.labels)
    if recipe.targets == "posterior":
        data.population = FinitePopulation(items.flatten(1).to(run.device))
    card = {
        "factors": [{"name": f.name, "values": list(f.values)} for f in dataset.factors],
        "null_class": conditioning.null,
        "data_range": [data_range.low, data_range.high],
        "patch": recipe.patch,
        "dataset": recipe.dataset,
        "recipe": name,
    }
    if recipe.prediction == "denoised":
        card["prediction"] = recipe.prediction

    def write(model: Any, root: Path) -> None:
        """The diffusion model, not the autoencoder, as a checkpoint in `root`."""
        nested = recipe.autoencoder is not None
        _save_unet(model, root / "unet" if nested else root, root, conditioning)
        scheduler.save_pretrained(root / "scheduler" if nested else root)
        _write_json(root / FILE, card)

    def keep(step: int, average: Mapping[str, torch.Tensor]) -> None:
        model = copy.deepcopy(network)
        model.load_state_dict(average)
        write(model, out / STEPS / str(step))

    names = [factor.name for factor in dataset.factors]

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        stage = recipe.stage(step)
        return paired_loss(denoiser, data, batch, recipe.noise, generator, run.device, stage, names)

    losses = fit(
        network,
        loss,
        recipe.optimisation,
        seed=seed,
        checkpoint=out / "checkpoint" / "unet",
        identity=identity,
        description=f"training {name}",
        track=track,
        keep=keep,
    )
    write(network, out)
    curve = held_out_losses(denoiser, held_out_items, held_out.labels, recipe.noise, seed, run.device)
    results |= {
        "parameters": _count(network),
        "training_loss": _tail_mean(losses),
        "held_out_unconditional": sum(row["unconditional"] for row in curve) / len(curve),
        "held_out_conditional": sum(row["conditional"] for row in curve) / len(curve),
    }
    _write_losses(out / "loss.csv", losses)
    _write_rows(out / "held_out.csv", curve)
    record = {
        **identity,
        "results": results,
        "seconds": round(time.monotonic() - started, 1),  # of the last piece, if training was interrupted
        "device": device,
        "versions": _versions(),
    }
    _write_json(out / RECORD, record)  # last: it says that the rest is complete
    shutil.rmtree(out / "checkpoint", ignore_errors=True)
    return results


@dataclass(frozen=True)
class _Run:
    """What every stage of one training run needs."""

    name: str
    identity: dict[str, Any]
    out: Path
    device: torch.device
    seed: int
    track: Track


def _autoencoder(
    run: _Run, config: Autoencoder, patch: int, images: torch.Tensor, held_out: torch.Tensor
) -> tuple[Any, dict[str, Any]]:
    """Train, write and measure the autoencoder of a latent recipe."""
    torch.manual_seed(run.seed)
    network = build_autoencoder(tuple(images.shape[1:]), config).to(run.device)
    losses = train_autoencoder(
        network,
        images,
        config,
        patch=patch,
        seed=run.seed,
        device=run.device,
        checkpoint=run.out / "checkpoint" / "autoencoder",
        identity=run.identity,
        track=run.track,
    )
    _save_half(network, run.out / "vae")
    _write_losses(run.out / "autoencoder_loss.csv", losses)
    return network, {
        "parameters": _count(network),
        "scaling_factor": network.config.scaling_factor,
        "training_loss": _tail_mean(losses),
        "held_out_mse": reconstruction_error(network, held_out, run.device),
    }


def _save_unet(network: Any, folder: Path, root: Path, conditioning: Conditioning) -> None:
    """Write a UNet, and its tables of factors into `root`: diffusers' own format has no place for them."""
    if not conditioning.summed:
        _save_half(network, folder)
        return
    tables = network.factor_embedding
    del network.factor_embedding
    _save_half(network, folder)
    factor_embedding.save(tables, conditioning.factors, root)
    network.factor_embedding = tables.half().float()


def _save_half(network: Any, folder: Path) -> None:
    """Write float16 weights, and go on with exactly those."""
    network.half().save_pretrained(folder)
    network.float().eval()


def _with_steps(recipe: DiffusionRecipe, steps: int | None) -> DiffusionRecipe:
    if steps is None:
        return recipe
    if steps < 1:
        raise UsageError(f"steps={steps} is not a positive number")
    share = steps / recipe.optimisation.steps
    if recipe.autoencoder is not None:
        full = recipe.autoencoder.optimisation
        shorter = replace(full, steps=max(1, round(share * full.steps)))
        recipe = replace(recipe, autoencoder=replace(recipe.autoencoder, optimisation=shorter))
    # restarts move along, lest the last decay never comes; 0 would be a restart of nothing
    restarts = tuple(
        sorted({r for r in (round(share * r) for r in recipe.optimisation.restarts) if 0 < r < steps})
    )
    muon = None if recipe.optimisation.muon is None else round(share * recipe.optimisation.muon)
    if muon not in (0, *restarts):
        muon = None  # its restart fell away
    stages = tuple(replace(stage, start=round(share * stage.start)) for stage in recipe.stages)
    return replace(
        recipe,
        optimisation=replace(recipe.optimisation, steps=steps, restarts=restarts, muon=muon),
        stages=stages,
    )


def _finished(out: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    path = out / RECORD
    if not path.is_file():
        return None
    record = json.loads(path.read_text())
    if any(record.get(key) != value for key, value in identity.items()):
        changed = [key for key, value in identity.items() if record.get(key) != value]
        raise UsageError(f"{out} holds another model (it differs in {', '.join(changed)}); train elsewhere")
    return dict(record["results"])


def _count(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def _tail_mean(losses: list[float]) -> float:
    tail = losses[-100:]
    return sum(tail) / len(tail)


def _write_losses(path: Path, losses: list[float]) -> None:
    """The loss of every step; of long runs the means over blocks of steps, as large as leave `CURVE` of them."""
    size = max(1, len(losses) // CURVE)
    blocks = [losses[start : start + size] for start in range(0, len(losses), size)]
    # three digits: batches differ by percents
    means = [float(f"{sum(block) / len(block):.3g}") for block in blocks]
    last = [min(start + size, len(losses)) for start in range(0, len(losses), size)]
    _write_rows(path, [{"step": step, "loss": loss} for step, loss in zip(last, means, strict=True)])


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _versions() -> dict[str, str]:
    ensure_torchvision_importable()
    import diffusers

    return {
        "benchsuite": benchsuite.__version__,
        "diffusers": diffusers.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
