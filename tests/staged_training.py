"""A short training run with stages."""

from __future__ import annotations

from pathlib import Path

from benchsuite_models.training.config import DiffusionRecipe, Noise, Optimisation, Stage, UNet
from benchsuite_models.training.run import train_diffusion

from benchsuite import Dataset


def losses(
    out: Path,
    data: Dataset,
    *stages: Stage,
    steps: int | None = None,
    device: str = "cpu",
    muon: int | None = None,
) -> list[str]:
    """Lines of loss.csv, one for each of six steps, with a restart at the fourth."""
    recipe = DiffusionRecipe(
        "ddpm",
        "images",
        UNet(widths=(8, 16), groups=4, head=8),
        Noise(-4.0, 4.0),
        Optimisation(steps=6, batch=12, learning_rate=1e-3, warm_up=2, restarts=(4,), muon=muon),
        targets="posterior",
        stages=stages,
    )
    train_diffusion(
        "staged", recipe, out, device=device, seed=0, steps=steps,
        datasets=lambda spec: data, track=lambda items, description, total: items,
    )  # fmt: skip
    return (out / "loss.csv").read_text().splitlines()[1:]
