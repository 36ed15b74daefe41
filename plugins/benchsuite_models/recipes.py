"""Training recipes of the reference checkpoints: `benchsuite train ddpm-digits --out DIR`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from benchsuite import Dataset, Recipe, Track
from benchsuite_models.training.config import (
    Autoencoder,
    Blend,
    DiffusionRecipe,
    Noise,
    Optimisation,
    Pairs,
    Stage,
    UNet,
)


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


class DDPMFewDigits(_Diffusion):
    """A smaller network on 150 digits, kept along the way: it generalises first and memorises later."""

    name = "ddpm-few-digits"
    summary = "class-conditional DDPM on 150 digits, with snapshots until it knows them by heart"
    config = DiffusionRecipe(
        "ddpm",
        "few-digits",
        UNet(widths=(16, 48)),
        _NOISE,
        replace(_OPTIMISATION, steps=6400, batch=48, weight_decay=0.0, snapshots=(100, 400, 1600)),
    )


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


#: 32 x 32 images are seen as 8 x 8 blocks of 4 x 4 pixels, a sixteenth of the cost of a UNet on pixels: these
#: recipes are sized for CPUs, where one core takes about two training steps a second
_FOLDED = UNet(widths=(64, 128), head=32, summed_factors=True)
#: large uniform areas are known from log-SNR -7 on, grain at 2; the error of v weighs them alike
_IMAGE_NOISE = Noise(low=-10.0, high=9.0, centre=-3.0, width=2.5, weight=1.0)
_CLEAN_NOISE = replace(_IMAGE_NOISE, cap=10.0)
_IMAGE_AUTOENCODER = Autoencoder(
    widths=(32, 64),
    latent_channels=4,
    layers=1,
    groups=8,
    kl=1e-3,
    optimisation=Optimisation(steps=900, batch=64, learning_rate=2e-3, weight_decay=0.0),
)
_GARMENTS = "fashion-mnist:dummy_factor=2"
_ROOMS = "shapes:dummy_factor=2"


def _garments(steps: int) -> Optimisation:
    return Optimisation(steps=steps, batch=144, learning_rate=1.5e-3, weight_decay=0.0, ema=0.998)


#: detail takes more steps in pixels than in latents, where the autoencoder knows it, and fewer with Muon
_GARMENTS_IN_PIXELS = replace(_garments(3400), muon=0, ema=0.999)


def _rooms(steps: int, restarts: tuple[int, ...] = ()) -> Optimisation:
    """Rooms are few and their posterior means exact targets: smaller batches and more steps."""
    return replace(_garments(steps), batch=96, ema=0.999, restarts=restarts)


#: rooms on their way to having grain or not
_GRAIN = Blend(("texture",), low=-2.0, high=4.0, emphasis=30.0)
#: and to another shape, which is known earlier
_SHAPE = Blend(("shape",), low=-3.0, high=2.0, emphasis=10.0)


#: where scale and shape of a room are open
_OPEN = Pairs(0.6, centre=-2.0, width=1.3, contrast=5.0)
#: the same, most of the time, for shape, which is seen last
_OPEN_SHAPE = replace(_OPEN, share=0.75, centre=-1.8)


def _told_apart(
    start: int,
    noise: Noise,
    blends: tuple[Blend | None, ...] = (_GRAIN, None),
    apart: tuple[str, ...] = (),
    pairs: Pairs | None = None,
) -> Stage:
    """From step `start` on, also what tells heads apart, which is known early."""
    return Stage(start, replace(noise, centre=-2.5, width=1.5), blends, contrast=10.0, apart=apart, pairs=pairs)


class DDPMFashionMNIST(_Diffusion):
    """v-prediction on 32 x 32 garments."""

    name = "ddpm-fashion-mnist"
    summary = "DDPM on Fashion-MNIST, conditional on any subset of class and garment"
    config = DiffusionRecipe(
        "ddpm", _GARMENTS, _FOLDED, _IMAGE_NOISE, _GARMENTS_IN_PIXELS, patch=4, prediction="v_prediction"
    )


class ScoreSDEFashionMNIST(_Diffusion):
    """Variance-exploding network on 32 x 32 garments in [0, 1]; it returns the clean image."""

    name = "score-sde-fashion-mnist"
    summary = "VE score SDE on Fashion-MNIST, conditional on any subset of class and garment"
    config = DiffusionRecipe(
        "score-sde", _GARMENTS, _FOLDED, _CLEAN_NOISE, _GARMENTS_IN_PIXELS, patch=4, prediction="denoised"
    )


class LatentDiffusionFashionMNIST(_Diffusion):
    """An autoencoder 1 x 32 x 32 => 4 x 8 x 8 and v-prediction in its latents."""

    name = "latent-diffusion-fashion-mnist"
    summary = "autoencoder and latent diffusion on Fashion-MNIST, conditional on any subset of class and garment"
    config = DiffusionRecipe(
        "latent-diffusion",
        _GARMENTS,
        _FOLDED,
        _IMAGE_NOISE,
        _garments(1400),
        _IMAGE_AUTOENCODER,
        patch=2,
        prediction="v_prediction",
    )


class LatentDiffusionMNIST(_Diffusion):
    """An autoencoder 1 x 32 x 32 => 4 x 8 x 8 and v-prediction in its latents; half as wide as that of garments.

    Args:
        directory: where the four files of MNIST are; by default where the data set looks itself.
    """

    name = "latent-diffusion-mnist"
    summary = "autoencoder and class-conditional latent diffusion on MNIST from its IDX files"
    config = DiffusionRecipe(
        "latent-diffusion",
        "mnist",
        replace(_FOLDED, widths=(32, 64), head=16, summed_factors=False),
        _IMAGE_NOISE,
        _garments(4000),
        replace(_IMAGE_AUTOENCODER, widths=(16, 32)),
        patch=2,
        prediction="v_prediction",
    )

    def __init__(self, directory: str = "") -> None:
        self.directory = directory

    def train(self, out: Path, *, datasets: Callable[[str], Dataset], **options: Any) -> dict[str, Any]:
        """See `benchsuite_models.training.run.train_diffusion`; the record does not tell where the files were."""
        place = f":{self.directory}" if self.directory else ""
        return super().train(out, datasets=lambda spec: datasets(spec + place), **options)


class DDPMShapes(_Diffusion):
    """Prediction of the clean image, 32 x 32.

    That of the noise would need 48 channels of it to pass through 64 (arXiv:2511.13720). What one decay of the
    learning rate leaves unclear, shape and grain, the next ones clear up.
    """

    name = "ddpm-shapes"
    summary = "DDPM on shapes, conditional on any subset of its factors"
    config = DiffusionRecipe(
        "ddpm",
        _ROOMS,
        _FOLDED,
        replace(_CLEAN_NOISE, centre=-2.0),
        replace(_rooms(43000, restarts=(5000, 7000, 9000, 11000, 14500, 19000, 25000, 30500, 38500)), muon=11000),
        patch=4,
        prediction="sample",
        targets="posterior",
        stages=(
            Stage(9000, blends=(_GRAIN,)),
            _told_apart(11000, _CLEAN_NOISE),
            _told_apart(19000, _CLEAN_NOISE, (_GRAIN, None, None)),
            _told_apart(25000, _CLEAN_NOISE, (_GRAIN, None, None), apart=("shape",)),
            _told_apart(30500, _CLEAN_NOISE, apart=("scale", "shape"), pairs=_OPEN),
            _told_apart(38500, _CLEAN_NOISE, (_GRAIN,), apart=("shape",), pairs=_OPEN_SHAPE),
        ),
    )


class ScoreSDEShapes(_Diffusion):
    """Variance-exploding network on 32 x 32 images in [0, 1]; it returns the clean image."""

    name = "score-sde-shapes"
    summary = "VE score SDE on shapes, conditional on any subset of its factors"
    config = DiffusionRecipe(
        "score-sde",
        _ROOMS,
        _FOLDED,
        replace(_CLEAN_NOISE, high=7.0, centre=-1.0, width=2.0),
        replace(_rooms(48500, restarts=(4500, 9000, 12500, 16500, 20000, 24500, 30500, 36000, 44000)), muon=16500),
        patch=4,
        prediction="denoised",
        targets="posterior",
        stages=(
            Stage(12500, blends=(_GRAIN,)),
            _told_apart(16500, replace(_CLEAN_NOISE, high=7.0)),
            _told_apart(24500, replace(_CLEAN_NOISE, high=7.0), (_GRAIN, None, None)),
            _told_apart(30500, replace(_CLEAN_NOISE, high=7.0), (_GRAIN, None, None), apart=("shape",)),
            _told_apart(36000, replace(_CLEAN_NOISE, high=7.0), apart=("scale", "shape"), pairs=_OPEN),
            _told_apart(44000, replace(_CLEAN_NOISE, high=7.0), (_GRAIN,), apart=("shape",), pairs=_OPEN_SHAPE),
        ),
    )


class LatentDiffusionShapes(_Diffusion):
    """An autoencoder 3 x 32 x 32 => 8 x 8 x 8 and v-prediction in its latents.

    Without a weight on detail the autoencoder loses the grain, which is a thousandth of the images' variance.
    """

    name = "latent-diffusion-shapes"
    summary = "autoencoder and latent diffusion on shapes, conditional on any subset of its factors"
    config = DiffusionRecipe(
        "latent-diffusion",
        _ROOMS,
        _FOLDED,
        replace(_IMAGE_NOISE, centre=-2.0),
        replace(_rooms(26000, restarts=(5000, 7000, 10000, 12500, 16500, 20000)), muon=16500),
        replace(
            _IMAGE_AUTOENCODER,
            latent_channels=8,
            optimisation=replace(_IMAGE_AUTOENCODER.optimisation, steps=1600),
            detail=10.0,
        ),
        patch=2,
        prediction="v_prediction",
        targets="posterior",
        stages=(
            Stage(12500, blends=(_GRAIN,)),
            _told_apart(16500, _IMAGE_NOISE),
            _told_apart(20000, _IMAGE_NOISE, (_GRAIN, _GRAIN, _SHAPE, None)),
        ),
    )
