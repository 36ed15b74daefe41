"""The exact mixture against scipy densities, quadrature and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from benchsuite_models.exact_mixture import ExactMixture
from numpy.typing import NDArray
from scipy import stats
from scipy.special import expit, roots_hermitenorm

from benchsuite import Dataset, Factor, NotApplicableError, Split, UsageError
from benchsuite.specs import build

Array = NDArray[np.float64]

# rho -> I (nats), two-fork agreement = retention, Bayes accuracy: shared/science A §7, T1
TWO_GAUSSIANS = {
    0.1: (0.04765, 0.54567, 0.62409),
    0.25: (0.11142, 0.60203, 0.69146),
    0.5: (0.20135, 0.67506, 0.76025),
    1.0: (0.33683, 0.77520, 0.84134),
    2.0: (0.50007, 0.88449, 0.92135),
    4.0: (0.63272, 0.96570, 0.97725),
    9.0: (0.68930, 0.99792, 0.99865),
}


def expected_two_gaussians(rho: float) -> tuple[float, float, float]:
    """I = ln 2 - E ln(1 + e^{-2 rho - 2 √rho Z}), agreement (1 + E tanh(rho + √rho Z)) / 2, accuracy Φ(√rho)."""
    z, w = roots_hermitenorm(120)
    w = w / w.sum()
    information = np.log(2) - w @ np.log1p(np.exp(-2 * rho - 2 * np.sqrt(rho) * z))
    return information, (1 + w @ np.tanh(rho + np.sqrt(rho) * z)) / 2, stats.norm.cdf(np.sqrt(rho))


def entropy(p: Array) -> Array:
    return -(p * np.log(np.clip(p, 1e-300, None))).sum(-1)


def grid(sigma: float, reach: float, points: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Equidistant x (points, 1) in ±reach, and sigma for each."""
    x = torch.linspace(-reach, reach, points, dtype=torch.float64)[:, None]
    return x, torch.full((len(x),), sigma, dtype=torch.float64)


@pytest.mark.parametrize(("rho", "published"), TWO_GAUSSIANS.items())
def test_two_gaussian_table(rho: float, published: tuple[float, float, float]) -> None:
    """Integrate the model's posterior over the density of x and meet the closed forms and the table."""
    m, s = 1.3, 0.4
    sigma = np.sqrt(m**2 / rho - s**2)
    model = ExactMixture([[m], [-m]], covariances=s**2)
    gamma = np.sqrt(s**2 + sigma**2)
    x, level = grid(sigma, m + 9 * gamma, 40_001)
    p = model.posterior(x, level)["class"].numpy()
    step = float(x[1, 0] - x[0, 0])
    joint = 0.5 * stats.norm.pdf(x.numpy(), loc=[m, -m], scale=gamma) * step  # (grid, class)
    density = joint.sum(1)
    information = np.log(2) - density @ entropy(p)
    agreement = density @ (p**2).sum(1)
    accuracy = joint[np.arange(len(p)), p.argmax(1)].sum()
    np.testing.assert_allclose((information, agreement, accuracy), expected_two_gaussians(rho), atol=2e-5)
    np.testing.assert_allclose((information, agreement, accuracy), published, atol=2e-5)


def test_score_differences_integrate_to_the_information() -> None:
    """I(x_sigma; class) = 1/2 ∫ E‖eps_cond - eps‖² d log_snr (Duncan; A §1.1) with unequal classes."""
    means, weights, variances = np.array([[-1.0], [0.4], [2.0]]), np.array([0.5, 0.2, 0.3]), [0.1, 0.02, 0.3]
    model = ExactMixture(means, weights, np.array(variances))
    log_snr = np.linspace(-8, 2, 101)
    rate = []
    for value in log_snr:
        sigma = np.exp(-value / 2)
        x, level = grid(sigma, 3 + 8 * np.sqrt(0.3 + sigma**2), 1501)
        scale = np.sqrt(np.array(variances) + sigma**2)
        joint = weights * stats.norm.pdf(x.numpy(), means[:, 0], scale) * float(x[1, 0] - x[0, 0])
        plain = model.denoise(x, level)
        gap = [model.denoise(x, level, torch.full((len(x), 1), k)) - plain for k in range(3)]
        rate.append((joint * torch.cat(gap, 1).numpy() ** 2).sum() / sigma**2)
    p = model.posterior(x, level)["class"].numpy()  # at the last, cleanest level
    truth = entropy(weights) - joint.sum(1) @ entropy(p)
    path = 0.5 * np.trapezoid(rate, log_snr) + 0.5 * rate[0]  # the residual: I ∝ SNR below the grid
    assert path == pytest.approx(truth, abs=2e-4)


