"""Checks of what the geometry is asked about: query points, training points, noise level, ridge dimension."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchsuite import UsageError

if TYPE_CHECKING:
    import torch

#: numpy array or torch tensor
Array: TypeAlias = "NDArray[Any] | torch.Tensor"
Floats = NDArray[np.float64]


def as_numpy(values: Array) -> NDArray[Any]:
    """An array or tensor as a numpy array, without a copy where possible."""
    detach = getattr(values, "detach", None)
    return np.asarray(values if detach is None else detach().cpu().numpy())


def like(values: Floats, original: Array) -> Any:
    """`values` as the kind of array, on the device and of the dtype of `original`."""
    if not hasattr(original, "detach"):
        return values
    import torch

    assert isinstance(original, torch.Tensor)
    return torch.from_numpy(values).to(device=original.device, dtype=original.dtype)


def check_points(points: Array) -> NDArray[Any]:
    """Training points (N, d) of a floating dtype, as given.

    Raises:
        UsageError: another shape, fewer than two points, or values that are not finite.
    """
    found = as_numpy(points)
    if found.ndim != 2 or not found.shape[1]:
        raise UsageError(f"points must be (N, d), got {found.shape}")
    if len(found) < 2:
        raise UsageError(f"a ridge needs at least 2 training points, got {len(found)}")
    if not np.issubdtype(found.dtype, np.floating):
        found = found.astype(np.float64)
    if not np.isfinite(found).all():
        raise UsageError(f"{int((~np.isfinite(found)).any(axis=1).sum())} training points are not finite")
    return found


def check_query(x: Array, points: NDArray[Any], sigma: float) -> Floats:
    """Query points (B, d) in float64.

    Raises:
        UsageError: another number of coordinates than the training points, values that are not finite, or a
            noise level that is not positive.
    """
    found = as_numpy(x)
    if found.ndim != 2 or found.shape[1] != points.shape[1]:
        raise UsageError(
            f"x must be (B, {points.shape[1]}) as the training points {points.shape}, got {found.shape}"
        )
    if not np.isfinite(found).all():
        raise UsageError("x holds values that are not finite")
    if not (np.isfinite(sigma) and sigma > 0):
        raise UsageError(f"sigma must be positive and finite, got {sigma}")
    return found.astype(np.float64)


def check_dim(dim: int, points: NDArray[Any], least: int = 0) -> int:
    """A ridge dimension that `points` (N, d) can have.

    Raises:
        UsageError: below `least`, not below d (nothing would be normal), or above N - 1 (no frame of that many
            directions joins N points).
    """
    count, width = points.shape
    if dim < least or dim != int(dim):
        raise UsageError(f"a ridge dimension must be an integer of at least {least}, got {dim}")
    if dim >= width:
        raise UsageError(f"a ridge of dimension {dim} in {width} dimensions has no normal direction; use less")
    if dim > count - 1:
        raise UsageError(
            f"{count} training points span at most {count - 1} directions, a ridge of {dim} asked for"
        )
    return int(dim)
