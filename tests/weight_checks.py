"""What every well-read denoiser does and a misread one does not: checks that need no stored numbers.

A wrong layout, a swapped or mis-scaled time or a wrong data range leaves shapes intact and outputs finite, but it
does not leave a denoiser. Scrambled attention may leave one, if a poorer one: on a small network these checks do
not see it, and the conversion of ADM is proven by `test_adm_convert` instead.
"""

from __future__ import annotations

import numpy as np
import torch

from benchsuite import DiffusionModel


def counter_noise(shape: tuple[int, ...], batch: int = 1) -> torch.Tensor:
    """Standard normal (batch, *shape) that depends on nothing but its shape."""
    return torch.randn((batch, *shape), generator=torch.Generator().manual_seed(0))


def soft_image(channels: int, size: int) -> torch.Tensor:
    """A picture in [-1, 1] (1, C, size, size): a shaded background and a bright disc with a soft rim."""
    axis = torch.linspace(-1, 1, size)
    x, y = axis[None, :], axis[:, None]
    disc = torch.sigmoid((0.5 - ((x - 0.2) ** 2 + (y + 0.1) ** 2).sqrt()) * 12)
    planes = [(0.3 + 0.25 * c) * disc + 0.3 * x - 0.2 * y - 0.3 for c in range(channels)]
    return torch.stack(planes)[None].clamp(-1, 1)


def pure_noise_error(model: DiffusionModel) -> float:
    """Mean squared error of the noise that the model sees in next to pure noise; ideally about 1 / sigma².

    At sigma = 50 data in [-1, 1] are hardly there, so the noise found must be n itself.
    """
    sigma = torch.tensor([min(50.0, 0.999 * model.sigma_range[1])])
    noise = counter_noise(model.shape)
    x = sigma * noise
    found = (x - model.denoise(x, sigma)) / sigma
    return float((found - noise).square().mean())


def noise_left(model: DiffusionModel, clean: torch.Tensor, sigma: float, told: float | None = None) -> float:
    """MSE of the denoised against `clean` (B, *shape), in units of sigma²: 1 = nothing was removed.

    Args:
        told: the noise level that the model is told, if not the true one.
    """
    x = clean + sigma * counter_noise(tuple(clean.shape[1:]), len(clean))
    level = torch.full((len(clean),), sigma if told is None else told)
    return float((model.denoise(x, level) - clean).square().mean()) / sigma**2


def worse_when_misled(model: DiffusionModel, clean: torch.Tensor, sigma: float) -> float:
    """Least growth of the error when the model is told twice or half the true noise; > 1 if it reads it."""
    truth = noise_left(model, clean, sigma)
    return min(noise_left(model, clean, sigma, told) for told in (sigma / 2, 2 * sigma)) / truth


def jump_between_steps(model: DiffusionModel, clean: torch.Tensor, sigma: float) -> float:
    """Relative change of the denoised when the level it is told changes by 1 %: a clock has no gaps."""
    x = clean + sigma * counter_noise(tuple(clean.shape[1:]), len(clean))
    first, second = (model.denoise(x, torch.full((len(clean),), s)) for s in (sigma, 1.01 * sigma))
    return float(((first - second).square().mean() / first.square().mean()).sqrt())


def problems(model: DiffusionModel, clean: torch.Tensor, sigmas: tuple[float, ...] = (0.3, 1.0)) -> list[str]:
    """What is wrong with a loaded model that should know how to denoise `clean` (B, *shape); empty if nothing."""
    found = []
    if (error := pure_noise_error(model)) > 0.02:
        found.append(f"pure noise is not recognised: mean squared error {error:.3g}")
    for sigma in sigmas:
        left = noise_left(model, clean, sigma)
        if not left < 0.6:
            found.append(f"{left:.3g} of the noise is left at sigma {sigma}")
        if not (factor := worse_when_misled(model, clean, sigma)) > 1.02:
            found.append(
                f"told a wrong noise level at sigma {sigma}, its error changes by a factor of {factor:.3g}"
            )
        if not (jump := jump_between_steps(model, clean, sigma)) < 0.05:
            found.append(f"1 % more noise at sigma {sigma} changes the answer by {jump:.3g}")
    if not np.isfinite([noise_left(model, clean, s) for s in model.sigma_range]).all():
        found.append("not finite at an end of its range")
    return found
