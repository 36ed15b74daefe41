"""The posterior over a finite set of points: blocked float64 matrix products on distinct points and their span.

p(u | x) ∝ c_u exp(-‖x - x_u‖² / 2 sigma²) for distinct points x_u that occur c_u times. Neither step changes the
posterior: copies of a point are one point with a multiplicity, and only the part of x in the span of the points
tells them apart, so that both may be written in an orthonormal basis of that span.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

#: Entries of the largest temporary, (rows of x) x (points): 64 MB of float64.
CHUNK = 2**23
#: Points converted to float64 at a time.
BLOCK = 4096
#: Largest distance of a point from the span that stands for it. A log-weight is off by at most about this / sigma.
RESIDUAL = 1e-5
#: A basis is only worth its projections if it is this much shorter than the points.
SHORTER = 0.5
#: Random combinations that the search for a span begins with.
FIRST_WIDTH = 256


class FinitePopulation:
    """Distinct points of a population, with what it takes to weigh them.

    Args:
        points: (N, d) float32 or float64.

    Attributes:
        copies: (N,) int64, the distinct point of each item.
        count: (M,) float64, how often each distinct point occurs.
    """

    def __init__(self, points: torch.Tensor) -> None:
        import torch

        first, copies = _distinct(points)
        self.copies = torch.tensor(copies, device=points.device)
        self.count = torch.bincount(self.copies, minlength=len(first)).double()
        distinct = points if len(first) == len(points) else points[first]
        self._basis = _span(distinct)
        # coordinates in the basis are kept in float64: they are few
        self._points = distinct if self._basis is None else _project(distinct, self._basis)
        self._short = self._points.float()
        self._half_norm = torch.cat([block.double().square().sum(1) / 2 for block in self._points.split(BLOCK)])

    def __len__(self) -> int:
        return len(self.count)

    @property
    def rank(self) -> int:
        """Number of coordinates that distances are computed in."""
        return self._points.shape[1]

    def counts(self, members: torch.Tensor) -> torch.Tensor:
        """How often each distinct point occurs among the items marked in `members` (N,) bool: (M,) float64."""
        import torch

        return torch.zeros_like(self.count).index_add_(0, self.copies, members.double())

    def coordinates(self, x: torch.Tensor) -> torch.Tensor:
        """What of x (B, d) tells the points apart: (B, rank) float64 in the basis of their span, or x itself."""
        return x if self._basis is None else _project(x, self._basis)

    def weights(
        self, coordinates: torch.Tensor, sigma: torch.Tensor, count: torch.Tensor | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Posterior weights, a chunk of rows at a time.

        Args:
            coordinates: (B, rank), of x.
            sigma: (B,), > 0.
            count: (M,) occurrences to weigh by, e.g. those that carry a label; all by default.

        Yields:
            (rows of x (b,), distinct points with a positive count (m,), p(u | x) (b, m) float64).
        """
        import torch

        count = self.count if count is None else count
        live = (count > 0).nonzero()[:, 0]
        everyone = len(live) == len(count)
        points = self._points if everyone else self._points[live]
        bias = count[live].log() if (count[live] != 1).any() else None
        half_norm = self._half_norm if everyone else self._half_norm[live]
        everything = torch.arange(len(coordinates), device=coordinates.device)
        for rows in everything.split(max(1, CHUNK // max(len(live), 1))):
            log_weights = self._log_weights(coordinates[rows], sigma[rows], points, half_norm)
            yield rows, live, (log_weights if bias is None else log_weights.add_(bias)).softmax(1)

    def means(self, x: torch.Tensor, sigma: torch.Tensor, members: torch.Tensor) -> torch.Tensor:
        """Posterior means of the same rows within several subsets of the items, each row with subsets of its own.

        Args:
            x: (B, d).
            sigma: (B,), > 0.
            members: (H, B, N) bool, the items that may have become each row of x; at least one per row.

        Returns:
            (H, B, d) float64.
        """
        import torch

        heads, rows, _ = members.shape
        log_weights = self._log_weights(self.coordinates(x), sigma, self._points, self._half_norm)
        count = torch.zeros(heads * rows, len(self), dtype=torch.float64, device=x.device)
        count.index_add_(1, self.copies, members.flatten(0, 1).double())
        weights = log_weights.repeat(heads, 1).add_(count.log_()).softmax(1)
        means = self.expand(self.mean(weights, torch.arange(len(self), device=x.device)))
        return means.view(heads, rows, -1)

    def _log_weights(
        self, coordinates: torch.Tensor, sigma: torch.Tensor, points: torch.Tensor, half_norm: torch.Tensor
    ) -> torch.Tensor:
        """-‖x - x_u‖² / 2 sigma² of some of the points, (b, m) float64, but for ‖x‖², which is common to a row."""
        import torch

        flat = coordinates.double()
        log_weights = torch.cat([flat @ block.double().T for block in points.split(BLOCK)], dim=1)
        return log_weights.sub_(half_norm).div_(sigma.double().square()[:, None])

    def mean(self, weights: torch.Tensor, points: torch.Tensor, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Σ_u w_u x_u in the coordinates of `expand`, (b, rank) float64.

        Of weights (b, m) on the distinct points `points` (m,), ascending. Points that no row gives any weight
        (most, at small sigma) are skipped. With `dtype` float32 the products are made in it: half the work, and as
        exact as a float32 result can show.
        """
        import torch

        short = dtype is not None and dtype != torch.float64
        kept = self._short if short else self._points
        out = weights.new_zeros(len(weights), self.rank)
        for start in range(0, len(points), BLOCK):
            part, index = weights[:, start : start + BLOCK], points[start : start + BLOCK]
            live = (part > 1e-18).any(0)  # what is dropped sums to under 1e-12 for a million points
            if not bool(live.all()):
                part, index = part[:, live], index[live]
            if not len(index):
                continue
            gapless = int(index[-1] - index[0]) + 1 == len(index)
            rows = kept[int(index[0]) : int(index[-1]) + 1] if gapless else kept[index]
            out += part.float() @ rows if short else part @ rows.double()
        return out

    def expand(self, coordinates: torch.Tensor) -> torch.Tensor:
        """Coordinates (b, rank) => points (b, d), in their dtype."""
        return coordinates if self._basis is None else coordinates @ self._basis.T


def _distinct(points: torch.Tensor) -> tuple[list[int], list[int]]:
    """First item of every distinct point, and the distinct point of every item."""
    seen: dict[bytes, int] = {}
    first: list[int] = []
    copies = []
    for i, row in enumerate(points.cpu().numpy()):
        key = hashlib.blake2b(row.tobytes(), digest_size=16).digest()
        if key not in seen:
            seen[key] = len(first)
            first.append(i)
        copies.append(seen[key])
    return first, copies


def _project(points: torch.Tensor, basis: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.cat([block.double() @ basis for block in points.split(BLOCK)])


def _span(points: torch.Tensor) -> torch.Tensor | None:
    """Basis (d, r) float64, orthonormal, of a span within `RESIDUAL` of all points; None if not much shorter."""
    count, dim = points.shape
    most = min(int(SHORTER * dim), count)
    width = min(FIRST_WIDTH, most)
    while dim >= 64:
        basis = _range(points, width)
        if all(_residual(block.double(), basis) <= RESIDUAL for block in points.split(BLOCK)):
            return basis
        if width == most:
            break
        width = min(2 * width, most)
    return None


def _range(points: torch.Tensor, width: int) -> torch.Tensor:
    """Basis (d, <= width) of `width` random combinations of the points, without those that add nothing.

    The randomised range finder (Halko, Martinsson & Tropp 2011, alg. 4.1): random combinations of the points span
    what the points span as soon as there are as many as the rank.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    sketch = torch.zeros(points.shape[1], width, dtype=torch.float64, device=points.device)
    for block in points.split(BLOCK):
        mix = torch.randn(len(block), width, dtype=torch.float64, generator=generator)
        sketch += block.double().T @ mix.to(points.device)
    basis, triangle = torch.linalg.qr(sketch)
    # each diagonal entry is what one more combination of that many points adds to the span so far
    kept: torch.Tensor = basis[:, triangle.diagonal().abs() > 0.1 * RESIDUAL * len(points) ** 0.5]
    return kept


def _residual(points: torch.Tensor, basis: torch.Tensor) -> float:
    """Largest distance of points (n, d) from the span."""
    return float((points - (points @ basis) @ basis.T).norm(dim=1).max())
