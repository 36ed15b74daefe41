"""Training recipes of the reference checkpoints: `benchsuite train ddpm-digits --out DIR`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from benchsuite import Dataset, Recipe, Track
from benchsuite_models.training.config import Autoencoder, DiffusionRecipe, Noise, Optimisation, UNet


class _Diffusion(Recipe):
    """A recipe that is nothing but its configuration."""

    config: ClassVar[DiffusionRecipe]

    def train(
        self,
        out: Path,
        *,
        device: str,
        seed: int,
        steps: int | None,
        datasets: Callable[[str], Dataset],
        track: Track,
    ) -> dict[str, Any]:
        """See `benchsuite_models.training.run.train_diffusion`."""
        from benchsuite_models.training.run import train_diffusion

        return train_diffusion(
            self.name,
            self.config,
            out,
            device=device,
            seed=seed,
            steps=steps,
            datasets=datasets,
            track=track,
        )


#: log-SNR 9.2 is the last step of the linear DDPM schedule; class information lives between -4 and 2.
_NOISE = Noise(low=-8.0, high=9.0)
_PIXELS = UNet(widths=(32, 64))
_OPTIMISATION = Optimisation(steps=2500, batch=256, learning_rate=2e-3)


class DDPMDigits(_Diffusion):
    """Epsilon prediction on 8 x 8 digits."""

    name = "ddpm-digits"
    summary = "class-conditional DDPM on the scikit-learn digits"
    config = DiffusionRecipe("ddpm", "digits", _PIXELS, _NOISE, _OPTIMISATION)


class ScoreSDEDigits(_Diffusion):
    """Variance-exploding score network on 8 x 8 digits in [0, 1]."""

    name = "score-sde-digits"
    summary = "class-conditional VE score SDE on the scikit-learn digits"
    config = DiffusionRecipe("score-sde", "digits", _PIXELS, _NOISE, _OPTIMISATION)


class LatentDiffusionDigits(_Diffusion):
    """An autoencoder 1 x 8 x 8 => 2 x 4 x 4 and epsilon prediction in its latents."""

    name = "latent-diffusion-digits"
    summary = "autoencoder and class-conditional latent diffusion on the scikit-learn digits"
    config = DiffusionRecipe(
        "latent-diffusion",
        "digits",
        UNet(widths=(64, 64), attention_first=True),
        _NOISE,
        _OPTIMISATION,
        Autoencoder(
            widths=(16, 32),
            latent_channels=2,
            layers=1,
            groups=8,
            kl=1e-3,
            optimisation=Optimisation(steps=1500, batch=128, learning_rate=2e-3, weight_decay=0.0),
        ),
    )
