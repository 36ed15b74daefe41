"""Reverse-time samplers in sigma space: three steps, one loop.

All act on ``x = x0 + sigma n`` with a denoiser D(x; sigma) = E[x0 | x]. With tau = -ln sigma and h = tau' - tau
over a step sigma -> sigma' < sigma, the reverse SDE with D held fixed has the exact solution

    x' = e^{-2h} x + (1 - e^{-2h}) D + sigma' sqrt(1 - e^{-2h}) z,

which is the ancestral (DDPM posterior) step. Guidance and Langevin correctors are deliberately absent: the
identities that tie the metrics together hold only for the plain reverse SDE.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch

STOCHASTIC = ("ancestral", "sde-2m")
#: methods and their weak order of convergence in the step size, tested on a Gaussian
ORDER = {"ancestral": 1, "sde-2m": 2, "ode-heun": 2}

Denoise = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Noise = Callable[[int], torch.Tensor]


def ancestral_step(
    x: torch.Tensor, denoised: torch.Tensor, sigma: float, sigma_next: float, z: torch.Tensor
) -> torch.Tensor:
    """Draw from q(x' | x, x0 = denoised): the DDPM posterior (Ho et al. 2020, eq. 6–7) in sigma space.

    Args:
        x, denoised, z: (B, *shape); z standard normal.
        sigma, sigma_next: current and next noise level, sigma > sigma_next > 0.
    """
    shrink = (sigma_next / sigma) ** 2  # e^{-2h}
    return shrink * x + (1 - shrink) * denoised + sigma_next * math.sqrt(1 - shrink) * z


def second_order_correction(
    denoised: torch.Tensor, previous: torch.Tensor, h: float, h_previous: float
) -> torch.Tensor:
    """What a linear extrapolation of D in tau adds to the ancestral step (multistep, order 2).

    Integrating 2 e^{-2(h - u)} (D + u D') over u in [0, h] adds (h - (1 - e^{-2h}) / 2) D', with D' estimated
    from the previous node: the exponential-integrator form of SDE-DPM-Solver++(2M) (Lu et al. 2022,
    arXiv:2211.01095, §5).
    """
    weight = (h + math.expm1(-2 * h) / 2) / h_previous
    return weight * (denoised - previous)


def reverse(
    denoise: Denoise,
    starts: Sequence[tuple[int, torch.Tensor]],
    sigmas: Sequence[float],
    *,
    method: str = "sde-2m",
    noise: Noise | None = None,
    observe: Callable[[int, torch.Tensor, torch.Tensor], None] | None = None,
) -> torch.Tensor:
    """Run trajectories from several starting levels to sigma = 0 in one batch.

    Args:
        denoise: D(x, sigma) with x (B, *shape), sigma (B,).
        starts: (index into `sigmas`, x (B_i, *shape)) in ascending order of index: a group joins the batch when
            the schedule reaches its level.
        sigmas: descending noise levels, all > 0; the last one is followed by x = D(x; sigma_last).
        method: "ancestral" (order 1), "sde-2m" (order 2), "ode-heun" (probability flow, order 2).
        noise: step index -> z (sum of B_i, *shape), rows in the order of `starts`; only the rows that have
            joined are used. Required by the stochastic methods.
        observe: called at every level with (index, x, D(x)) of the rows in the batch.

    Returns:
        (sum of B_i, *shape), in the order of `starts`. Forward passes per row: number of levels from its start
        (twice that minus one for Heun).

    Raises:
        ValueError: unknown method, levels that do not descend, or no noise for a stochastic method.
    """
    _check(starts, sigmas, method, noise)
    x = starts[0][1][:0]
    previous: torch.Tensor | None = None
    joined = 0
    for i, sigma in enumerate(sigmas):
        fresh = 0
        while joined < len(starts) and starts[joined][0] == i:
            x = torch.cat([x, starts[joined][1]])
            fresh += len(starts[joined][1])
            joined += 1
        if len(x) == 0:
            continue
        denoised = denoise(x, x.new_full((len(x),), sigma))
        if observe is not None:
            observe(i, x, denoised)
        if i + 1 == len(sigmas):
            return denoised
        sigma_next = sigmas[i + 1]
        if method == "ode-heun":
            x = _heun_step(denoise, x, denoised, sigma, sigma_next)
        else:
            assert noise is not None
            h = math.log(sigma / sigma_next)
            step = ancestral_step(x, denoised, sigma, sigma_next, noise(i)[: len(x)])
            if method == "sde-2m" and previous is not None and len(previous):
                # rows that have just joined have no history and take a first-order step
                old = len(x) - fresh
                h_previous = math.log(sigmas[i - 1] / sigma)
                step[:old] += second_order_correction(denoised[:old], previous[:old], h, h_previous)
            x, previous = step, denoised
    raise AssertionError("unreachable: the loop returns at the last level")


def _heun_step(
    denoise: Denoise, x: torch.Tensor, denoised: torch.Tensor, sigma: float, sigma_next: float
) -> torch.Tensor:
    """Heun's rule for dx/dsigma = (x - D) / sigma (Karras et al. 2022, arXiv:2206.00364, alg. 1)."""
    slope = (x - denoised) / sigma
    trial = x + (sigma_next - sigma) * slope
    slope_next = (trial - denoise(trial, trial.new_full((len(trial),), sigma_next))) / sigma_next
    return x + (sigma_next - sigma) * 0.5 * (slope + slope_next)


def _check(
    starts: Sequence[tuple[int, torch.Tensor]], sigmas: Sequence[float], method: str, noise: Noise | None
) -> None:
    if method not in ORDER:
        raise ValueError(f"unknown sampling method {method!r}; known: {', '.join(ORDER)}")
    if method in STOCHASTIC and noise is None:
        raise ValueError(f"method {method!r} is stochastic and needs a noise source")
    if not sigmas or min(sigmas) <= 0 or any(b >= a for a, b in pairwise(sigmas)):
        raise ValueError(f"noise levels must be positive and strictly descending, got {list(sigmas)}")
    indices = [index for index, _ in starts]
    if not starts or indices != sorted(indices) or not 0 <= indices[0] <= indices[-1] < len(sigmas):
        raise ValueError(f"starting indices must ascend within 0..{len(sigmas) - 1}, got {indices}")
