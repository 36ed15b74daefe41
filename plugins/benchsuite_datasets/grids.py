"""Geometry of the places of a feature map."""

from __future__ import annotations

import numpy as np

from benchsuite.contracts import FloatArray


def grid_distances(rows: int, columns: int) -> FloatArray:
    """Euclidean distances (P, P) between the P = rows · columns places of a grid of mesh 1, row by row."""
    place = np.stack(np.divmod(np.arange(rows * columns), columns), axis=1).astype(np.float64)
    return np.asarray(np.linalg.norm(place[:, None] - place, axis=2))
