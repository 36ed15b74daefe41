"""Ridges whose place is known: lines, axes, circles, spheres, affine hulls; and frames where weights underflow."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from benchsuite_metrics.ridge_geometry import frame, local_statistics, normal_distance, project
from benchsuite_metrics.ridge_geometry import local as local_module
from benchsuite_metrics.ridge_geometry import responsibilities as responsibilities_module
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ive, logsumexp

from benchsuite import UsageError

Array = NDArray[np.float64]
TWO = np.array([[-3.0, 0.0], [3.0, 0.0]])


def ve(t: float) -> tuple[float, float, float]:
    """(a, h, sigma) of the Ornstein–Uhlenbeck process at t: x_t = a x0 + sqrt(h) z, sigma = sqrt(h) / a."""
    return np.exp(-t), -np.expm1(-2 * t), np.sqrt(np.expm1(2 * t))


def angle(vector: Array, axis: Array) -> Array:
    """Degrees between lines."""
    cosine = np.abs(vector @ axis) / np.linalg.norm(vector, axis=-1) / np.linalg.norm(axis)
    return np.degrees(np.arccos(cosine.clip(max=1.0)))


def naive_tangent(x: Array, points: Array, a: float, h: float) -> Array:
    """The prototype's: Hess log p formed in float64, leading eigenvector."""
    logits = -np.square(x[:, None] - a * points).sum(axis=-1) / (2 * h)
    w = np.exp(logits - logsumexp(logits, axis=1, keepdims=True))
    away = (a * points - x[:, None]) / h
    gradient = (w[..., None] * away).sum(axis=1)
    hessian = np.einsum("bi,bij,bik->bjk", w, away, away) - np.einsum("bj,bk->bjk", gradient, gradient)
    return np.linalg.eigh(hessian - np.eye(x.shape[1]) / h)[1][:, :, -1]


# ------------------------------------------------------------------------------------- the trap


@pytest.mark.parametrize("t", [1e-3, 1e-2, 0.1, 0.5, 2.0])
def test_two_points_have_the_whole_line_at_any_noise(t: float) -> None:
    """One shift lands on it exactly, and nothing moves along it, inside the segment or beyond."""
    sigma = ve(t)[2]
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.uniform(-5, 5, 200), rng.normal(size=200)])
    tangent = frame(x, TWO, sigma, 1).basis[:, 0]
    assert angle(tangent, np.array([1.0, 0.0])).max() == 0.0
    moved = project(x, TWO, sigma, 1, steps=1)
    assert np.abs(moved[:, 1]).max() == 0.0
    np.testing.assert_array_equal(moved[:, 0], x[:, 0])


def test_a_hessian_in_floating_point_has_lost_the_line() -> None:
    """What the log-safe frame is for: at t = 1e-3 the naive one is noise, at t = 0.5 it is right."""
    rng = np.random.default_rng(1)
    z, ends = rng.normal(size=(400, 2)), rng.choice([-3.0, 3.0], 400)
    angles = {}
    for t in (1e-3, 1e-2, 0.5):
        a, h, sigma = ve(t)
        x = np.sqrt(h) * z
        x[:, 0] += a * ends
        angles[t] = angle(naive_tangent(x, TWO, a, h), np.array([1.0, 0.0])).mean()
        assert angle(frame(x / a, TWO, sigma, 1).basis[:, 0], np.array([1.0, 0.0])).max() == 0.0
    assert angles[1e-3] > 30
    assert angles[1e-2] > 20
    assert angles[0.5] < 1e-4


