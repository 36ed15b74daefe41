"""A finite population cut by several factors at once, so that one pass over its points serves them all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

#: Cells of one cut, at most, unless one factor alone has more values.
MOST = 64


@dataclass(frozen=True)
class Cells:
    """The points of a population by the joint value of some factors.

    Attributes:
        factors: numbers of the factors, in order.
        shape: how many values each has.
        points: distinct points of every cell, row-major in `shape`.
        share: the fraction of each point's copies that are in the cell; None where all of them always are.
    """

    factors: tuple[int, ...]
    shape: tuple[int, ...]
    points: tuple[torch.Tensor, ...]
    share: tuple[torch.Tensor, ...] | None

    @property
    def count(self) -> int:
        """Number of cells."""
        return len(self.points)

    def within(self, weights: torch.Tensor, cell: int) -> torch.Tensor:
        """Weights (b, M) of distinct points => weights (b, m) of those in one cell."""
        told = weights[:, self.points[cell]]
        return told if self.share is None else told * self.share[cell]

    def marginal(self, sums: torch.Tensor, position: int) -> torch.Tensor:
        """Sums (b, count, …) over cells => sums (b, K, …) over the values of ``factors[position]``."""
        split: torch.Tensor = sums.unflatten(1, self.shape)
        others = [1 + axis for axis in range(len(self.shape)) if axis != position]
        return split.sum(others) if others else split


def cut(labels: torch.Tensor, sizes: Sequence[int], copies: torch.Tensor, count: torch.Tensor) -> list[Cells]:
    """All factors, as many to a cut as `MOST` cells allow.

    Args:
        labels: (N, F) int64.
        sizes: number of values of every factor.
        copies: (N,) distinct point of each item.
        count: (M,) items that are each distinct point.
    """
    groups: list[list[int]] = []
    for factor, size in enumerate(sizes):
        if groups and size * math.prod(sizes[i] for i in groups[-1]) <= MOST:
            groups[-1].append(factor)
        else:
            groups.append([factor])
    return [_cells(labels, group, [sizes[i] for i in group], copies, count) for group in groups]


def _cells(
    labels: torch.Tensor, group: Sequence[int], shape: Sequence[int], copies: torch.Tensor, count: torch.Tensor
) -> Cells:
    import torch

    joint = torch.zeros_like(copies)
    for factor, size in zip(group, shape, strict=True):
        joint = joint * size + labels[:, factor]
    # every (cell, point) that occurs, by cell, and how often
    pairs, times = torch.unique(joint * len(count) + copies, return_counts=True)
    per_cell = torch.bincount(pairs // len(count), minlength=math.prod(shape)).tolist()
    points = (pairs % len(count)).split(per_cell)
    share = times / count[pairs % len(count)]
    whole = bool((share == 1).all())
    return Cells(tuple(group), tuple(shape), points, None if whole else share.double().split(per_cell))