def general(dtype: str = "float64", form: str = "full") -> tuple[ExactMixture, Array, Array, Array]:
    """Five components in 3-D with unequal weights and two overlapping factors."""
    rng = np.random.default_rng(3)
    means, weights = 2 * rng.standard_normal((5, 3)), rng.dirichlet(np.full(5, 3.0))
    root = rng.standard_normal((5, 3, 3))
    covariances: Array = 0.3 * root @ root.transpose(0, 2, 1) + 0.05 * np.eye(3)
    if form == "shared":
        covariances = covariances[0]
    elif form == "diagonal":
        covariances = np.abs(root[:, 0])
    elif form == "class":
        covariances = np.abs(root[:, 0, 0])
    elif form == "scalar":
        covariances = np.array(0.37)
    model = ExactMixture(means, weights, covariances, {"even": [0, 1, 0, 1, 0], "third": [0, 0, 1, 1, 2]})
    model.load(dtype=dtype)
    full = np.broadcast_to(
        {
            "full": lambda c: c,
            "shared": lambda c: c,
            "diagonal": lambda c: c[:, :, None] * np.eye(3),
            "class": lambda c: c[:, None, None] * np.eye(3),
            "scalar": lambda c: c * np.eye(3),
        }[form](covariances),
        (5, 3, 3),
    )
    return model, means, weights, full


