"""Tangent frames: closed forms, a plain eigendecomposition where it can be trusted, and where it cannot."""

from __future__ import annotations

import math

import pytest
import torch
from benchsuite_models.tangent_frame import along, tangent_frame

#: sigma of the Ornstein-Uhlenbeck process at t = 1e-3
SMALL = math.sqrt(math.expm1(2e-3))


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def frame_at(x: torch.Tensor, sigma: float, points: torch.Tensor, dim: int) -> torch.Tensor:
    return tangent_frame(x, x.new_full((len(x),), sigma), points, dim)


def projector(frame: torch.Tensor) -> torch.Tensor:
    return frame @ frame.transpose(1, 2)


@pytest.mark.parametrize("sigma", [1e-3, SMALL, 0.5, 3.0, 100.0])
def test_two_points_have_the_line_through_them_at_every_noise(sigma: float) -> None:
    points = torch.tensor([[-3.0, 0.0], [3.0, 0.0]], dtype=torch.float64)
    frame = frame_at(2 * normal(0, 300, 2), sigma, points, 1)
    assert float(frame[:, 1].abs().max()) == 0  # the naive Hessian is 56 degrees off at t = 1e-3


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_at_small_noise_the_nearest_points_span_it(dim: int) -> None:
    """Weights then fall so fast that the leading directions are those to the next d* points, in this order."""
    points, x = normal(1, 40, 8), normal(2, 60, 8)
    frame = frame_at(x, 1e-3, points, dim)
    nearest = points[torch.cdist(x, points).argsort(dim=1)[:, : dim + 1]]
    basis = torch.linalg.qr((nearest[:, 1:] - nearest[:, :1]).transpose(1, 2))[0]
    torch.testing.assert_close(projector(frame), projector(basis), atol=1e-6, rtol=0)
    eye = torch.eye(dim, dtype=torch.float64).expand(60, -1, -1)
    torch.testing.assert_close(frame.transpose(1, 2) @ frame, eye, atol=1e-12, rtol=0)


@pytest.mark.parametrize("sigma", [1.0, 2.0, 10.0])
def test_at_large_noise_it_is_the_plain_eigendecomposition(sigma: float) -> None:
    points, x = normal(3, 50, 6), normal(4, 40, 6)
    weights = (-(torch.cdist(x, points) ** 2) / (2 * sigma**2)).softmax(1)
    away = points - (weights @ points)[:, None]
    covariance = torch.einsum("bn,bni,bnj->bij", weights, away, away)
    leading = torch.linalg.eigh(covariance)[1][:, :, -2:]
    torch.testing.assert_close(projector(frame_at(x, sigma, points, 2)), projector(leading), atol=1e-8, rtol=0)


def test_the_circle_has_its_tangents() -> None:
    """By symmetry at the angle of a point or half way between two; N = 200 is dense at this noise."""
    angle = 2 * math.pi * torch.arange(200, dtype=torch.float64) / 200
    points = 2 * torch.stack([angle.cos(), angle.sin()], dim=1)
    ahead = torch.stack([-angle.sin(), angle.cos()], dim=1)
    for radius in (1.7, 2.0, 2.2):
        frame = frame_at(radius / 2 * points, 0.3, points, 1)
        torch.testing.assert_close(
            (frame[:, :, 0] * ahead).sum(1).abs(), torch.ones_like(angle), atol=1e-9, rtol=0
        )


def test_it_turns_and_shifts_with_the_data() -> None:
    points, x = normal(5, 30, 5), normal(6, 20, 5)
    turn = torch.linalg.qr(normal(7, 5, 5))[0]
    for sigma in (0.05, 0.7):
        here = projector(frame_at(x, sigma, points, 2))
        there = projector(frame_at(x @ turn.T + 4, sigma, points @ turn.T + 4, 2))
        torch.testing.assert_close(there, turn @ here @ turn.T, atol=1e-6, rtol=0)


def test_directions_without_extent_are_completed() -> None:
    points = torch.tensor([[-3.0, 0, 0], [3, 0, 0], [0, 0, 0]], dtype=torch.float64)
    frame = frame_at(normal(8, 5, 3), 1.0, points, 2)
    assert float((frame[:, :, 0].abs() - torch.tensor([1.0, 0, 0])).abs().max()) < 1e-12
    eye = torch.eye(2, dtype=torch.float64).expand(5, -1, -1)
    torch.testing.assert_close(frame.transpose(1, 2) @ frame, eye, atol=1e-12, rtol=0)


def test_along_projects() -> None:
    frame = torch.linalg.qr(normal(9, 4, 5, 2))[0]
    vectors = normal(10, 4, 5)
    part = along(frame, vectors)
    torch.testing.assert_close(along(frame, part), part)
    rest = vectors - part
    assert float((frame.transpose(1, 2) @ rest[:, :, None]).abs().max()) < 1e-12