@pytest.mark.parametrize("between", [False, True])
def test_graded_frames_agree_with_arithmetic_of_1500_digits(between: bool) -> None:
    """Near one point, and half-way between two that share the weight."""
    mpmath = pytest.importorskip("mpmath")
    rng = np.random.default_rng(5)
    points, x, sigma = rng.normal(size=(6, 4)), rng.normal(size=4), 0.03
    if between:
        near = np.argsort(np.square(x - points).sum(axis=1))[:2]
        x = points[near].mean(axis=0)
    with mpmath.workdps(1500):
        exact = mpmath.matrix(4, 4)
        rows = [[mpmath.mpf(v) for v in row] for row in points.tolist()]
        query = [mpmath.mpf(v) for v in x.tolist()]
        logits = [
            -sum((q - y) ** 2 for q, y in zip(query, row, strict=True)) / (2 * mpmath.mpf(sigma) ** 2)
            for row in rows
        ]
        total = sum(mpmath.exp(v) for v in logits)
        w = [mpmath.exp(v) / total for v in logits]
        mean = [sum(wi * row[j] for wi, row in zip(w, rows, strict=True)) for j in range(4)]
        for j, k in itertools.product(range(4), repeat=2):
            exact[j, k] = sum(wi * (r[j] - mean[j]) * (r[k] - mean[k]) for wi, r in zip(w, rows, strict=True))
        values, vectors = mpmath.eigsy(exact)
        order = sorted(range(4), key=lambda i: -values[i])
        logs = np.array([float(mpmath.log(values[i])) for i in order])
        basis = np.array([[float(vectors[j, i]) for j in range(4)] for i in order])
    found = frame(x[None], points, sigma, 4)
    assert logs[0] - logs[-1] > 700  # no float64 holds both
    np.testing.assert_allclose(found.log_mu[0], logs, rtol=1e-9)
    np.testing.assert_allclose(np.abs(found.basis[0] @ basis.T), np.eye(4), atol=1e-10)


# ---------------------------------------------------------------------------------- closed forms


def test_moments_are_gradient_and_hessian_of_the_log_density() -> None:
    rng = np.random.default_rng(2)
    points, x, sigma = rng.normal(size=(30, 3)), rng.normal(size=3), 0.6

    def log_p(q: Array) -> float:
        return float(logsumexp(-np.square(q - points).sum(axis=1) / (2 * sigma**2)))

    step = 1e-4
    basis = step * np.eye(3)
    gradient = np.array([(log_p(x + e) - log_p(x - e)) / (2 * step) for e in basis])
    hessian = np.array(
        [[log_p(x + e + f) - log_p(x + e - f) - log_p(x - e + f) + log_p(x - e - f) for f in basis] for e in basis]
    ) / (4 * step**2)
    found, directions = local_statistics(x[None], points, sigma), frame(x[None], points, sigma, 3)
    np.testing.assert_allclose((found.mean[0] - x) / sigma**2, gradient, atol=1e-7)
    covariance = (directions.basis[0].T * np.exp(directions.log_mu[0])) @ directions.basis[0]
    np.testing.assert_allclose(covariance / sigma**4 - np.eye(3) / sigma**2, hessian, atol=1e-5)
    assert found.trace[0] == pytest.approx(np.trace(covariance), rel=1e-10)
    w = np.exp(-np.square(x - points).sum(axis=1) / (2 * sigma**2))
    assert found.k_eff[0] == pytest.approx(w.sum() ** 2 / np.square(w).sum(), rel=1e-10)


def test_coordinates_of_other_processes_are_rescaled() -> None:
    """Responsibilities of x_t = a x0 + sqrt(h) z, computed there."""
    rng = np.random.default_rng(3)
    points, x_t = rng.normal(size=(20, 3)), rng.normal(size=3)
    a, h, sigma = ve(0.3)
    w = np.exp(-np.square(x_t - a * points).sum(axis=1) / (2 * h))
    found = local_statistics(x_t[None] / a, points, sigma)
    np.testing.assert_allclose(a * found.mean[0], w @ (a * points) / w.sum(), rtol=1e-12)
    np.testing.assert_allclose(np.exp(found.log_weights[0]), np.sort(w / w.sum())[::-1], rtol=1e-10)


