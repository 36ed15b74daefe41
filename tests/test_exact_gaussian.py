"""The exact Gaussian against conditional-Gaussian algebra done the long way, quadrature and sampling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from benchsuite_models.exact_gaussian import ExactGaussian, ring_covariance
from numpy.typing import NDArray
from scipy import stats

from benchsuite import UsageError

Array = NDArray[np.float64]
RNG = np.random.default_rng(5)
ROOT = RNG.standard_normal((5, 5))
COVARIANCE = ROOT @ ROOT.T + 0.1 * np.eye(5)
MEAN = RNG.standard_normal(5)
C = RNG.standard_normal((2, 5))
R = np.array([[0.5, 0.2], [0.2, 0.4]])


def gaussian() -> ExactGaussian:
    model = ExactGaussian(MEAN, COVARIANCE, C, R)
    model.load(dtype="float64")
    return model


def joint(sigma: float) -> Array:
    """Covariance of (x0, phi, x_sigma), 5 + 2 + 5 dimensions."""
    maps = np.vstack([np.eye(5), C, np.eye(5)])
    out = maps @ COVARIANCE @ maps.T
    out[5:7, 5:7] += R
    out[7:, 7:] += sigma**2 * np.eye(5)
    return out


def regress(cov: Array, target: slice, given: list[int], value: Array) -> tuple[Array, Array]:
    """Mean and covariance of `target` given the coordinates `given`, of a centred Gaussian."""
    gain = np.linalg.solve(cov[np.ix_(given, given)], cov[given, target]).T
    return gain @ value, cov[target, target] - gain @ cov[given, target]


@pytest.mark.parametrize("sigma", [0.05, 0.8, 20.0])
def test_denoisers_are_gaussian_regressions(sigma: float) -> None:
    model, cov = gaussian(), joint(sigma)
    x, phi = RNG.standard_normal(5), RNG.standard_normal(2)
    level = torch.tensor([sigma], dtype=torch.float64)
    plain, _ = regress(cov, slice(0, 5), [7, 8, 9, 10, 11], x - MEAN)
    np.testing.assert_allclose(model.denoise(torch.tensor(x[None]), level)[0], MEAN + plain, atol=1e-9)
    both, _ = regress(cov, slice(0, 5), [5, 6, 7, 8, 9, 10, 11], np.concatenate([phi - C @ MEAN, x - MEAN]))
    given = model.denoise_given(torch.tensor(x[None]), level, torch.tensor(phi[None]))
    np.testing.assert_allclose(given[0], MEAN + both, atol=1e-9)


@pytest.mark.parametrize("sigma", [0.05, 0.8, 20.0])
def test_sign_is_that_of_a_truncated_gaussian(sigma: float) -> None:
    """p(sign | x) and E[x0 | x, sign] by regression on c·x0 and scipy's truncated normal, far into the tails."""
    model = gaussian()
    c, cov = C[0], joint(sigma)
    for scale in (0.3, 3.0, 12.0):
        x = MEAN + scale * np.abs(RNG.standard_normal(5)) * np.sign(c)
        shift, spread = regress(cov, slice(0, 5), [7, 8, 9, 10, 11], x - MEAN)
        centre, deviation = c @ shift, np.sqrt(c @ spread @ c)
        query = torch.tensor(x[None]), torch.tensor([sigma], dtype=torch.float64)
        expected = stats.norm.cdf([-centre / deviation, centre / deviation])
        np.testing.assert_allclose(model.posterior(*query)["sign"][0], expected, rtol=1e-7, atol=1e-300)
        for label, bounds in ((1, (-centre / deviation, np.inf)), (0, (-np.inf, -centre / deviation))):
            if expected[label] < 1e-280:
                continue  # beyond scipy's reach
            truncated = stats.truncnorm.mean(*bounds, loc=centre, scale=deviation)
            mean = MEAN + shift + spread @ c / deviation**2 * (truncated - centre)
            given = model.denoise(*query, torch.tensor([[label]]))[0]
            np.testing.assert_allclose(given, mean, rtol=1e-6, atol=1e-8)


def test_an_almost_impossible_sign_stays_finite() -> None:
    """Given the sign against which x speaks by 300 deviations, the functional is pinned just across zero."""
    model = ExactGaussian([0.0, 0.0], 1.0)
    x, sigma = torch.tensor([[30.0, 0.5]], dtype=torch.float64), torch.tensor([0.1], dtype=torch.float64)
    mean = model.denoise(x, sigma, torch.tensor([[0]]))[0]
    assert -1e-3 < mean[0] < 0
    assert mean[1].item() == pytest.approx(0.5 / 1.01, abs=1e-12)


