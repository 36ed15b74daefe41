"""Reverse samplers with one mistake each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch

from benchsuite.samplers import Denoise, Noise, ancestral_step, reverse
from benchsuite.testing.samplers import Sampler
from planted import Bug

Starts = Sequence[tuple[int, torch.Tensor]]
Step = Callable[[torch.Tensor, torch.Tensor, float, float, torch.Tensor], torch.Tensor]


def loop(step: Step) -> Sampler:
    """One trajectory after the other, each from its own level."""

    def sampler(denoise: Denoise, starts: Starts, sigmas: Sequence[float], *, noise: Noise) -> torch.Tensor:
        ends, row = [], 0
        for index, x in starts:
            rows = slice(row, row + len(x))
            for i in range(index, len(sigmas) - 1):
                denoised = denoise(x, x.new_full((len(x),), sigmas[i]))
                x = step(x, denoised, sigmas[i], sigmas[i + 1], noise(i)[rows])
            ends.append(denoise(x, x.new_full((len(x),), sigmas[-1])))
            row = rows.stop
        return torch.cat(ends)

    return sampler


def ode_sold_as_sde(denoise: Denoise, starts: Starts, sigmas: Sequence[float], *, noise: Noise) -> torch.Tensor:
    """The probability-flow ODE: right marginals, no noise on the way."""
    return reverse(denoise, starts, sigmas, method="ode-heun")


def enters_a_step_late(denoise: Denoise, starts: Starts, sigmas: Sequence[float], *, noise: Noise) -> torch.Tensor:
    """Noises to index k and starts from the next one, as a published script does."""
    last = len(sigmas) - 1
    later = [(min(index + 1, last), x) for index, x in starts]
    return reverse(denoise, later, sigmas, method="ancestral", noise=noise)


def one_noise(denoise: Denoise, starts: Starts, sigmas: Sequence[float], *, noise: Noise) -> torch.Tensor:
    """The same noise at every step: the seed is set inside the loop."""
    return reverse(denoise, starts, sigmas, method="ancestral", noise=lambda i: noise(0))


def one_row(denoise: Denoise, starts: Starts, sigmas: Sequence[float], *, noise: Noise) -> torch.Tensor:
    """The same noise for every item: one seed, set before each of them."""
    return reverse(denoise, starts, sigmas, method="ancestral", noise=lambda i: (z := noise(i))[:1].expand_as(z))


def variance_for_deviation(
    x: torch.Tensor, denoised: torch.Tensor, sigma: float, sigma_next: float, z: torch.Tensor
) -> torch.Tensor:
    """Multiplies the noise by its variance."""
    shrink = (sigma_next / sigma) ** 2
    return shrink * x + (1 - shrink) * denoised + sigma_next * (1 - shrink) * z


def noise_forgotten(
    x: torch.Tensor, denoised: torch.Tensor, sigma: float, sigma_next: float, z: torch.Tensor
) -> torch.Tensor:
    """The drift of the SDE without its noise."""
    shrink = (sigma_next / sigma) ** 2
    return shrink * x + (1 - shrink) * denoised + 0 * z


def half_a_step(
    x: torch.Tensor, denoised: torch.Tensor, sigma: float, sigma_next: float, z: torch.Tensor
) -> torch.Tensor:
    """e^{-h} for e^{-2h}: the ODE's drift with the SDE's noise."""
    shrink = sigma_next / sigma
    return shrink * x + (1 - shrink) * denoised + sigma_next * math.sqrt(1 - shrink**2) * z


def in_place(
    x: torch.Tensor, denoised: torch.Tensor, sigma: float, sigma_next: float, z: torch.Tensor
) -> torch.Tensor:
    """Works on the caller's starting point."""
    return x.copy_(ancestral_step(x, denoised, sigma, sigma_next, z))


def batch_mean_removed(denoise: Denoise, starts: Starts, sigmas: Sequence[float], *, noise: Noise) -> torch.Tensor:
    """Centres the noise over the batch."""

    def centred(i: int) -> torch.Tensor:
        z = noise(i)
        return z - z.mean(dim=0) if len(z) > 1 else z

    return reverse(denoise, starts, sigmas, method="ancestral", noise=centred)


def guided(denoise: Denoise, starts: Starts, sigmas: Sequence[float], *, noise: Noise) -> torch.Tensor:
    """Guidance left on: D is pushed towards what it would be with less noise."""

    def pushed(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return denoise(x, sigma) + 0.5 * (denoise(x, sigma / 2) - denoise(x, sigma))

    return reverse(pushed, starts, sigmas, method="ancestral", noise=noise)


#: a step that does not keep the law of x at any size
LAW = ("conditional-law", "empirical-order", "retention-bias")
#: name -> (bug whose `build` gives the sampler, claimed order)
SAMPLER_BUGS: dict[str, tuple[Bug, int]] = {
    name: (Bug(lambda sampler=sampler: sampler, caught_by, also, tuple(marginal)), order)  # type: ignore[misc]
    for name, sampler, order, caught_by, also, *marginal in [
        ("ODE sold as SDE", ode_sold_as_sde, 2, "retention-bias", ("conditional-law", "fresh-noise")),
        ("enters a step late", enters_a_step_late, 1, "entry-level", ("fresh-noise",), "conditional-law"),
        ("same noise at every step", one_noise, 1, "fresh-noise", ("gaussian-variance", *LAW)),
        ("same noise for every item", one_row, 1, "fresh-noise", ("batch-invariance", "retention-bias")),
        ("variance for deviation", loop(variance_for_deviation), 1, "gaussian-variance", LAW),
        ("noise forgotten", loop(noise_forgotten), 1, "gaussian-variance", ("fresh-noise", *LAW)),
        ("drift of the ODE, noise of the SDE", loop(half_a_step), 1, "gaussian-variance", LAW[:2]),
        ("works in place", loop(in_place), 1, "input-unchanged", ("batch-invariance", "entry-level", LAW[2])),
        ("noise centred over the batch", batch_mean_removed, 1, "batch-invariance", ()),
        ("guidance left on", guided, 1, "conditional-law", ("empirical-order", "gaussian-variance")),
        ("order 1 sold as order 2", partial(reverse, method="ancestral"), 2, "empirical-order", ()),
    ]
}
