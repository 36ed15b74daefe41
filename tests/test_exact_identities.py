"""What ties the answers of an exact model together, whatever the model (A §1.1, §6, and §7 T5, T6)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from benchsuite_models.empirical_bayes import EmpiricalBayes
from benchsuite_models.exact_gaussian import ExactGaussian
from benchsuite_models.exact_mixture import ExactMixture
from benchsuite_models.exact_rhm import ExactRHM
from numpy.typing import NDArray

from benchsuite import Dataset, ExactModel, Factor, Split

Array = NDArray[np.float64]


class Points(Dataset):
    """Vectors as a data set; the factor is the point itself, or the given labels."""

    name = "points"

    def __init__(self, points: Array, labels: Array | None = None) -> None:
        self.points = torch.tensor(points, dtype=torch.float32)
        self.labels = torch.arange(len(points)) if labels is None else torch.tensor(labels)
        self.factors = (Factor("point", tuple(str(i) for i in range(int(self.labels.max()) + 1))),)
        self.shape = (points.shape[1],)

    def load(self) -> None: ...

    def split(self, name: str) -> Split:
        return Split(self.points, self.labels[:, None], tuple(str(i) for i in range(len(self.points))))


def over(points: Array, labels: Array | None = None) -> EmpiricalBayes:
    model = EmpiricalBayes()
    model.bind(Points(points, labels))
    model.load(dtype="float64")
    return model


def groups() -> EmpiricalBayes:
    """Forty points in 6-D, three unequal groups without any geometry."""
    rng = np.random.default_rng(1)
    return over(rng.standard_normal((40, 6)), np.r_[np.zeros(8), np.ones(12), np.full(20, 2)].astype(int))


def hierarchy() -> ExactMixture:
    return ExactMixture(preset="hierarchy", distance=6.0, fine_distance=2.0, std=0.3)


def grammar() -> ExactRHM:
    return ExactRHM(4, 2, 2, 3, n_c=5, seed=2)


def field() -> ExactGaussian:
    return ExactGaussian(dim=8)


MODELS: dict[str, Callable[[], ExactModel]] = {
    "groups": groups,
    "hierarchy": hierarchy,
    "field": field,
    "grammar": grammar,
}


def entropy(p: Array) -> Array:
    return -(p * np.log(np.clip(p, 1e-300, None))).sum(-1)


def noised(model: ExactModel, n: int, sigma: float, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x (n, *shape) float64, sigma (n,), labels (n, F)."""
    generator = torch.Generator().manual_seed(seed)
    x0, labels = model.sample(n, generator)
    x = x0.double() + sigma * torch.randn(x0.shape, dtype=torch.float64, generator=generator)
    return x, torch.full((n,), sigma, dtype=torch.float64), labels


@pytest.mark.parametrize("name", MODELS)
def test_score_differences_integrate_to_the_posteriors_information(name: str) -> None:
    """1/2 ∫ E‖eps_cond - eps‖² d log_snr = H - E[H(p)] for every factor: heads and posterior are one model."""
    model, n = MODELS[name](), 12_000 if name == "groups" else 1500
    log_snr = np.linspace(-7, 5, 61)
    rate = np.zeros((len(model.factors), len(log_snr)))
    for node, value in enumerate(log_snr):
        x, sigma, labels = noised(model, n, float(np.exp(-value / 2)), seed=node)
        plain = model.denoise(x, sigma)
        for column in range(len(model.factors)):
            given = torch.full_like(labels, -1)
            given[:, column] = labels[:, column]
            gap = (model.denoise(x, sigma, given) - plain).flatten(1).square().sum(1)
            rate[column, node] = gap.mean().item() * np.exp(value)
    steps = np.diff(log_snr) * (rate[:, 1:] + rate[:, :-1]) / 2
    path = 0.5 * (np.concatenate([np.zeros((len(rate), 1)), steps.cumsum(1)], axis=1) + rate[:, :1])
    for node in range(0, 61, 12):
        x, sigma, _ = noised(model, 6000, float(np.exp(-log_snr[node] / 2)), seed=1000 + node)
        posterior, prior = model.posterior(x, sigma), model.prior()
        for column, factor in enumerate(model.factors):
            h = entropy(prior[factor.name].numpy())
            information = h - entropy(posterior[factor.name].numpy()).mean()
            assert path[column, node] == pytest.approx(information, abs=0.03), (factor.name, log_snr[node])


@pytest.mark.parametrize("name", MODELS)
def test_u_turns_keep_a_label_as_often_as_forks_agree(name: str) -> None:
    """E[p(y_true | x)] = E[Σ p²]: the truth is one more draw from the posterior; within 4.5 SE."""
    model = MODELS[name]()
    x, sigma, labels = noised(model, 8000, 1.0, seed=3)
    for column, factor in enumerate(model.factors):
        p = model.posterior(x, sigma)[factor.name]
        difference = p[range(len(p)), labels[:, column]] - p.square().sum(1)
        assert abs(difference.mean()) < 4.5 * difference.std() / len(p) ** 0.5