@pytest.mark.parametrize("sigma", [0.05, 0.8, 20.0])
def test_information_is_that_of_the_joint_gaussian(sigma: float) -> None:
    """I = 1/2 ln det Σ_phi det Σ_x / det Σ_(phi, x), from the joint covariance."""
    cov = joint(sigma)
    logdet = [np.linalg.slogdet(cov[part, part])[1] for part in (slice(5, 7), slice(7, 12), slice(5, 12))]
    expected = (logdet[0] + logdet[1] - logdet[2]) / 2
    assert float(gaussian().mutual_information(sigma)) == pytest.approx(expected, abs=1e-9)


def test_path_integral_of_the_score_gap_is_the_information() -> None:
    """A §7 T4: I(sigma) = 1/2 ∫ E‖Δeps‖² d log_snr, and its limit at small noise."""
    model = gaussian()
    log_snr = np.linspace(-18, 14, 4001)
    sigma = np.exp(-log_snr / 2)
    gap = model.score_gap(sigma)
    path = np.concatenate([[0], np.cumsum((gap[1:] + gap[:-1]) / 2 * np.diff(log_snr))]) / 2 + gap[0] / 2
    np.testing.assert_allclose(path, model.mutual_information(sigma), atol=1e-4)
    assert float(model.mutual_information(1e-5)) == pytest.approx(model.information(), abs=1e-6)


def test_score_gap_is_what_the_denoisers_measure() -> None:
    """Monte Carlo of ‖D(x | phi) - D(x)‖² / sigma² on the model's own samples, within 4.5 SE."""
    model, n, sigma = gaussian(), 20_000, 0.9
    generator = torch.Generator().manual_seed(1)
    x0, labels = model.sample(n, generator)
    phi = model.observe(x0, generator)
    x = x0 + sigma * torch.randn(n, 5, dtype=torch.float64, generator=generator)
    level = torch.full((n,), sigma, dtype=torch.float64)
    gap = (model.denoise_given(x, level, phi) - model.denoise(x, level)).square().sum(1) / sigma**2
    assert abs(gap.mean().item() - float(model.score_gap(sigma))) < 4.5 * gap.std().item() / n**0.5
    # the label is the sign of the first functional, and both signs are equally frequent
    np.testing.assert_array_equal(labels[:, 0], ((x0.numpy() - MEAN) @ C[0] > 0).astype(int))
    assert labels.double().mean().item() == pytest.approx(0.5, abs=4.5 * 0.5 / n**0.5)
    np.testing.assert_array_equal(model.prior()["sign"], [0.5, 0.5])
    # x0 and phi have the joint covariance they should
    both = torch.cat([x0, phi], dim=1).numpy()
    products = (both - np.r_[MEAN, C @ MEAN])[:, :, None] * (both - np.r_[MEAN, C @ MEAN])[:, None]
    error = np.abs(products.mean(0) - joint(1.0)[:7, :7])
    assert (error < 4.5 * products.std(0) / n**0.5).all()


def test_posterior_draws_have_the_regression_law() -> None:
    model, n, sigma = gaussian(), 20_000, 1.1
    x = RNG.standard_normal(5)
    mean, spread = regress(joint(sigma), slice(0, 5), [7, 8, 9, 10, 11], x - MEAN)
    draws = model.sample_posterior(
        torch.tensor(x).expand(n, 5), torch.full((n,), sigma), torch.Generator().manual_seed(2)
    ).numpy()
    deviation = draws - (MEAN + mean)
    products = deviation[:, :, None] * deviation[:, None]
    assert (np.abs(deviation.mean(0)) < 4.5 * deviation.std(0) / n**0.5).all()
    assert (np.abs(products.mean(0) - spread) < 4.5 * products.std(0) / n**0.5).all()


def test_kalman_bucy_information() -> None:
    """dY = X dt + dW with X ~ N(0, v): I(Y_[0,T]; X) = 1/2 ln(1 + vT); Y_T / T is x at sigma² = 1 / T."""
    v, noise = 1.7, 1e-12
    model = ExactGaussian([0.0], v, [[1.0]], noise)
    time = np.array([0.1, 1.0, 30.0])
    np.testing.assert_allclose(model.mutual_information(time**-0.5), 0.5 * np.log1p(v * time), atol=1e-9)


