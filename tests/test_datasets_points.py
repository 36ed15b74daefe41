"""Point sets: where the points are, what they are labelled, and that the readout is exact."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from benchsuite_datasets.points import Points

from benchsuite import UsageError
from benchsuite.testing import assert_passed, check_dataset


def loaded(**options: Any) -> Points:
    dataset = Points(**options)
    dataset.load()
    return dataset


def coordinates(**options: Any) -> np.ndarray:
    return loaded(**options).split("train").images.double().numpy()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"which": "planar-13"},
        {"which": "circle"},
        {"which": "sphere", "count": 60, "dim": 5},
        {"which": "three-modes", "std": 0.3},
        {"points": [[0.0, 1.0, 2.0], [-1.0, 0.0, 1.0]]},
    ],
)
def test_contract(options: dict[str, Any]) -> None:
    assert_passed(check_dataset(Points(**options), options=options, alternatives={"which": "five-modes"}))


def test_modes_are_those_of_the_reference() -> None:
    assert coordinates().tolist() == [[-3, 0], [3, 0]]
    assert coordinates(which="three-modes").tolist() == [[0, 0], [5, 0], [0, 5]]
    four, five = coordinates(which="four-modes"), coordinates(which="five-modes")
    assert {math.dist(a, b) for a in four for b in four} == {0, 5, math.hypot(5, 5)}
    assert (five[:4] == four).all()
    assert (five[4] == four.mean(axis=0)).all()
    nine = coordinates(which="nine-modes")
    assert {tuple(p) for p in nine} == {(i, j) for i in range(3) for j in range(3)}


def test_the_thirteen_points_are_equally_far_apart_along_the_sine() -> None:
    points = coordinates(which="planar-13")
    assert points.shape == (13, 2)
    np.testing.assert_allclose(points[:, 1], 2 * np.sin(np.pi * points[:, 0] / 4), atol=1e-5)
    # arc lengths by the trapezoid rule on d s = sqrt(1 + (π/2 cos πx/4)²) dx, independent of how they were placed
    pieces = []
    for a, b in zip(points[:-1, 0], points[1:, 0], strict=True):
        x = np.linspace(a, b, 2001)
        speed = np.sqrt(1 + (np.pi / 2 * np.cos(np.pi * x / 4)) ** 2)
        pieces.append(float(((speed[1:] + speed[:-1]) / 2 * np.diff(x)).sum()))
    np.testing.assert_allclose(pieces, np.mean(pieces), rtol=1e-4)


def test_circle_and_sphere_have_their_radius_and_are_even() -> None:
    ring = coordinates(which="circle", count=50, radius=3.0)
    np.testing.assert_allclose(np.hypot(*ring.T), 3, rtol=1e-6)
    ring = ring[np.argsort(np.arctan2(ring[:, 1], ring[:, 0]))]
    gaps = np.linalg.norm(ring - np.roll(ring, 1, axis=0), axis=1)
    np.testing.assert_allclose(gaps, 2 * 3 * math.sin(math.pi / 50), rtol=1e-5)
    ball = coordinates(which="sphere", count=500)
    np.testing.assert_allclose(np.linalg.norm(ball, axis=1), 2, rtol=1e-6)
    assert np.abs(ball.mean(axis=0)).max() < 0.01
    np.testing.assert_allclose(ball.T @ ball / 500, np.eye(3) * 4 / 3, atol=0.02)
    apart = np.linalg.norm(ball[:, None] - ball, axis=2) + 9 * np.eye(500)
    nearest = apart.min(axis=1)
    assert nearest.min() > 0.6 * nearest.max()  # no clump, no hole


def test_the_first_items_are_spread_over_the_circle() -> None:
    assert np.abs(coordinates(which="circle")[:100].mean(axis=0)).max() < 0.35


def test_further_coordinates_are_zero() -> None:
    wide = coordinates(which="circle", dim=32)
    assert wide.shape == (200, 32)
    assert (wide[:, 2:] == 0).all()
    assert (wide[:, :2] == coordinates(which="circle")).all()


def test_factors() -> None:
    assert loaded(which="nine-modes").factors[0].size == 9
    ring = loaded(which="circle", count=8)
    assert ring.factors[0].name == "orthant"
    part = ring.split("train")
    for x, label in zip(part.images, part.labels[:, 0], strict=True):
        assert ring.factors[0].values[int(label)] == "".join("1" if v > 0 else "0" for v in x)


def test_points_are_the_population_and_a_mixture_is_not() -> None:
    points = loaded(which="four-modes")
    assert points.enumerated
    assert points.split("train").ids == points.split("test").ids
    mixture = loaded(which="four-modes", std=0.3, per_mode=50)
    assert not mixture.enumerated
    train, test = mixture.split("train"), mixture.split("test")
    assert (len(train), len(test)) == (200, 200)
    assert torch.bincount(train.labels[:, 0]).tolist() == [50] * 4
    assert not set(map(tuple, train.images.tolist())) & set(map(tuple, test.images.tolist()))
    centres = points.split("train").images
    offsets = train.images - centres[train.labels[:, 0]]
    assert offsets.std().item() == pytest.approx(0.3, rel=0.1)
    assert not torch.equal(train.images, loaded(which="four-modes", std=0.3, seed=1).split("train").images[:200])


def test_the_readout_is_the_nearest_point_or_the_mixtures_posterior() -> None:
    x = torch.tensor([[-0.1, 5.0], [2.0, -9.0]])
    assert loaded().readout().probabilities(x)["mode"].tolist() == [[1, 0], [0, 1]]
    p = loaded(std=2.0).readout().probabilities(x)["mode"]
    # two equal Gaussians at ±3: log-odds are 2 · 3 x / std²
    expected = torch.sigmoid(2 * 3 * x[:, 0] / 4)
    torch.testing.assert_close(p[:, 1], expected)
    octant = loaded(which="sphere").readout().probabilities(torch.tensor([[1.0, -1.0, 1.0]]))["orthant"]
    assert octant.argmax().item() == loaded(which="sphere").factors[0].values.index("101")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"which": "six-modes"}, "unknown point set 'six-modes'; known: two-modes"),
        ({"which": "two-modes", "count": 5}, "'two-modes' has no option count or radius"),
        ({"which": "circle", "count": 3}, "count must be at least 4, got 3"),
        ({"which": "circle", "radius": 0.0}, "radius must be finite and positive, got 0"),
        ({"which": "sphere", "dim": 2}, "dim must be at least 3 for these points, got 2"),
        ({"std": -1.0}, "std must be finite and not negative, got -1"),
        ({"std": float("nan")}, "std must be finite and not negative, got nan"),
        ({"per_mode": 5}, "per_mode and seed belong to a mixture"),
        ({"std": 1.0, "per_mode": 0}, "per_mode must be at least 1, got 0"),
        ({"points": [[0.0, 1.0]]}, r"points must be \(N, d\) with N >= 2 and d >= 1, got \(1, 2\)"),
        ({"points": [1.0, 2.0]}, r"got \(2,\)"),
        ({"points": [[0.0], [float("inf")]]}, "not finite"),
        ({"points": [[0.0], [1.0], [0.0]]}, "1 rows twice"),
        ({"points": [[0.0], [1.0]], "which": "circle"}, "points are given"),
    ],
)
def test_impossible_sets_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Points(**options)


def test_data_before_load_and_unknown_splits_are_refused() -> None:
    with pytest.raises(UsageError, match="load"):
        Points().split("train")
    with pytest.raises(UsageError, match="no split 'held-out'"):
        loaded().split("held-out")