@pytest.mark.parametrize("form", ["full", "shared", "diagonal", "class", "scalar"])
def test_posterior_and_denoiser_agree_with_scipy(form: str) -> None:
    model, means, weights, covariances = general(form=form)
    x = 3 * torch.randn(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sigma = torch.logspace(-2, 1.5, 40, dtype=torch.float64)
    log_joint, mean = np.empty((40, 5)), np.empty((40, 5, 3))
    for i in range(40):
        for k in range(5):
            total = covariances[k] + sigma[i].item() ** 2 * np.eye(3)
            log_joint[i, k] = np.log(weights[k]) + stats.multivariate_normal.logpdf(x[i], means[k], total)
            mean[i, k] = means[k] + covariances[k] @ np.linalg.solve(total, x[i].numpy() - means[k])
    p = np.exp(log_joint - log_joint.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    posterior = model.posterior(x, sigma)
    even = np.stack([p[:, [0, 2, 4]].sum(1), p[:, [1, 3]].sum(1)], axis=1)
    third = np.stack([p[:, [0, 1]].sum(1), p[:, [2, 3]].sum(1), p[:, 4]], axis=1)
    np.testing.assert_allclose(posterior["even"], even, atol=1e-10)
    np.testing.assert_allclose(posterior["third"], third, atol=1e-10)
    np.testing.assert_allclose(model.denoise(x, sigma), np.einsum("bk,bkd->bd", p, mean), atol=1e-10)
    for labels, keep in (((0, -1), [0, 2, 4]), ((-1, 1), [2, 3]), ((1, 0), [1])):
        restricted = p[:, keep] / p[:, keep].sum(1, keepdims=True)
        expected = np.einsum("bk,bkd->bd", restricted, mean[:, keep])
        given = model.denoise(x, sigma, torch.tensor(labels).expand(40, 2))
        rows = p[:, keep].sum(1) > 1e-200  # where the condition is not numerically impossible
        np.testing.assert_allclose(given.numpy()[rows], expected[rows], atol=1e-8)


def test_score_is_the_gradient_of_the_log_density() -> None:
    """Tweedie: (D(x) - x) / sigma² = ∇ log p_sigma(x), by central differences of scipy's density."""
    model, means, weights, covariances = general()
    sigma = 0.7

    def log_density(x: Array) -> float:
        parts = [
            stats.multivariate_normal.pdf(x, m, c + sigma**2 * np.eye(3)) * w
            for m, c, w in zip(means, covariances, weights, strict=True)
        ]
        return float(np.log(sum(parts)))

    x, h = np.array([0.3, -0.8, 1.1]), 1e-5
    gradient = [(log_density(x + h * e) - log_density(x - h * e)) / (2 * h) for e in np.eye(3)]
    denoised = model.denoise(torch.tensor(x[None]), torch.tensor([sigma], dtype=torch.float64))[0].numpy()
    np.testing.assert_allclose((denoised - x) / sigma**2, gradient, atol=1e-8)


@pytest.mark.parametrize("form", ["full", "shared", "diagonal"])
def test_posterior_draws_have_the_posterior_moments(form: str) -> None:
    """Mean and second moments of draws against the closed form of a Gaussian mixture, within 4.5 SE."""
    model, means, weights, covariances = general(form=form)
    n, sigma = 40_000, 1.2
    x = torch.tensor([[0.2, 0.5, -0.4]], dtype=torch.float64)
    draws = model.sample_posterior(
        x.expand(n, 3), torch.full((n,), sigma), torch.Generator().manual_seed(11)
    ).numpy()
    p, moments = np.empty(5), []
    for k in range(5):
        total = covariances[k] + sigma**2 * np.eye(3)
        p[k] = weights[k] * stats.multivariate_normal.pdf(x[0], means[k], total)
        mean = means[k] + covariances[k] @ np.linalg.solve(total, x[0].numpy() - means[k])
        spread = covariances[k] - covariances[k] @ np.linalg.solve(total, covariances[k])
        moments.append((mean, spread + np.outer(mean, mean)))
    p /= p.sum()
    first = sum(p[k] * moments[k][0] for k in range(5))
    second = sum(p[k] * moments[k][1] for k in range(5))
    products = draws[:, :, None] * draws[:, None]
    assert (np.abs(draws.mean(0) - first) < 4.5 * draws.std(0) / n**0.5).all()
    assert (np.abs(products.mean(0) - second) < 4.5 * products.std(0) / n**0.5).all()
    np.testing.assert_allclose(model.denoise(x, torch.tensor([sigma]))[0], first, atol=1e-7)


@pytest.mark.parametrize("form", ["full", "shared", "class"])
def test_samples_have_the_mixtures_moments_and_labels(form: str) -> None:
    model, means, weights, covariances = general(form=form)
    n = 40_000
    x0, labels = model.sample(n, torch.Generator().manual_seed(12))
    assert (x0.dtype, labels.dtype) == (torch.float64, torch.int64)
    products = (x0[:, :, None] * x0[:, None]).numpy()
    second = np.einsum("k,kde->de", weights, covariances + means[:, :, None] * means[:, None])
    assert (np.abs(x0.numpy().mean(0) - weights @ means) < 4.5 * x0.numpy().std(0) / n**0.5).all()
    assert (np.abs(products.mean(0) - second) < 4.5 * products.std(0) / n**0.5).all()
    for value in range(3):
        share = weights[np.array([0, 0, 1, 1, 2]) == value].sum()
        assert model.prior()["third"][value].item() == pytest.approx(share, abs=1e-12)
        assert (labels[:, 1] == value).float().mean().item() == pytest.approx(share, abs=4.5 * 0.5 / n**0.5)
    # nearly noise-free, the posterior names the component that was drawn
    tight = ExactMixture(means, weights, 1e-4, {"even": [0, 1, 0, 1, 0], "third": [0, 0, 1, 1, 2]})
    x0, labels = tight.sample(500, torch.Generator().manual_seed(13))
    for column, p in enumerate(tight.posterior(x0, torch.full((500,), 0.01)).values()):
        assert (p.argmax(1) == labels[:, column]).all()


# K -> rho at which I / H = 1/2, agreement and Bayes accuracy there, equidistant classes: A §6
HALFWAY = {2: (1.04, 0.782, 0.847), 4: (1.28, 0.624, 0.729), 10: (1.60, 0.473, 0.608), 15: (1.77, 0.424, 0.564)}


@pytest.mark.parametrize(("classes", "published"), HALFWAY.items())
def test_equidistant_classes_are_half_known_where_published(
    classes: int, published: tuple[float, float, float]
) -> None:
    rho, agreement, accuracy = published
    model = ExactMixture(preset="simplex", classes=classes, dim=classes, distance=2.0, std=0.1)
    sigma = np.sqrt(1 / rho - 0.01)  # rho = (distance / 2)² / (std² + sigma²)
    generator = torch.Generator().manual_seed(classes)
    x0, labels = model.sample(60_000, generator)
    x = x0 + sigma * torch.randn(x0.shape, generator=generator)
    p = model.posterior(x, torch.full((len(x),), sigma))["class"].double().numpy()
    assert 1 - entropy(p).mean() / np.log(classes) == pytest.approx(0.5, abs=0.006)
    assert (p**2).sum(1).mean() == pytest.approx(agreement, abs=0.006)
    assert (p.argmax(1) == labels[:, 0].numpy()).mean() == pytest.approx(accuracy, abs=0.006)


def test_hierarchy_factorises_into_two_binary_channels() -> None:
    """±M u ± m v with u ⟂ v: p(coarse | x) = sigmoid(2 M u·x / Γ), and likewise for fine (A, T3)."""
    model = ExactMixture(preset="hierarchy", dim=6, distance=16.0, fine_distance=2.0, std=0.2)
    x = 5 * torch.randn(200, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    gamma = 0.2**2 + 3.0**2
    p = model.posterior(x, torch.full((200,), 3.0, dtype=torch.float64))
    axes, _ = model.sample(4000, torch.Generator().manual_seed(2))
    assert (axes[:, 2:].abs() < 1.2).all()  # the hierarchy lives on the first two axes
    for factor, axis, amplitude in (("coarse", 0, 8.0), ("fine", 1, 1.0)):
        np.testing.assert_allclose(p[factor][:, 0], expit(2 * amplitude * x[:, axis].numpy() / gamma), atol=1e-12)


def test_flat_preset_has_the_asked_distance_and_seed() -> None:
    first, again, other = (ExactMixture(preset="flat", classes=300, dim=64, seed=s) for s in (0, 0, 1))
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()
    x0, _ = ExactMixture(preset="flat", classes=300, dim=64, std=1e-3).sample(2000)
    assert torch.pdist(x0.double()).square().mean().sqrt().item() == pytest.approx(8.0, rel=0.05)


def test_dummy_factor_carries_no_information() -> None:
    model = ExactMixture([[1.0, 0], [-1.0, 0]], dummy=3, covariances=0.1)
    plain = ExactMixture([[1.0, 0], [-1.0, 0]], covariances=0.1)
    assert [factor.size for factor in model.factors] == [2, 3]
    x, labels = model.sample(30_000, torch.Generator().manual_seed(3))
    sigma = torch.full((30_000,), 0.5)
    torch.testing.assert_close(model.posterior(x, sigma)["dummy"], torch.full((30_000, 3), 1 / 3))
    torch.testing.assert_close(model.prior()["dummy"], torch.full((3,), 1 / 3, dtype=torch.float64))
    given = torch.stack([torch.full((30_000,), -1), labels[:, 1]], dim=1)
    torch.testing.assert_close(model.denoise(x, sigma, given), plain.denoise(x, sigma), rtol=0, atol=0)
    table = torch.zeros(2, 3).index_put_((labels[:, 0], labels[:, 1]), torch.tensor(1.0), accumulate=True)
    assert stats.chi2_contingency(table.numpy()).pvalue > 1e-3
    assert abs(table.sum(0) / 30_000 - 1 / 3).max() < 4.5 * (2 / 9 / 30_000) ** 0.5


@pytest.mark.parametrize("form", ["full", "shared"])
def test_rows_do_not_see_each_other(form: str) -> None:
    model, *_ = general(form=form)
    x = torch.randn(9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    sigma, labels = torch.linspace(0.1, 4, 9), torch.tensor([[0, -1], [-1, 1], [-1, -1]]).repeat(3, 1)
    for i in range(9):
        row = slice(i, i + 1)
        alone = model.denoise(x[row], sigma[row], labels[row])
        torch.testing.assert_close(model.denoise(x, sigma, labels)[row], alone, rtol=0, atol=1e-12)
    assert model.denoise(x[:0], sigma[:0]).shape == (0, 3)


def test_the_callers_arrays_are_copied_and_inputs_untouched() -> None:
    means, covariance = np.eye(2), np.array([1.0, 2.0])
    model = ExactMixture(means, covariances=covariance)
    before = model.fingerprint()
    means[:], covariance[:] = 7.0, 9.0
    assert model.fingerprint() == before
    x, sigma = torch.ones(3, 2), torch.ones(3)
    model.denoise(x, sigma)
    assert (x == 1).all()
    assert (sigma == 1).all()


def test_the_command_line_poses_named_mixtures() -> None:
    model = build(ExactMixture, "model", "exact-mixture:hierarchy,dim=5,distance=10")
    assert (model.shape, [f.name for f in model.factors]) == ((5,), ["coarse", "fine"])
    assert build(ExactMixture, "model", "exact-mixture").shape == (8,)
    with pytest.raises(UsageError, match="unknown preset 'ring'; known: two-gaussians, simplex"):
        build(ExactMixture, "model", "exact-mixture:ring")


NAN = float("nan")
ID = np.eye(2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"means": np.zeros((0, 3))}, r"K, d >= 1, got \(0, 3\)"),
        ({"means": [1.0, 2.0]}, r"shape \(K, d\).*got \(2,\)"),
        ({"means": [[0.0, NAN]]}, r"means must be finite, got nan at index \(0, 1\)"),
        ({"means": ID, "weights": [0.5, 0.6]}, "must sum to 1, they sum to 1.1"),
        ({"means": ID, "weights": [1.5, -0.5]}, "weight 1 is -0.5"),
        ({"means": ID, "weights": [1.0, 0.0]}, "weight 1 is 0"),
        ({"means": ID, "weights": [1.0]}, r"shape \(2,\), one for each mean, got \(1,\)"),
        ({"means": ID, "covariances": 0.0}, "positive definite, got a variance of 0"),
        ({"means": ID, "covariances": [[1.0, 2.0], [2.0, 1.0]]}, "0 is not positive definite.*eigenvalue is -1"),
        ({"means": ID, "covariances": [ID, np.ones((2, 2))]}, "covariance 1 is not positive definite"),
        ({"means": ID, "covariances": [[1.0, 0.5], [0.2, 1.0]]}, "covariance 0 is not symmetric.*0.3"),
        ({"means": ID, "covariances": np.ones(3)}, r"got \(3,\)"),
        ({"means": ID, "covariances": [1.0, NAN]}, "covariances must be finite"),
        ({"means": ID, "factors": {"a": [0, 2]}}, r"without gaps, got \[0, 2\]"),
        ({"means": ID, "factors": {"a": [0]}}, "each of the 2 components"),
        ({"means": ID, "factors": {}}, "at least one factor"),
        ({"means": ID, "factors": {"dummy": [0, 1]}, "dummy": 2}, "has one already"),
        ({"means": ID, "dummy": 1}, "at least 2 values, got 1"),
        ({"means": ID, "preset": "flat", "dim": 3}, "preset, dim describe a named mixture"),
        ({"weights": [1.0]}, "give means"),
        ({"preset": "two-gaussians", "classes": 3}, "no option 'classes'; it has dim, distance, std"),
        ({"preset": "simplex", "classes": 0}, "classes must be at least 2, got 0"),
        ({"preset": "simplex", "classes": 9, "dim": 7}, "needs dim >= 8.*got 7"),
        ({"preset": "simplex", "std": 0.0}, "std must be finite and positive, got 0"),
    ],
)
def test_impossible_mixtures_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ExactMixture(**arguments)  # type: ignore[arg-type]


def test_impossible_questions_are_refused() -> None:
    model, *_ = general()
    x, sigma = torch.zeros(1, 3), torch.ones(1)
    with pytest.raises(UsageError, match="no component has even = 1, third = 2"):
        model.denoise(x, sigma, torch.tensor([[1, 2]]))
    with pytest.raises(UsageError, match=r"label 2 of factor 'even' is outside 0 … 1"):
        model.denoise(x, sigma, torch.tensor([[2, 0]]))
    with pytest.raises(UsageError, match="sigma > 0, got nan"):
        model.denoise(x, torch.tensor([NAN]))


def test_only_its_own_data_are_accepted() -> None:
    class Other(Dataset):
        name = "other"
        factors = (Factor("class", ("0", "1")),)
        shape = (3,)

        def load(self) -> None: ...

        def split(self, name: str) -> Split:
            raise AssertionError

    ExactMixture(np.zeros((2, 3))).bind(Other())
    with pytest.raises(NotApplicableError, match=r"exact for its own distribution.*other has"):
        ExactMixture(np.zeros((2, 4))).bind(Other())