@pytest.mark.parametrize("name", MODELS)
def test_draws_average_to_the_denoiser_and_to_the_posterior(name: str) -> None:
    model, draws = MODELS[name](), 4000
    x, sigma, _ = noised(model, 3, 0.9, seed=4)
    repeated, level = x.repeat_interleave(draws, dim=0), sigma.repeat_interleave(draws)
    x0 = model.sample_posterior(repeated, level, torch.Generator().manual_seed(5)).view(3, draws, -1)
    error = x0.std(1) / draws**0.5
    assert ((x0.mean(1) - model.denoise(x, sigma).flatten(1)).abs() < 4.7 * error + 1e-3).all()
    # A nearly clean draw shows its label, whose frequency must be the posterior.
    clean = x0.reshape(3 * draws, *model.shape)
    judged = model.posterior(clean, torch.full((3 * draws,), 0.05, dtype=torch.float64))
    for factor in model.factors:
        share = judged[factor.name].view(3, draws, -1).mean(1)
        p = model.posterior(x, sigma)[factor.name]
        assert ((share - p).abs() < 4.7 * (p * (1 - p) / draws).sqrt() + 2e-3).all()


@pytest.mark.parametrize("name", MODELS)
def test_conditional_means_mix_to_the_unconditional_one(name: str) -> None:
    """E[x0 | x] = Σ_k p(k | x) E[x0 | x, k], exactly, for every factor."""
    model = MODELS[name]()
    x, sigma, labels = noised(model, 20, 0.8, seed=6)
    for column, factor in enumerate(model.factors):
        p, total = model.posterior(x, sigma)[factor.name], torch.zeros_like(x)
        for k in range(factor.size):
            if model.prior()[factor.name][k] > 0:  # a grammar need not use every symbol everywhere
                given = torch.full_like(labels, -1)
                given[:, column] = k
                weight = p[:, k].view(-1, *[1] * len(model.shape))
                total += weight * model.denoise(x, sigma, given)
        torch.testing.assert_close(total, model.denoise(x, sigma), rtol=0, atol=1e-10)


# ------------------------------------------------------------------------------- classical filters


def test_wonham_filter() -> None:
    """dY = X dt + dW, X = ±1: the filter is tanh(Y_t) and 1/2 ∫ E(X - tanh Y)² dt the information (T5)."""
    model, steps, paths = over(np.array([[1.0], [-1.0]])), 300, 4000
    rng = np.random.default_rng(7)
    horizon = 3.0
    dt = horizon / steps
    hidden = rng.choice([-1.0, 1.0], size=paths)
    y, cost, expected = np.zeros(paths), 0.5 * dt / 2, {0.5: 0.2013, 1.0: 0.3368, 3.0: 0.5859}
    for step in range(1, steps + 1):
        y += hidden * dt + np.sqrt(dt) * rng.standard_normal(paths)
        time = step * dt
        # Y_t / t = X + W_t / t: our x at sigma² = 1 / t
        x = torch.tensor(y[:, None] / time)
        estimate = model.denoise(x, torch.full((paths,), time**-0.5, dtype=torch.float64))[:, 0].numpy()
        np.testing.assert_allclose(estimate, np.tanh(y), atol=1e-12)
        loss = 0.5 * np.mean((hidden - estimate) ** 2) * dt
        cost += loss
        if round(time, 9) in expected:
            assert cost - loss / 2 == pytest.approx(expected[round(time, 9)], abs=0.015)
            p = model.posterior(x, torch.full((paths,), time**-0.5, dtype=torch.float64))["point"].numpy()
            assert np.log(2) - entropy(p).mean() == pytest.approx(expected[round(time, 9)], abs=0.015)


@pytest.mark.parametrize("time", [0.8, 2.12, 3.5])
def test_collapse_onto_the_data(time: float) -> None:
    """T6: n points N(0, I_d) at Ornstein–Uhlenbeck time t: entropy of which point it was, as a share of ln n.

    max(0, 1 + ln(Δ / (Δ + e^{-2t})) / 2α) with α = ln n / d, Δ = 1 - e^{-2t}: zero before the collapse time
    ln(1 + 1 / (n^{2/d} - 1)) / 2 = 1.445, up to finite-size smoothing around it.
    """
    n, d = 1500, 256
    delta = 1 - np.exp(-2 * time)
    share = max(0.0, 1 + d * np.log(delta / (delta + np.exp(-2 * time))) / (2 * np.log(n)))
    assert (share > 0) == (time > 1.445)
    model = over(np.random.default_rng(8).standard_normal((n, d)))
    x, sigma, _ = noised(model, 600, float(np.sqrt(delta) * np.exp(time)), seed=9)
    measured = entropy(model.posterior(x, sigma)["point"].numpy()).mean() / np.log(n)
    assert measured == pytest.approx(share, abs=0.06)