def test_random_field_susceptibility_has_no_peak() -> None:
    """Published control (B §5.8): ring of 1024 sites, power k^-0.8, at alpha_bar .999 … 1e-4."""
    alpha_bar = np.array([0.999, 0.9, 0.5, 0.1, 0.01, 1e-4])
    model = ExactGaussian(dim=1024, decay=0.8)
    chi = model.susceptibility(np.sqrt((1 - alpha_bar) / alpha_bar))
    np.testing.assert_allclose(chi, [1.0032, 1.340631, 3.603697, 15.556027, 35.4911, 38.00013], rtol=2e-5)
    assert (np.diff(chi) > 0).all()


def test_susceptibility_is_that_of_simulated_u_turns() -> None:
    """chi from covariances over U-turns of one x0, which do not depend on x0 for a Gaussian."""
    model, n, sigma = ExactGaussian(dim=6), 60_000, 1.3
    generator = torch.Generator().manual_seed(3)
    x = model.sample(1, generator)[0].double().expand(n, 6)
    x = x + sigma * torch.randn(n, 6, dtype=torch.float64, generator=generator)
    cov = np.cov(model.sample_posterior(x, torch.full((n,), sigma), generator).numpy().T)
    assert cov.sum() / np.trace(cov) == pytest.approx(float(model.susceptibility(sigma)), rel=0.03)


def test_ring_covariance_has_the_asked_spectrum() -> None:
    covariance = ring_covariance(12, 1.5)
    power = np.abs(np.fft.fft(covariance[0]))
    expected = np.array([1, 1, 2, 3, 4, 5, 6, 5, 4, 3, 2, 1.0]) ** -1.5
    np.testing.assert_allclose(power, expected / expected.mean(), atol=1e-12)
    np.testing.assert_allclose(covariance[3], np.roll(covariance[0], 3), atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mean": [0.0, float("nan")]}, "must be finite, got nan"),
        ({"mean": [0.0, 1.0], "covariance": [[1.0, 2.0], [2.0, 1.0]]}, "eigenvalue is -1"),
        ({"mean": [0.0, 1.0], "covariance": np.eye(3)}, r"covariance must be a number or.*\(2, 2\), got \(3, 3\)"),
        ({"mean": [0.0, 1.0], "projection": [[1.0]]}, r"projection must have shape \(m, 2\), got \(1, 1\)"),
        ({"mean": [0.0, 1.0], "projection": [[0.0, 0.0]]}, "first row of projection is 0"),
        ({"mean": [0.0, 1.0], "noise": -1.0}, "positive definite, got a variance of -1"),
        ({"covariance": 1.0}, "give mean"),
        ({"mean": [0.0], "dim": 3}, "cannot go with a given mean"),
        ({"dim": 1}, "dim must be at least 2, got 1"),
        ({"decay": -1.0}, "decay must be finite and not negative, got -1"),
    ],
)
def test_impossible_gaussians_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ExactGaussian(**arguments)  # type: ignore[arg-type]


def test_impossible_questions_are_refused() -> None:
    model = gaussian()
    with pytest.raises(UsageError, match=r"phi \(3, 2\), got \(3, 1\)"):
        model.denoise_given(torch.zeros(3, 5), torch.ones(3), torch.zeros(3, 1))
    with pytest.raises(UsageError, match=r"labels \(3, 1\), got torch.int64 \(3, 2\)"):
        model.denoise(torch.zeros(3, 5), torch.ones(3), torch.zeros(3, 2, dtype=torch.int64))
    with pytest.raises(UsageError, match="sigma must be positive, got 0"):
        model.mutual_information(np.array([1.0, 0.0]))


def test_fingerprint_covers_the_factor() -> None:
    prints = {
        ExactGaussian(MEAN, COVARIANCE, C, R).fingerprint(),
        ExactGaussian(MEAN, COVARIANCE, C, 2 * R).fingerprint(),
        ExactGaussian(MEAN, COVARIANCE, 2 * C, R).fingerprint(),
        ExactGaussian(MEAN, 2 * COVARIANCE, C, R).fingerprint(),
        ExactGaussian(2 * MEAN, COVARIANCE, C, R).fingerprint(),
    }
    assert len(prints) == 5