@pytest.mark.parametrize("newton", [False, True])
@pytest.mark.parametrize("dim", [1, 2])
def test_axis_and_plane_of_an_anisotropic_cloud(dim: int, newton: bool) -> None:
    """Points that come in mirror images have their coordinate axes as ridges, wherever they were drawn."""
    rng = np.random.default_rng(4)
    quarter = np.abs(rng.normal(size=(150, 3))) * [2.0, 1.0, 0.5]
    points = np.concatenate([quarter * signs for signs in itertools.product([-1, 1], repeat=3)])
    x = np.zeros((10, 3))
    x[:, 0] = rng.uniform(-0.5, 0.5, 10)
    if dim == 2:
        x[:, 1] = rng.uniform(-0.3, 0.3, 10)
    x[:, dim:] = 0.05 * rng.normal(size=(10, 3 - dim))
    moved = project(x, points, 1.2, dim, newton=newton)
    assert np.abs(moved[:, dim:]).max() < 1e-10
    assert np.abs(moved[:, 0] - x[:, 0]).max() < 0.05


def circle(count: int, width: int, seed: int = 0) -> tuple[Array, Array]:
    """Points (N, d) on a circle of radius 2 in a random plane, and the plane (2, d)."""
    turn = 2 * np.pi * np.arange(count) / count
    plane = np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))[0][:2]
    return 2.0 * np.column_stack([np.cos(turn), np.sin(turn)]) @ plane, plane


def circle_ridge(t: float) -> float:
    """Radius in x_t: r = a R I1(z) / I0(z), z = r a R / h."""
    a, h, _ = ve(t)
    return float(
        brentq(lambda r: r - 2 * a * ive(1, r * 2 * a / h) / ive(0, r * 2 * a / h), 1e-3, 2 * a, xtol=1e-15)
    )


@pytest.mark.parametrize(("width", "accuracy"), [(2, 1e-10), (32, 1e-10), (256, 1e-10)])
@pytest.mark.parametrize("newton", [False, True])
def test_circle(width: int, accuracy: float, newton: bool) -> None:
    points, plane = circle(200, width)
    rng = np.random.default_rng(6)
    for t in (0.01, 0.05, 0.2, 0.5)[: 4 if newton or width == 2 else 3]:
        a, _, sigma = ve(t)
        turn = rng.uniform(0, 2 * np.pi, 4)
        x = 1.9 * np.column_stack([np.cos(turn), np.sin(turn)]) @ plane + 0.05 * rng.normal(size=(4, width))
        moved = project(x, points, sigma, 1, newton=newton)
        radius = a * np.linalg.norm(moved @ plane.T, axis=1)
        assert np.abs(radius - circle_ridge(t)).max() < accuracy
        assert np.abs(moved - moved @ plane.T @ plane).max() < 1e-10


def test_distances_without_iterating() -> None:
    """On a circle in 64 dimensions: residual below the truth, Newton closer to it (one shot, second order)."""
    points, plane = circle(200, 64)
    _, _, sigma = ve(0.05)
    rng = np.random.default_rng(7)
    turn = rng.uniform(0, 2 * np.pi, 5)
    x = 1.9 * np.column_stack([np.cos(turn), np.sin(turn)]) @ plane + 0.2 * rng.normal(size=(5, 64))
    true = np.linalg.norm(project(x, points, sigma, 1, newton=True) - x, axis=1)
    residual, newton = (normal_distance(x, points, sigma, 1, newton=flag) for flag in (False, True))
    assert (residual <= newton + 1e-12).all()
    np.testing.assert_allclose(residual, true, rtol=2e-3)
    np.testing.assert_allclose(newton, true, rtol=1e-3)
    assert (np.abs(newton - true) < np.abs(residual - true)).all()


