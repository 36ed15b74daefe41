"""Noise coordinates: known schedules, round trips between the three coordinates, grids."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from benchsuite import noise

SIGMAS = [1e-3, 0.0100005, 0.5, 1.0, 1.6, 80.0, 157.4]


@pytest.mark.parametrize("kind", [float, np.array, lambda v: torch.tensor(v, dtype=torch.float64)])
def test_round_trips(kind: Callable[[Any], Any]) -> None:
    for sigma in SIGMAS if kind is float else [SIGMAS]:
        value = kind(sigma)
        log_snr, alpha_bar = noise.log_snr_from_sigma(value), noise.alpha_bar_from_sigma(value)
        for back in (
            noise.sigma_from_log_snr(log_snr),
            noise.sigma_from_alpha_bar(alpha_bar),
            noise.sigma_from_log_snr(noise.log_snr_from_alpha_bar(alpha_bar)),
            noise.sigma_from_alpha_bar(noise.alpha_bar_from_log_snr(log_snr)),
        ):
            np.testing.assert_allclose(back, sigma, rtol=1e-9)


def test_ddpm_linear_schedule() -> None:
    """The published range of the linear schedule (Ho et al. 2020): sigma 0.0100 … 157.4."""
    alpha_bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    sigma = noise.sigma_from_alpha_bar(alpha_bar)
    assert sigma[[0, -1]] == pytest.approx([0.0100005, 157.41], abs=5e-3)
    # the variance-preserving state divided by alpha is x0 + sigma n
    np.testing.assert_allclose(sigma, np.sqrt(1 - alpha_bar) / np.sqrt(alpha_bar))
    np.testing.assert_allclose(
        noise.log_snr_from_alpha_bar(alpha_bar), [math.log(a / (1 - a)) for a in alpha_bar], rtol=1e-9, atol=1e-12
    )
    np.testing.assert_allclose(noise.log_snr_from_sigma(sigma), noise.log_snr_from_alpha_bar(alpha_bar), atol=1e-9)


def test_the_clock_reads_zero_at_equal_signal_and_noise() -> None:
    assert noise.log_snr_from_sigma(1.0) == 0
    assert noise.alpha_bar_from_log_snr(0.0) == 0.5
    assert noise.log_snr_from_alpha_bar(0.5) == 0
    # the signal in [0, 1] instead of [-1, 1]: half the amplitude, ln 4 on the clock
    assert noise.log_snr_from_sigma(2.0) - noise.log_snr_from_sigma(1.0) == pytest.approx(-math.log(4))
    assert noise.log_snr_from_sigma(0.01) > noise.log_snr_from_sigma(100.0)


def test_tensors_keep_dtype_and_are_not_written_to() -> None:
    sigma = torch.tensor([0.5, 2.0])
    log_snr = noise.log_snr_from_sigma(sigma)
    assert log_snr.dtype == torch.float32
    assert sigma.tolist() == [0.5, 2.0]
    assert noise.sigma_from_log_snr(log_snr).tolist() == pytest.approx([0.5, 2.0])


def test_grid() -> None:
    grid = noise.log_snr_grid(-8, 9, 69)
    assert grid.shape == (69,)
    assert grid.dtype == np.float64
    assert (grid[0], grid[-1]) == (-8, 9)
    np.testing.assert_allclose(np.diff(grid), 0.25)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((3.0, 3.0, 5), "3.0 and 3.0"),
        ((4.0, -4.0, 5), "low < high"),
        ((-math.inf, 4.0, 5), "finite"),
        ((math.nan, 4.0, 5), "nan"),
        ((-4.0, 4.0, 1), "at least 2 nodes, got 1"),
    ],
)
def test_impossible_grids_are_refused_with_their_values(arguments: tuple[float, float, int], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        noise.log_snr_grid(*arguments)
