"""A resumable training loop: same result in one go or in pieces."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from benchsuite import BenchsuiteError, Track, UsageError
from benchsuite_models.training.config import Optimisation
from benchsuite_models.training.optimiser import Optimiser

#: (step, generator) => scalar loss. The generator is on the CPU and depends on seed and step only.
LossFunction = Callable[[int, torch.Generator], torch.Tensor]


def fit(
    network: torch.nn.Module,
    loss_function: LossFunction,
    config: Optimisation,
    *,
    seed: int,
    checkpoint: Path,
    identity: dict[str, Any],
    description: str,
    track: Track,
    keep: Callable[[int, Mapping[str, torch.Tensor]], None] = lambda step, average: None,
) -> list[float]:
    """Train `network` in place and leave its moving average in it.

    Args:
        network: module on its device, freshly initialised.
        loss_function: draws its batch from the generator it is given, so that step k always sees the same data.
        config: optimiser settings.
        seed: of the batches.
        checkpoint: directory kept up to date while training, and resumed from.
        identity: JSON-able facts that a checkpoint must share to be resumed from.
        description: of the progress bar.
        track: progress, see `benchsuite.Track`.
        keep: given the number of steps done and the moving average at every one of `config.snapshots`.

    Returns:
        Training loss of every step.

    Raises:
        UsageError: `checkpoint` belongs to another run.
    """
    identity = json.loads(json.dumps({**identity, "seed": seed, "optimisation": asdict(config)}))
    average = {name: value.detach().clone() for name, value in network.state_dict().items()}
    losses = _resume(checkpoint, identity, network, average)
    first = len(losses)
    optimiser = Optimiser(network, config, max(0, first - 1))
    if first:
        optimiser.load_state_dict(torch.load(checkpoint / "optimiser.pt", map_location="cpu", weights_only=True))
    network.train()
    for step in track(range(first, config.steps), description, config.steps - first):
        if step in config.restarts:
            network.load_state_dict(average)
            optimiser = Optimiser(network, config, step)
        loss = loss_function(step, generator_of(seed, step))
        if not torch.isfinite(loss):
            raise BenchsuiteError(
                f"{description}: the loss is {loss.item()} at step {step}; lower the learning rate"
            )
        optimiser.step(loss, config.learning_rate * _schedule(step, config), config.clip)
        decay = min(config.ema, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            average[name].lerp_(value, 1 - decay)
        losses.append(loss.item())
        if step + 1 in config.snapshots:
            keep(step + 1, average)
        if (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps:
            _save(checkpoint, identity, network, average, optimiser, losses)
    network.load_state_dict(average)
    return losses


def generator_of(seed: int, step: int) -> torch.Generator:
    """CPU generator of one training step."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)


def _schedule(step: int, config: Optimisation) -> float:
    """Learning-rate factor: linear warm-up times cosine decay, from each restart to the next."""
    warm = min(1.0, (step + 1) / config.warm_up)
    ends = (0, *config.restarts, config.steps)
    start, end = next((a, b) for a, b in pairwise(ends) if step < b)
    return warm * 0.5 * (1 + math.cos(math.pi * (step - start) / (end - start)))


def _save(
    checkpoint: Path,
    identity: dict[str, Any],
    network: torch.nn.Module,
    average: dict[str, torch.Tensor],
    optimiser: Optimiser,
    losses: list[float],
) -> None:
    """Write beside `checkpoint` and rename, so that a kill leaves the old or the new one, never half of one."""
    fresh = checkpoint.with_name(checkpoint.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, fresh / "network.safetensors")
    save_file({k: v.contiguous() for k, v in average.items()}, fresh / "average.safetensors")
    torch.save(optimiser.state_dict(), fresh / "optimiser.pt")
    (fresh / "state.json").write_text(json.dumps({"identity": identity, "losses": losses}))
    shutil.rmtree(checkpoint, ignore_errors=True)
    os.replace(fresh, checkpoint)


def _resume(
    checkpoint: Path,
    identity: dict[str, Any],
    network: torch.nn.Module,
    average: dict[str, torch.Tensor],
) -> list[float]:
    fresh = checkpoint.with_name(checkpoint.name + ".new")
    if not checkpoint.exists() and (fresh / "state.json").exists():
        os.replace(fresh, checkpoint)  # killed between removing the old one and renaming the new one
    if not checkpoint.exists():
        return []
    state = json.loads((checkpoint / "state.json").read_text())
    if state["identity"] != identity:
        changed = [k for k in identity if state["identity"].get(k) != identity[k]]
        raise UsageError(
            f"{checkpoint} belongs to another run (it differs in {', '.join(changed)}); train into another "
            "directory or remove it"
        )
    network.load_state_dict(load_file(checkpoint / "network.safetensors"))
    for name, value in load_file(checkpoint / "average.safetensors").items():
        average[name].copy_(value)
    return list(state["losses"])
