"""The batched logistic regression against scikit-learn and a general-purpose optimiser."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from benchsuite_metrics import logistic
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax

Array = NDArray[np.float64]


def problem(classes: int, dim: int = 5, n: int = 200, overlap: float = 1.0, seed: int = 0) -> tuple[Array, Array]:
    """Features (n, dim) and labels (n,), each class at its own mean."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(classes, dim))
    labels = rng.integers(classes, size=n)
    return means[labels] + overlap * rng.normal(size=(n, dim)), labels


def fit(x: Array, y: Array, classes: int, ridge: list[float], tol: float = 1e-7) -> logistic.Fit:
    """Problems that differ in ridge only (or in features, if x has a leading axis); converged in float64."""
    features = torch.tensor(x if x.ndim == 3 else np.stack([x] * len(ridge)))
    penalties = torch.tensor(ridge, dtype=torch.float64)
    return logistic.fit(features, torch.tensor(y), classes, penalties, max_iterations=5000, tol=tol)


def objective(x: Array, y: Array, weights: Array, bias: Array, ridge: float) -> float:
    """Mean NLL + ridge / 2 ‖W‖², from the definition."""
    log_p = log_softmax(x @ weights + bias, axis=1)
    return float(-log_p[np.arange(len(y)), y].mean() + ridge / 2 * (weights**2).sum())


@pytest.mark.parametrize("classes", [3, 6])
def test_agrees_with_scikit_learn_on_several_problems_at_once(classes: int) -> None:
    """Different features and different penalties side by side; sklearn's C is 1 / (n ridge)."""
    from sklearn.linear_model import LogisticRegression

    _, y = problem(classes)
    x = np.stack([problem(classes, overlap=o, seed=0)[0] for o in (0.3, 1.0, 3.0)])
    ridges = [1e-3, 1e-2, 0.3]
    found = fit(x, y, classes, ridges)
    assert found.gradient < 1e-7
    log_p = found.log_probabilities(torch.tensor(x)).numpy()
    for s, ridge in enumerate(ridges):
        reference = LogisticRegression(C=1 / (len(y) * ridge), tol=1e-10, max_iter=10_000).fit(x[s], y)
        np.testing.assert_allclose(log_p[s], reference.predict_log_proba(x[s]), atol=1e-3)
        np.testing.assert_allclose(found.weights[s].numpy().T, reference.coef_, atol=2e-3)


def test_two_classes_against_a_general_optimiser() -> None:
    x, y = problem(2)

    def loss(theta: Array) -> float:
        return objective(x, y, theta[:10].reshape(5, 2), theta[10:], 0.05)

    best = minimize(loss, np.zeros(12), method="BFGS", options={"gtol": 1e-8}).fun
    found = fit(x, y, 2, [0.05])
    mine = objective(x, y, found.weights[0].numpy(), found.bias[0].numpy(), 0.05)
    assert mine == pytest.approx(best, abs=1e-9)


def test_default_tolerance_is_tight_enough_for_nats() -> None:
    """With the defaults, in float32: within a thousandth of a nat of the optimum."""
    x, y = problem(10, dim=40, n=600)
    found = logistic.fit(torch.tensor(x, dtype=torch.float32)[None], torch.tensor(y), 10, torch.tensor([1e-3]))
    exact = fit(x, y, 10, [1e-3])
    values = [
        objective(x, y, f.weights[0].double().numpy(), f.bias[0].double().numpy(), 1e-3) for f in (found, exact)
    ]
    assert values[0] == pytest.approx(values[1], abs=1e-3)
    assert found.iterations < 400


def test_separable_classes_stay_finite() -> None:
    """Without a penalty the optimum is at infinity; with it, it is large, finite and certain."""
    x, y = problem(3, overlap=0.01)
    found = fit(x, y, 3, [1e-4, 1e-2])
    assert torch.isfinite(found.weights).all()
    log_p = found.log_probabilities(torch.tensor(x)[None].repeat(2, 1, 1)).numpy()
    assert (log_p.argmax(axis=2) == y).all()
    assert log_p[0, np.arange(len(y)), y].min() > np.log(0.95)


def test_constant_features_get_no_weight() -> None:
    x, y = problem(3)
    found = fit(np.concatenate([x, np.zeros((len(x), 2))], axis=1), y, 3, [1e-2])
    without = fit(x, y, 3, [1e-2])
    assert found.weights[0, 5:].abs().max() == 0
    np.testing.assert_allclose(found.weights[0, :5], without.weights[0], atol=1e-5)
    # nothing but constants: the class frequencies
    blind = fit(np.zeros((len(x), 2)), y, 3, [1e-2])
    frequencies = np.bincount(y) / len(y)
    np.testing.assert_allclose(blind.bias[0, 0].softmax(0), frequencies, atol=1e-6)


def test_ridge_shrinks_the_weights_and_not_the_bias() -> None:
    x, y = problem(3)
    y[:120] = 0  # unequal classes
    found = fit(x, y, 3, [1e-3, 1e-1, 10.0, 1e6])
    norms = found.weights.square().sum(dim=(1, 2)).sqrt().tolist()
    assert norms == sorted(norms, reverse=True)
    assert norms[-1] < 1e-5
    np.testing.assert_allclose(found.bias[-1, 0].softmax(0), np.bincount(y) / len(y), atol=1e-5)


def test_an_unseen_class_gets_no_probability() -> None:
    x, y = problem(3)
    found = fit(x, y, 4, [1e-2], tol=1e-5)
    assert found.log_probabilities(torch.tensor(x)[None])[..., 3].max() < np.log(1e-3)


def test_the_optimum_does_not_depend_on_company() -> None:
    x, y = problem(4)
    together, alone = fit(x, y, 4, [1e-3, 1.0]), fit(x, y, 4, [1e-3])
    np.testing.assert_allclose(together.weights[0], alone.weights[0], atol=1e-4)


def test_several_labels_of_the_same_items() -> None:
    """Side by side on one pass over the features: the optimum of each is its own."""
    x, y = problem(4)
    other = np.random.default_rng(5).integers(2, size=len(y))
    features, both = torch.tensor(x)[None], torch.tensor(np.stack([y, other], axis=1))
    ridge = torch.tensor([1e-3], dtype=torch.float64)
    found = logistic.fit(features, both, (4, 2), ridge, max_iterations=5000, tol=1e-7)
    log_p = found.log_probabilities(features).split((4, 2), dim=2)
    for labels, classes, part in ((y, 4, log_p[0]), (other, 2, log_p[1])):
        alone = fit(x, labels, classes, [1e-3])
        np.testing.assert_allclose(part, alone.log_probabilities(features), atol=1e-4)


def test_what_is_left_of_the_gradient_is_reported() -> None:
    x, y = problem(4)
    cut = logistic.fit(torch.tensor(x)[None], torch.tensor(y), 4, torch.tensor([1e-4]), max_iterations=3)
    assert cut.iterations == 3
    assert cut.gradient > 1e-3