def test_sphere() -> None:
    """r = a R (coth z - 1 / z); a Fibonacci lattice of 20000 points."""
    count, t = 20_000, 0.2
    i = np.arange(count) + 0.5
    polar, turn = np.arccos(1 - 2 * i / count), np.pi * (1 + np.sqrt(5)) * i
    points = 2 * np.column_stack([np.cos(turn) * np.sin(polar), np.sin(turn) * np.sin(polar), np.cos(polar)])
    a, h, sigma = ve(t)
    x = np.random.default_rng(8).normal(size=(4, 3))
    x *= 1.8 / np.linalg.norm(x, axis=1, keepdims=True)
    moved = project(x, points, sigma, 2, newton=True, tolerance=1e-9)

    def off(r: float) -> float:
        z = r * 2 * a / h
        return float(r - 2 * a * (1 / np.tanh(z) - 1 / z))

    assert np.abs(a * np.linalg.norm(moved, axis=1) - brentq(off, 1e-2, 2 * a)).max() < 1e-5


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_low_noise_ridge_is_the_affine_hull_of_the_nearest_points(dim: int) -> None:
    rng = np.random.default_rng(9)
    points, x = rng.normal(size=(40, 8)), rng.normal(size=(60, 8))
    sigma = ve(1e-3)[2]
    squares = np.sort(np.square(x[:, None] - points).sum(axis=-1), axis=1)[:, : dim + 2]
    # between neighbours whose weights differ by less than e^40 the ridge is still on its way
    apart = (np.diff(squares, axis=1) > 80 * sigma**2).all(axis=1)
    assert apart.sum() > 10
    moved = project(x[apart], points, sigma, dim, steps=1)
    for before, after in zip(x[apart], moved, strict=True):
        near = points[np.argsort(np.square(before - points).sum(axis=1))[: dim + 1]]
        sides = (near[1:] - near[0]).T
        foot = near[0] + sides @ np.linalg.lstsq(sides, before - near[0], rcond=None)[0]
        np.testing.assert_allclose(after, foot, atol=1e-12)


def test_modes_are_ridges_of_dimension_0() -> None:
    x = np.array([[2.0, 0.5], [-0.1, 1.0]])
    np.testing.assert_allclose(project(x, TWO, 0.5, 0), [[3.0, 0.0], [-3.0, 0.0]], atol=1e-6)


# ------------------------------------------------------------------- how it is computed does not show


def cloud(count: int = 700, width: int = 6) -> tuple[Array, Array]:
    rng = np.random.default_rng(10)
    points = rng.normal(size=(count, width)) * np.linspace(2.0, 0.3, width)
    return points, points[:12] + rng.normal(size=(12, width))


@pytest.mark.parametrize("sigma", [0.2, 0.8, 3.0])
def test_blocks_neighbours_and_order_make_no_difference(sigma: float, monkeypatch: pytest.MonkeyPatch) -> None:
    points, x = cloud()
    usual, directions = local_statistics(x, points, sigma), frame(x, points, sigma, 3)
    order = np.random.default_rng(0).permutation(len(points))
    monkeypatch.setattr(responsibilities_module, "CHUNK", 1)  # 64 points at a time
    for keep in (16, 100, 5000):
        found = local_statistics(x, points[order], sigma, keep)
        for name in ("mean", "k_eff", "trace"):
            np.testing.assert_allclose(getattr(found, name), getattr(usual, name), rtol=1e-9, atol=1e-12)
        np.testing.assert_array_equal(order[found.index[:, :5]], usual.index[:, :5])
        other = frame(x, points[order], sigma, 3, keep)
        # points that together weigh less than 1e-12 are left out
        small = np.exp(directions.log_mu.min(axis=1))
        np.testing.assert_allclose(other.log_mu - directions.log_mu, 0, atol=1e-8 + 100e-12 / small.min())
        np.testing.assert_allclose(np.abs((other.basis * directions.basis).sum(axis=-1)), 1, atol=1e-9)
    assert (usual.captured <= 1).all()
    if sigma == 3.0:
        assert local_statistics(x, points, sigma, 16).captured.max() < 0.5


