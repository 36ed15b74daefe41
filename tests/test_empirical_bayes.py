"""The empirical-Bayes oracle against brute force in extended precision and against its own identities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from benchsuite_models.empirical_bayes import EmpiricalBayes

from benchsuite import Dataset, Factor, NotApplicableError, Split, UsageError

COLOUR = (0, 0, 1, 1, 2, 2, 0, 1, 2, 0)
FORM = (0, 1, 0, 1, 0, 1, 1, 1, 0, 0)


class Pictures(Dataset):
    """Ten 1 x 6 x 6 images in near-duplicate pairs, two factors; forms and colours do not all meet."""

    name = "pictures"

    def __init__(self, enumerated: bool = False) -> None:
        self.enumerated = enumerated  # type: ignore[misc]
        self.factors = (Factor("colour", ("red", "green", "blue")), Factor("form", ("disc", "bar")))
        self.shape = (1, 6, 6)

    def load(self) -> None:
        pass

    def split(self, name: str) -> Split:
        rng = np.random.default_rng(7)
        images = rng.uniform(-1, 1, size=(5, 1, 6, 6)).repeat(2, axis=0)
        images = images + 0.003 * rng.standard_normal(images.shape)  # pairs nearly coincide
        labels = np.stack([COLOUR, FORM], axis=1)
        every = Split(
            torch.tensor(images, dtype=torch.float32),
            torch.tensor(labels),
            tuple(f"picture-{i}" for i in range(10)),
        )
        part = {"train": slice(0, 10), "val": slice(6, 8), "test": slice(8, 10)}[name]
        if self.enumerated:
            part = {"train": slice(0, 7), "val": slice(6, 8), "test": slice(8, 10)}[name]
        return Split(every.images[part], every.labels[part], every.ids[part])


class Halved:
    """A codec: 6 x 6 images seen as sums of neighbouring columns, scaled."""

    shape = (1, 6, 3)

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        return 0.5 * (images[..., 0::2] + images[..., 1::2])

    def decode(self, x: torch.Tensor) -> torch.Tensor:
        return x.repeat_interleave(2, dim=-1)


def bound(dtype: str = "float32") -> EmpiricalBayes:
    model = EmpiricalBayes()
    model.bind(Pictures())
    model.load(dtype=dtype)
    return model


def brute_weights(x: torch.Tensor, sigma: float, images: torch.Tensor) -> np.ndarray:
    """p(i | x) from differences in long double: (B, N)."""
    x_, y = x.numpy().astype(np.longdouble), images.numpy().astype(np.longdouble)
    distance = ((x_[:, None] - y[None]) ** 2).reshape(len(x_), len(y), -1).sum(-1)
    exponent = -distance / (2 * np.longdouble(sigma) ** 2)
    weights = np.exp(exponent - exponent.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("sigma", [1e-3, 3e-3, 0.01, 0.1, 1.0, 10.0, 1e3, 1e4])
def test_posterior_and_means_agree_with_brute_force(sigma: float) -> None:
    model = bound()
    images = model.population
    noise = torch.randn(20, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    x = images.repeat(2, 1, 1, 1) + sigma * noise
    level = torch.full((20,), sigma)
    weights = brute_weights(x, np.float32(sigma), images)

    posterior = model.posterior(x.double(), level)
    for column, (factor, known) in enumerate(zip(("colour", "form"), (COLOUR, FORM), strict=True)):
        size = model.factors[column].size
        expected = np.stack([weights[:, np.array(known) == k].sum(1) for k in range(size)], axis=1)
        np.testing.assert_allclose(posterior[factor].numpy(), expected.astype(float), atol=1e-9)

    flat = images.flatten(1).numpy().astype(np.longdouble)
    np.testing.assert_allclose(
        model.denoise(x, level).flatten(1).numpy(), (weights @ flat).astype(float), atol=1e-6
    )
    for labels, keep in (
        ([1, -1], np.array(COLOUR) == 1),
        ([0, 1], (np.array(COLOUR) == 0) & (np.array(FORM) == 1)),
    ):
        restricted = brute_weights(x, np.float32(sigma), images[torch.tensor(keep)])
        conditional = model.denoise(x, level, torch.tensor(labels).expand(20, 2))
        np.testing.assert_allclose(
            conditional.flatten(1).numpy(), (restricted @ flat[keep]).astype(float), atol=1e-6
        )


def test_rows_may_have_different_labels_and_levels() -> None:
    model = bound()
    x = model.population[:4] + torch.randn(4, 1, 6, 6, generator=torch.Generator().manual_seed(2))
    sigma = torch.tensor([0.1, 1.0, 3.0, 0.5])
    labels = torch.tensor([[0, -1], [-1, -1], [2, 0], [-1, 1]])
    together = model.denoise(x, sigma, labels)
    for i in range(4):
        alone = model.denoise(x[i : i + 1], sigma[i : i + 1], labels[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-6, rtol=0)


def test_posterior_is_the_weight_of_the_conditional_means() -> None:
    """Law of total expectation: E[x0 | x] = Σ_k p(k | x) E[x0 | x, k], for both factors."""
    model = bound("float64")
    x = model.population + torch.randn(10, 1, 6, 6, generator=torch.Generator().manual_seed(3)).double()
    sigma = torch.linspace(0.3, 3.0, 10)
    posterior = model.posterior(x, sigma)
    for column, factor in enumerate(model.factors):
        total = torch.zeros_like(x)
        for k in range(factor.size):
            labels = torch.full((10, 2), -1)
            labels[:, column] = k
            total += posterior[factor.name][:, k, None, None, None] * model.denoise(x, sigma, labels)
        torch.testing.assert_close(total, model.denoise(x, sigma), atol=1e-10, rtol=0)


def test_draws_follow_the_posterior() -> None:
    model = bound()
    x = model.population[:1] + 0.8 * torch.randn(1, 1, 6, 6, generator=torch.Generator().manual_seed(4))
    sigma, n = torch.tensor([1.5]), 20_000
    draws = model.sample_posterior(x.expand(n, -1, -1, -1), sigma.expand(n), torch.Generator().manual_seed(5))
    index = (draws.flatten(1)[:, None] == model.population.flatten(1)).all(2).float()
    assert (index.sum(1) == 1).all()
    expected = brute_weights(x, 1.5, model.population)[0].astype(float)
    error = np.abs(index.mean(0).numpy() - expected)
    assert (error < 4 * np.sqrt(expected * (1 - expected) / n) + 1e-4).all()


def test_prior_and_samples_follow_the_population() -> None:
    model = bound()
    prior = model.prior()
    np.testing.assert_allclose(prior["colour"].numpy(), [0.4, 0.3, 0.3])
    np.testing.assert_allclose(prior["form"].numpy(), [0.5, 0.5])
    x0, labels = model.sample(4000, torch.Generator().manual_seed(6))
    index = (x0.flatten(1)[:, None] == model.population.flatten(1)).all(2).int().argmax(1)
    assert (model.population_labels[index] == labels).all()
    assert abs(torch.bincount(index, minlength=10) / 4000 - 0.1).max() < 4 * (0.09 / 4000) ** 0.5


def test_codec_moves_the_population_into_its_space() -> None:
    model = EmpiricalBayes()
    model.bind(Pictures(), Halved())
    model.load()
    assert (model.space, model.shape, EmpiricalBayes.space) == ("latents", (1, 6, 3), "pixels")
    images = Pictures().split("train").images
    torch.testing.assert_close(model.population, 0.5 * (images[..., 0::2] + images[..., 1::2]))
    x = model.population
    torch.testing.assert_close(model.denoise(x, torch.full((10,), 1e-3)), x, atol=1e-2, rtol=0)
    assert model.decode(model.encode(images)).shape == images.shape


def test_enumerated_data_are_their_own_population() -> None:
    """Train holds 7 items, val 2 (one of them also in train), test 2: ten distinct items in all."""
    model = EmpiricalBayes()
    model.bind(Pictures(enumerated=True))
    model.load()
    assert model.population_size == 10
    torch.testing.assert_close(model.population, Pictures().split("train").images)


def test_chunks_do_not_change_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    model = bound()
    x = model.population + 0.5
    sigma = torch.linspace(0.2, 5, 10)
    labels = torch.tensor([[-1, -1], [0, -1]] * 5)
    whole = model.denoise(x, sigma, labels), model.posterior(x, sigma)["colour"]
    monkeypatch.setattr("benchsuite_models.finite_population.CHUNK", 30)
    monkeypatch.setattr("benchsuite_models.finite_population.BLOCK", 3)
    parts = model.denoise(x, sigma, labels), model.posterior(x, sigma)["colour"]
    torch.testing.assert_close(whole, parts, atol=1e-6, rtol=0)


def test_fingerprint_sees_images_and_labels() -> None:
    first, second, third = bound(), bound(), bound()
    assert first.fingerprint() == second.fingerprint()
    second.population = second.population.clone()
    second.population[3, 0, 2, 2] += 1e-6
    third.population_labels = 1 - third.population_labels
    assert len({first.fingerprint(), second.fingerprint(), third.fingerprint()}) == 3


def test_bad_input_is_refused_with_the_value() -> None:
    model = bound()
    x, sigma = torch.zeros(2, 1, 6, 6), torch.ones(2)
    monochrome = bound()
    monochrome.population_labels = torch.tensor(
        [[c, f if c < 2 else 0] for c, f in zip(COLOUR, FORM, strict=True)]
    )
    with pytest.raises(UsageError, match="none of the 10 images has colour = blue, form = bar"):
        monochrome.denoise(x, sigma, torch.tensor([[2, 1], [0, 0]]))
    with pytest.raises(UsageError, match=r"label 3 of factor 'colour' is outside 0 … 2"):
        model.denoise(x, sigma, torch.tensor([[3, 1], [0, 0]]))
    with pytest.raises(UsageError, match=r"integer labels \(2, 2\), got torch.int64 \(2, 1\)"):
        model.denoise(x, sigma, torch.zeros(2, 1, dtype=torch.int64))
    with pytest.raises(UsageError, match=r"takes x \(B, 1, 6, 6\).*got \(2, 6, 6\)"):
        model.denoise(x[:, 0], sigma)
    with pytest.raises(UsageError, match="sigma > 0, got 0"):
        model.posterior(x, torch.tensor([1.0, 0.0]))
    with pytest.raises(UsageError, match="call bind"):
        EmpiricalBayes().load()
    empty = Pictures()
    empty.split = lambda name: Split(torch.zeros(0, 1, 6, 6), torch.zeros(0, 2, dtype=torch.int64), ())  # type: ignore[method-assign]
    with pytest.raises(NotApplicableError, match="empty population"):
        EmpiricalBayes().bind(empty)
