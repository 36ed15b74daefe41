"""Coordinates of the named point sets: modes in the plane, thirteen points on a curve, a circle, a sphere.

The mode sets are those of the public research repository behind "ridge manifolds" (He, Qiu, Tao,
arXiv:2602.06021): two modes at (±3, 0), three to five on and in a square of side 5, nine on the unit grid. The
coordinates of the paper's thirteen planar points are not public; `planar_13` is a set of the same size.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MODES: dict[str, list[tuple[float, float]]] = {
    "two-modes": [(-3, 0), (3, 0)],
    "three-modes": [(0, 0), (5, 0), (0, 5)],
    "four-modes": [(0, 0), (5, 0), (0, 5), (5, 5)],
    "five-modes": [(0, 0), (5, 0), (0, 5), (5, 5), (2.5, 2.5)],
    "nine-modes": [(i, j) for i in range(3) for j in range(3)],
}
CURVES = ("circle", "sphere")
NAMES = (*MODES, "planar-13", *CURVES)


def planar_13() -> Array:
    """Thirteen points (13, 2), equally far apart along one period of a sine of amplitude 2 and length 8."""
    x = np.linspace(-4, 4, 4001)
    y = 2 * np.sin(np.pi * x / 4)
    length = np.concatenate([[0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
    at = np.interp(np.linspace(0, length[-1], 13), length, x)
    return np.stack([at, 2 * np.sin(np.pi * at / 4)], axis=1)


def circle(count: int, radius: float) -> Array:
    """`count` equidistant points of a circle about 0, none on an axis if count is a multiple of 4: (count, 2)."""
    angle = 2 * np.pi * (np.arange(count) + 0.5) / count
    return radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def sphere(count: int, radius: float) -> Array:
    """`count` points of a sphere about 0, spread evenly on a Fibonacci spiral: (count, 3)."""
    turn = np.pi * (3 - np.sqrt(5)) * np.arange(count)
    z = 1 - (2 * np.arange(count) + 1) / count
    ring = np.sqrt(1 - z**2)
    return radius * np.stack([ring * np.cos(turn), ring * np.sin(turn), z], axis=1)


def orthants(points: Array) -> NDArray[np.int64]:
    """Which orthant of its own coordinates every row (d) lies in: (N,) in 0 … 2^d - 1."""
    bits = (points >= 0).astype(np.int64)
    return bits @ (2 ** np.arange(points.shape[1]))