def test_block_power_iteration_finds_what_a_full_decomposition_does(monkeypatch: pytest.MonkeyPatch) -> None:
    points, x = cloud(300, 200)
    full = frame(x, points, 4.0, 5)
    monkeypatch.setattr("benchsuite_metrics.ridge_geometry.eigen.DIRECT", 20)
    other = frame(x, points, 4.0, 5)
    np.testing.assert_allclose(other.log_mu, full.log_mu, rtol=1e-7)
    np.testing.assert_allclose(np.abs((other.basis * full.basis).sum(axis=-1)), 1, atol=1e-7)


def test_many_dimensions_and_many_points_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean stays exact; eigenvalues of 400 of 3000 points are within their sampling error."""
    points, x = cloud(3000, 8)
    exact_frame, exact = frame(x, points, 1.5, 4), local_statistics(x, points, 1.5)
    monkeypatch.setattr(local_module, "DENSE", 4)
    monkeypatch.setattr(local_module, "SAMPLE", 400)
    sampled = frame(x, points, 1.5, 4, keep=64)
    assert (local_statistics(x, points, 1.5, 64).captured < 0.9).all()
    ratio = np.exp(sampled.log_mu - exact_frame.log_mu)[:, :3]
    assert 0.7 < ratio.min() < ratio.max() < 1.4
    assert abs(np.log(ratio).mean()) < 0.05  # without bias
    np.testing.assert_allclose(local_statistics(x, points, 1.5, 64).mean, exact.mean, rtol=1e-10)


def test_copies_of_points_count_as_weight() -> None:
    points, x = cloud(40, 4)
    twice = np.concatenate([points, points])
    for sigma in (0.05, 0.5):
        one, two = frame(x, points, sigma, 3), frame(x, twice, sigma, 3)
        np.testing.assert_allclose(two.log_mu, one.log_mu, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(
            local_statistics(x, twice, sigma).k_eff, 2 * local_statistics(x, points, sigma).k_eff
        )


def test_rank_is_told_from_resolution() -> None:
    """Three points on a line have one direction; in a square's centre two are alike."""
    line = frame(np.array([[0.3, 0.2, 0.1]]), np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]]), 0.7, 3)
    assert np.isfinite(line.log_mu[0]).tolist() == [True, False, False]
    assert line.resolved(1).all()
    assert not line.resolved(2).any()
    square = frame(np.zeros((1, 2)), np.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1]]), 1.0, 2)
    assert not square.resolved(1).any()


def test_torch_comes_back_as_torch() -> None:
    x = torch.tensor([[1.0, 0.5]], dtype=torch.float32)
    moved = project(x, torch.tensor(TWO), 0.5, 1)
    assert isinstance(moved, torch.Tensor)
    assert moved.dtype == torch.float32
    assert moved.tolist() == [[1.0, 0.0]]
    assert x.tolist() == [[1.0, 0.5]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"points": TWO[:1]}, "at least 2 training points, got 1"),
        ({"points": TWO[0]}, r"points must be \(N, d\), got \(2,\)"),
        ({"points": np.array([[0.0, np.nan], [1, 1]])}, "1 training points are not finite"),
        ({"x": np.zeros((1, 3))}, r"x must be \(B, 2\) as the training points \(2, 2\), got \(1, 3\)"),
        ({"x": np.full((1, 2), np.inf)}, "x holds values that are not finite"),
        ({"sigma": 0.0}, "sigma must be positive and finite, got 0.0"),
        ({"sigma": float("nan")}, "sigma must be positive and finite, got nan"),
        ({"dim": 2}, "a ridge of dimension 2 in 2 dimensions has no normal direction"),
        ({"dim": -1}, "an integer of at least 0, got -1"),
        ({"dim": 2, "points": np.eye(2, 5), "x": np.zeros((1, 5))}, "2 training points span at most 1 directions"),
    ],
)
def test_impossible_input_is_refused(changes: dict[str, Any], message: str) -> None:
    arguments = {"x": np.zeros((1, 2)), "points": TWO, "sigma": 1.0, "dim": 1} | changes
    with pytest.raises(UsageError, match=message):
        project(**arguments)
