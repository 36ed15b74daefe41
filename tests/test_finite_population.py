"""Copies and a short span change the work, not the posterior: against plain sums over every item."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from benchsuite_models.empirical_bayes import EmpiricalBayes
from benchsuite_models.finite_population import FinitePopulation

from benchsuite import Dataset, Factor, Split
from benchsuite.protocols.spread import head_spread


class Copies(Dataset):
    """Twelve 1 x 8 x 16 images made of five patterns, some of them several times and under different labels."""

    name = "copies"
    factors = (Factor("kind", ("a", "b", "c")), Factor("dummy", ("0", "1")))
    shape = (1, 8, 16)

    def load(self) -> None:
        pass

    def split(self, name: str) -> Split:
        rng = np.random.default_rng(3)
        mixing = rng.standard_normal((12, 5))
        mixing[[4, 9]] = mixing[2]
        mixing[11] = mixing[0]
        patterns = rng.standard_normal((5, 128)) / 4
        images = torch.tensor(mixing @ patterns, dtype=torch.float32).view(12, 1, 8, 16)
        labels = torch.tensor([[i % 3, i // 6] for i in range(12)])
        return Split(images, labels, tuple(str(i) for i in range(12)))


@pytest.fixture
def model() -> EmpiricalBayes:
    found = EmpiricalBayes()
    found.bind(Copies())
    found.load()
    return found


def weights_by_hand(x: torch.Tensor, sigma: float, points: torch.Tensor) -> np.ndarray:
    """p(i | x) over all items, in extended precision."""
    far = np.asarray(x, np.longdouble)[:, None, :] - np.asarray(points, np.longdouble)[None]
    logs = -(far**2).sum(-1) / (2 * np.longdouble(sigma) ** 2)
    raised = np.exp(logs - logs.max(1, keepdims=True))
    return np.asarray(raised / raised.sum(1, keepdims=True), np.float64)


def noised(sigma: float) -> tuple[Split, torch.Tensor, np.ndarray]:
    """All items, three of them under noise (3, 128), and p(i | x) (3, 12)."""
    split = Copies().split("train")
    points = split.images.flatten(1)
    x = points[[0, 2, 7]] + sigma * torch.tensor(np.random.default_rng(0).standard_normal((3, 128))).float()
    return split, x, weights_by_hand(x, sigma, points)


def test_copies_are_found_and_the_span_is_short(model: EmpiricalBayes) -> None:
    population = FinitePopulation(model.population.flatten(1))
    assert len(population) == 9
    assert population.count.tolist() == [2, 1, 3, 1, 1, 1, 1, 1, 1]
    assert population.copies[[0, 11]].tolist() == [0, 0]
    assert population.rank == 5


@pytest.mark.parametrize("sigma", [0.05, 0.7, 5.0])
def test_posterior_and_heads_are_those_of_the_plain_sum(model: EmpiricalBayes, sigma: float) -> None:
    split, x, weights = noised(sigma)
    points = split.images.flatten(1)
    images, sigmas = x.view(3, 1, 8, 16), torch.full((3,), sigma)
    assert torch.allclose(
        model.denoise(images, sigmas).flatten(1),
        torch.tensor(weights @ points.double().numpy()).float(),
        atol=2e-5,
    )
    posterior = model.posterior(images, sigmas)
    spread = model.head_spread(images, sigmas)
    for column, factor in enumerate(Copies.factors):
        mass, apart = np.zeros((3, factor.size)), np.zeros(3)
        plain = weights @ points.double().numpy()
        for value in range(factor.size):
            told = weights * (split.labels[:, column] == value).numpy()
            mass[:, value] = told.sum(1)
            present = mass[:, value] > 1e-12
            head = told @ points.double().numpy() / np.where(present, mass[:, value], 1)[:, None]
            apart += mass[:, value] * ((head - plain) ** 2).sum(1)
            labels = torch.full((3, 2), -1)
            labels[:, column] = value
            asked = model.denoise(images, sigmas, labels).flatten(1).double().numpy()
            assert np.abs(asked - head)[present].max() < 2e-5
        assert np.abs(posterior[factor.name].numpy() - mass).max() < 1e-5
        assert np.allclose(spread[factor.name].numpy(), apart, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("sigma", [0.05, 0.7, 5.0])
def test_joint_information_is_that_of_the_plain_sum_over_combinations(model: EmpiricalBayes, sigma: float) -> None:
    """Copies of a point with labels of their own, and points that share their labels, included."""
    split, x, weights = noised(sigma)
    expected = np.zeros(3)
    combinations = split.labels.unique(dim=0)
    assert len(combinations) < len(split)
    for combination in combinations:
        carried = (split.labels == combination).all(1).numpy()
        p, prior = weights[:, carried].sum(1), carried.mean()
        expected += p * np.log(np.where(p > 0, p, 1.0)) - prior * np.log(prior)
    found = model.joint_information(x.view(3, 1, 8, 16), torch.full((3,), sigma))
    assert np.allclose(found.numpy(), expected, atol=1e-6)


def test_images_without_labels_have_a_denoiser_and_nothing_to_know() -> None:
    class Unlabelled(Copies):
        factors = ()

        def split(self, name: str) -> Split:
            part = super().split(name)
            return Split(part.images, part.labels[:, :0], part.ids)

    found, labelled = EmpiricalBayes(), EmpiricalBayes()
    found.bind(Unlabelled())
    labelled.bind(Copies())
    found.load()
    labelled.load()
    x, sigma = found.population[:4], torch.full((4,), 0.7)
    assert torch.equal(found.denoise(x, sigma), labelled.denoise(x, sigma))
    assert found.posterior(x, sigma) == {}
    assert found.joint_information(x, sigma).abs().max() < 1e-12


def test_a_label_without_relation_to_the_image_is_never_known() -> None:
    """Every image once with each value: the posterior of that factor is uniform at every level."""

    class Doubled(Copies):
        def split(self, name: str) -> Split:
            half = super().split(name)
            labels = torch.cat([torch.stack([half.labels[:, 0], torch.full((12,), v)], dim=1) for v in (0, 1)])
            return Split(half.images.repeat(2, 1, 1, 1), labels, tuple(str(i) for i in range(24)))

    model = EmpiricalBayes()
    model.bind(Doubled())
    model.load()
    x = model.population[:4]
    posterior = model.posterior(x, torch.full((4,), 0.01))
    assert torch.allclose(posterior["dummy"], torch.full((4, 2), 0.5), atol=1e-6)
    assert model.head_spread(x, torch.full((4,), 0.01))["dummy"].abs().max() < 1e-9


def test_the_short_way_to_the_spread_agrees_with_asking_every_head(model: EmpiricalBayes) -> None:
    """The same protocol step with and without the model's own method."""

    class Asked(EmpiricalBayes):
        def head_spread(self, x: torch.Tensor, sigma: torch.Tensor) -> None:  # type: ignore[override]
            return None

    asked = Asked()
    asked.bind(Copies())
    asked.load()
    x, sigma = model.population[:5] + 0.3, 0.8
    sigmas = torch.full((5,), sigma)
    values = {"kind": [0, 1, 2], "dummy": [0, 1]}
    rows = []

    class Counter:
        def add(self, n: int) -> None:
            rows.append(n)

    results = []
    for each in (model, asked):
        posterior = each.posterior(x, sigmas)
        results.append(
            head_spread(each, x, sigma, each.denoise(x, sigmas), posterior, values, Counter())  # type: ignore[arg-type]
        )
    assert rows == [5] + [5] * 5
    for name in values:
        assert torch.allclose(results[0][name], results[1][name], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("most", [1, 3, 6])
def test_cells_of_any_size_add_up_to_the_same_spread(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """One factor to a cut, or several: the sums over cells are those over the factors' values."""
    found = []
    for cells in (most, 64):
        monkeypatch.setattr("benchsuite_models.cells.MOST", cells)
        model = EmpiricalBayes()
        model.bind(Copies())
        model.load("cpu", "float64")
        x = model.population[:5] + 0.3
        found.append(model.head_spread(x, x.new_full((5,), 0.8)))
    for factor in Copies.factors:
        assert torch.allclose(found[0][factor.name], found[1][factor.name], rtol=1e-10, atol=1e-14)


def test_points_that_fill_the_space_are_left_as_they_are() -> None:
    points = torch.tensor(np.random.default_rng(0).standard_normal((200, 80)) / 10).float()
    assert FinitePopulation(points).rank == 80
    nearly = points[:, :40] @ torch.tensor(np.random.default_rng(1).standard_normal((40, 80))).float()
    assert FinitePopulation(nearly).rank == 40
    off = nearly.clone()
    off[7] += 0.01 * points[3]  # one point outside the span by more than is allowed needs one dimension more
    assert FinitePopulation(off).rank == 80
