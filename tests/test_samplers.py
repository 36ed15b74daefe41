"""Samplers on a Gaussian, exactly: a linear denoiser maps noise linearly, so variances need no Monte Carlo.

With x0 ~ N(0, s²), D(x; sigma) = s² / (s² + sigma²) x. A trajectory is followed as its coefficients over the
independent normals it is made of (the start and one per step); the variance of the result is their sum of squares.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch

from benchsuite.protocols.settings import METHODS
from benchsuite.samplers import ORDER, STOCHASTIC, ancestral_step, reverse

S2 = 0.7


def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    return x * (S2 / (S2 + sigma**2))[:, None]


def schedule(low: float, high: float, steps: int) -> list[float]:
    return [float(s) for s in np.exp(-np.linspace(low, high, steps + 1) / 2)]


def variance_of_result(method: str, steps: int) -> float:
    """Variance of what the sampler returns when it starts from the exact marginal."""
    sigmas = schedule(-4, 8, steps)
    basis = torch.eye(steps + 1, dtype=torch.float64)
    start = math.sqrt(S2 + sigmas[0] ** 2) * basis[:1]
    noise: Callable[[int], torch.Tensor] | None = (
        (lambda i: basis[i + 1 : i + 2]) if method in STOCHASTIC else None
    )
    return float(reverse(denoise, [(0, start)], sigmas, method=method, noise=noise).square().sum())


def measured_order(method: str, steps: tuple[int, ...] = (80, 160, 320)) -> list[float]:
    last = schedule(-4, 8, 1)[-1]
    truth = S2**2 / (S2 + last**2)  # of D(x) at the last level, x from the exact marginal
    errors = [abs(variance_of_result(method, n) - truth) for n in steps]
    return [math.log2(a / b) for a, b in pairwise(errors)]


@pytest.mark.parametrize("method", METHODS)
def test_weak_order_on_a_gaussian(method: str) -> None:
    for order in measured_order(method):
        assert order == pytest.approx(ORDER[method], abs=0.1)


def test_the_second_order_correction_is_worth_its_name() -> None:
    """At equal cost the multistep rule beats the ancestral one by far: it is not the same rule twice."""
    last = schedule(-4, 8, 1)[-1]
    truth = S2**2 / (S2 + last**2)
    first, second = (abs(variance_of_result(m, 40) - truth) for m in ("ancestral", "sde-2m"))
    assert second < first / 5


def test_orders_are_stated_for_exactly_the_methods_on_offer() -> None:
    assert tuple(ORDER) == METHODS
    assert set(STOCHASTIC) == {"ancestral", "sde-2m"}


def test_ancestral_steps_are_exact_on_a_point_mass() -> None:
    """With D constant, x' ~ N(c, sigma'²) whatever the step: the law q(x' | x, x0) of the forward process."""
    sigma, sigma_next, c = 3.0, 0.4, 0.25
    basis = torch.eye(3, dtype=torch.float64)  # columns: the constant 1, the noise in x, the fresh noise
    x = c * basis[:1] + sigma * basis[1:2]
    step = ancestral_step(x, c * basis[:1], sigma, sigma_next, basis[2:])[0]
    assert float(step[0]) == pytest.approx(c)
    assert float(step[1:].square().sum()) == pytest.approx(sigma_next**2)
    # and its correlation with x is that of nested noise: Cov(x', x) = sigma'² for x = x' + independent noise
    assert float(step[1] * sigma) == pytest.approx(sigma_next**2)


def rational(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Nonlinear, and made of exactly rounded operations only."""
    return x / (1 + x * x + (sigma**2)[:, None])


@pytest.mark.parametrize("method", METHODS)
def test_levels_that_share_a_batch_come_back_as_if_alone(method: str) -> None:
    """Bitwise, for groups that start at the first, a middle, the same middle, and the last level."""
    sigmas = schedule(-3, 5, 12)
    generator = torch.Generator().manual_seed(0)
    groups = [(i, torch.randn(n, 3, generator=generator)) for i, n in ((0, 2), (5, 3), (5, 1), (6, 4), (12, 2))]
    noise = torch.randn(len(sigmas), 12, 3, generator=generator)
    together = reverse(rational, groups, sigmas, method=method, noise=lambda i: noise[i])
    row = 0
    for start in groups:
        rows = slice(row, row + len(start[1]))
        alone = reverse(rational, [start], sigmas, method=method, noise=lambda i, rows=rows: noise[i, rows])
        assert torch.equal(together[rows], alone)
        row = rows.stop
    assert row == len(together)


@pytest.mark.parametrize("method", METHODS)
def test_forward_passes_per_row(method: str) -> None:
    """One per level from the start, for Heun two but one for the last: this is what --dry-run promises."""
    sigmas = schedule(-3, 5, 9)
    rows = 0

    def counting(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        nonlocal rows
        rows += len(x)
        return denoise(x, sigma)

    starts = [(2, torch.zeros(3, 1)), (7, torch.zeros(2, 1))]
    reverse(counting, starts, sigmas, method=method, noise=lambda i: torch.zeros(5, 1))
    levels = 3 * 8 + 2 * 3
    assert rows == (2 * levels - 5 if method == "ode-heun" else levels)


def test_observer_sees_every_level_and_the_last_denoised_image_is_returned() -> None:
    sigmas = schedule(-2, 2, 4)
    seen: list[tuple[int, int]] = []
    ends = []

    def look(index: int, x: torch.Tensor, denoised: torch.Tensor) -> None:
        torch.testing.assert_close(denoised, denoise(x, x.new_full((len(x),), sigmas[index])))
        seen.append((index, len(x)))
        ends.append(denoised)

    starts = [(1, torch.ones(2, 1)), (3, torch.ones(1, 1))]
    result = reverse(denoise, starts, sigmas, method="ancestral", noise=lambda i: torch.zeros(3, 1), observe=look)
    assert seen == [(1, 2), (2, 2), (3, 3), (4, 3)]
    assert torch.equal(result, ends[-1])


@pytest.mark.parametrize("method", METHODS)
def test_inputs_are_not_written_to(method: str) -> None:
    x = torch.ones(2, 3)
    z = torch.ones(2, 3)
    reverse(denoise, [(0, x)], schedule(-2, 2, 5), method=method, noise=lambda i: z)
    assert torch.equal(x, torch.ones(2, 3))
    assert torch.equal(z, torch.ones(2, 3))


START = [(0, torch.zeros(1, 1))]


@pytest.mark.parametrize(
    ("starts", "sigmas", "method", "noise", "message"),
    [
        (START, [2.0, 1.0], "euler", None, "unknown sampling method 'euler'; known: ancestral, sde-2m, ode-heun"),
        (START, [2.0, 1.0], "sde-2m", None, "'sde-2m' is stochastic"),
        (START, [], "ode-heun", None, "strictly descending"),
        (START, [1.0, 1.0], "ode-heun", None, "strictly descending"),
        (START, [1.0, 2.0], "ode-heun", None, r"\[1.0, 2.0\]"),
        (START, [1.0, 0.0], "ode-heun", None, "positive"),
        ([], [2.0, 1.0], "ode-heun", None, r"0\.\.1, got \[\]"),
        ([(2, torch.zeros(1, 1))], [2.0, 1.0], "ode-heun", None, r"got \[2\]"),
        ([(1, torch.zeros(1, 1)), *START], [2.0, 1.0], "ode-heun", None, r"must ascend .* got \[1, 0\]"),
    ],
)
def test_impossible_requests_are_refused(
    starts: list[tuple[int, torch.Tensor]],
    sigmas: list[float],
    method: str,
    noise: None,
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message):
        reverse(denoise, starts, sigmas, method=method, noise=noise)
