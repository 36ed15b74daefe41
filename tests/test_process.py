"""Process formulas against closed forms: on Gaussian data the ideal network of every kind is known exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from benchsuite_models.process import DataRange, VarianceExploding, VariancePreserving

MEAN, SPREAD = 0.3, 0.7  # data: N(MEAN, SPREAD²) per pixel


def linear_alpha_bars(steps: int = 1000) -> np.ndarray:
    return np.cumprod(1 - np.linspace(1e-4, 2e-2, steps))


def posterior_mean(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """E[x0 | x0 + sigma n = x], the textbook product of two Gaussians."""
    precision = 1 / SPREAD**2 + 1 / sigma**2
    return (MEAN / SPREAD**2 + x / sigma**2) / precision


def query() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 1, 4, 4, generator=generator, dtype=torch.float64)
    sigma = torch.tensor([0.02, 0.1, 0.5, 1.0, 7.0, 100.0], dtype=torch.float64)
    return x * (1 + sigma.view(-1, 1, 1, 1)), sigma, sigma.view(-1, 1, 1, 1)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_ideal_discrete_network_gives_the_posterior_mean(prediction: str) -> None:
    x, sigma, column = query()
    process = VariancePreserving(linear_alpha_bars(), prediction)

    def ideal(state: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        alpha = (1 + column**2) ** -0.5  # the state is alpha x0 + sqrt(1 - alpha²) n
        noise_scale = (1 - alpha**2).sqrt()
        x0 = posterior_mean(state / alpha, column)
        noise = (state - alpha * x0) / noise_scale
        return {"sample": x0, "epsilon": noise, "v_prediction": alpha * noise - noise_scale * x0}[prediction]

    torch.testing.assert_close(process.denoise(ideal, x, sigma), posterior_mean(x, column))


def test_ideal_score_network_in_another_data_range_gives_the_posterior_mean() -> None:
    """The network sees y = (x + 1) / 2, hence N((MEAN + 1) / 2, (SPREAD / 2)²) and half the noise."""
    x, sigma, column = query()

    def ideal(y: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        variance = (SPREAD / 2) ** 2 + time.view(-1, 1, 1, 1) ** 2
        return ((MEAN + 1) / 2 - y) / variance  # gradient of a Gaussian log-density

    unit = DataRange(0.0, 1.0)
    process = VarianceExploding(0.005, 50.0)
    torch.testing.assert_close(unit.denoise(process, ideal, x, sigma), posterior_mean(x, column))
    assert unit.sigma_range(process) == (0.01, 100.0)


def test_a_network_that_returns_the_denoised_image_over_sigma() -> None:
    """The ideal one, which sees y = (x + 1) / 2 scaled by 1 / sqrt(1 + time²), gives the posterior mean too."""
    x, sigma, column = query()

    def ideal(scaled: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        inner = time.view(-1, 1, 1, 1)
        y = scaled * (1 + inner**2).sqrt()
        weight = (SPREAD / 2) ** 2 / ((SPREAD / 2) ** 2 + inner**2)
        return ((MEAN + 1) / 2 + weight * (y - (MEAN + 1) / 2)) / inner  # as a 'fourier' network divides

    process = VarianceExploding(0.005, 50.0, "denoised")
    torch.testing.assert_close(DataRange(0.0, 1.0).denoise(process, ideal, x, sigma), posterior_mean(x, column))
    assert process.describe() != VarianceExploding(0.005, 50.0).describe()
    with pytest.raises(ValueError, match="prediction 'noise' has no known mapping; known: score, denoised"):
        VarianceExploding(0.005, 50.0, "noise")


def test_time_is_the_step_at_the_steps_and_increases_between_them() -> None:
    alpha_bars = linear_alpha_bars()
    process = VariancePreserving(alpha_bars, "epsilon")
    steps = np.array([0, 1, 17, 500, 998, 999])
    sigma = torch.tensor(np.sqrt((1 - alpha_bars[steps]) / alpha_bars[steps]), dtype=torch.float32)
    torch.testing.assert_close(process.timestep(sigma), torch.tensor(steps).float(), rtol=0, atol=2e-4)
    between = process.timestep(torch.logspace(-2, 2.19, 3000, dtype=torch.float64))
    assert (between.diff() > 0).all()
    assert between.min() >= 0
    assert between.max() <= 999


def test_time_is_held_at_the_ends_and_rounded_for_learned_tables() -> None:
    process = VariancePreserving(linear_alpha_bars(), "epsilon")
    assert process.timestep(torch.tensor([1e-6, 1e6])).tolist() == [0.0, 999.0]
    rounded = VariancePreserving(linear_alpha_bars(), "epsilon", whole_steps=True)
    half = torch.tensor([float(process.levels[10] ** 0.3 * process.levels[11] ** 0.7)])
    assert rounded.timestep(half).tolist() == [11]
    assert rounded.timestep(half).dtype == torch.int64


def test_native_time_reads_the_table_backwards() -> None:
    alpha_bars = linear_alpha_bars()
    process = VariancePreserving(alpha_bars, "epsilon")
    log_snr = np.log(alpha_bars / (1 - alpha_bars))
    native = DataRange(-1.0, 1.0).native_time(process, log_snr)
    np.testing.assert_allclose(native, np.arange(1000) / 1000, atol=1e-9)
    # index 600 of the linear schedule is "0.6 T", log-SNR -3.64
    assert DataRange(-1.0, 1.0).native_time(process, np.array([-3.64]))[0] == pytest.approx(0.6, abs=1e-3)


def test_native_time_of_a_score_sde_is_the_exponent() -> None:
    process = VarianceExploding(0.01, 50.0)
    u = np.array([0.0, 0.25, 0.8, 1.0])
    inner = 0.01 * 5000.0**u  # sigma(u) of the process, in [0, 1]; ours is twice that
    native = DataRange(0.0, 1.0).native_time(process, -2 * np.log(2 * inner))
    np.testing.assert_allclose(native, u, atol=1e-12)
    assert process.native_time(np.array([1e-5, 1e5])).tolist() == [0.0, 1.0]


def test_zero_terminal_snr_is_left_out() -> None:
    alpha_bars = np.append(linear_alpha_bars(10), 0.0)
    process = VariancePreserving(alpha_bars, "v_prediction")
    assert process.sigma_range[1] == pytest.approx(math.sqrt((1 - alpha_bars[9]) / alpha_bars[9]))
    assert process.native_time(np.array([process.sigma_range[1]]))[0] == pytest.approx(9 / 11)


@pytest.mark.parametrize(
    ("alpha_bars", "message"),
    [
        (np.array([0.9, 0.95, 0.5]), "must decrease"),
        (np.array([1.0, 0.9]), "must decrease"),
        (np.array([0.9]), "must decrease"),
        (np.array([0.9, np.nan, 0.5]), "must decrease"),
    ],
)
def test_impossible_tables_are_refused(alpha_bars: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VariancePreserving(alpha_bars, "epsilon")


def test_impossible_levels_and_ranges_are_refused() -> None:
    with pytest.raises(ValueError, match=r"0 < sigma_min < sigma_max, got 2\.0 and 1\.0"):
        VarianceExploding(2.0, 1.0)
    with pytest.raises(ValueError, match=r"low < high, got 1\.0 and 0\.0"):
        DataRange(1.0, 0.0)
    with pytest.raises(ValueError, match="prediction 'flow' has no known mapping"):
        VariancePreserving(linear_alpha_bars(), "flow")
