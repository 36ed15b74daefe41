"""Tangent frames of the smoothed data density: where planted errors point, and what fits are split along.

At noise sigma the posterior over the points x_i has responsibilities w_i ∝ exp(-‖x - x_i‖² / 2 sigma²) and
covariance C = Σ w_i (x_i - m)(x_i - m)ᵀ; the tangent space of dimension d* is spanned by its leading eigenvectors
(He, Qiu, Tao, arXiv:2602.06021; the Hessian of the log density is -I/sigma² + C/sigma⁴). At small noise the
eigenvalues of C lie many orders of magnitude apart and C cannot be formed: here every row is a vector and a
log-weight, and eigenvectors are taken one by one, each from rows that were rescaled after the last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

#: what is left of a row after projections counts as rounding below this fraction of its length
ROUNDING = 1e-12
#: points that enter a frame: those with the largest responsibilities
NEAREST = 1024
#: entries of the largest temporary
CHUNK = 2**23


def tangent_frame(x: torch.Tensor, sigma: torch.Tensor, points: torch.Tensor, dim: int) -> torch.Tensor:
    """The `dim` leading eigenvectors of the responsibility covariance at every row of `x`.

    Args:
        x: (B, d) float64.
        sigma: (B,) > 0.
        points: (N, d) float64, distinct, N > dim.
        dim: d*, between 1 and d - 1.

    Returns:
        (B, d, dim) float64, orthonormal columns; a sign and, where eigenvalues are equal, a rotation are free.
        Directions in which the points do not extend at all are completed by any orthonormal ones.
    """
    import torch

    rows = max(1, CHUNK // (min(len(points), NEAREST) * points.shape[1]))
    parts = zip(x.split(rows), sigma.double().split(rows), strict=True)
    frames = [_frame(part, level, points, dim) for part, level in parts]
    return torch.cat(frames) if frames else x.new_zeros(0, x.shape[1], dim)


def along(frame: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """The parts of vectors (B, d) that lie in the frames (B, d, dim): (B, d)."""
    return (frame @ (frame.transpose(1, 2) @ vectors[:, :, None]))[:, :, 0]


def _frame(x: torch.Tensor, sigma: torch.Tensor, points: torch.Tensor, dim: int) -> torch.Tensor:
    import torch

    vectors, log_weights = _rows(x, sigma, points)
    full = vectors.norm(dim=2)  # (b, n), to tell what is left from rounding
    axes: list[torch.Tensor] = []
    for _ in range(dim):
        norms = vectors.norm(dim=2)
        vectors = vectors.where((norms > ROUNDING * full)[:, :, None], vectors.new_zeros(()))
        sizes = log_weights + 2 * norms.where(norms > ROUNDING * full, norms.new_zeros(())).log()
        top = sizes.amax(dim=1, keepdim=True)
        # unit rows times sqrt(size / largest size), so that the leading eigenvalue is of order 1
        shares = ((sizes - top.where(top.isfinite(), top.new_zeros(()))) / 2).exp()
        scaled = vectors / norms.clamp_min(torch.finfo(torch.float64).tiny)[:, :, None] * shares[:, :, None]
        covariance = scaled.transpose(1, 2) @ scaled
        if axes:
            known = torch.stack(axes, dim=2)
            # known directions go last, behind those without any extent
            covariance = covariance - 2 * known @ known.transpose(1, 2)
        axis = torch.linalg.eigh(covariance)[1][:, :, -1]
        for other in axes:
            axis = axis - (axis * other).sum(1, keepdim=True) * other
        axis = axis / axis.norm(dim=1, keepdim=True)
        axes.append(axis)
        for _twice in range(2):  # the second pass removes the rounding of the first
            vectors = vectors - (vectors @ axis[:, :, None]) * axis[:, None, :]
    return torch.stack(axes, dim=2)


def _rows(x: torch.Tensor, sigma: torch.Tensor, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows (b, n, d) and log-weights (b, n) whose weighted second moments are the covariance.

    Rows are x_i - m; m is taken from the nearest point, whose own row -δ = x_0 - m is written in units of the
    second-largest weight, as it is no larger than that.
    """
    import torch

    square = points.square().sum(1) / 2
    logits = (x @ points.T - square) / sigma[:, None] ** 2
    logits, index = logits.topk(min(len(points), NEAREST), dim=1)
    log_weights = logits - logits.logsumexp(dim=1, keepdim=True)
    near = points[index]  # (b, n, d), by falling responsibility
    offsets = near[:, 1:] - near[:, :1]
    second = log_weights[:, 1:2]
    drift = ((log_weights[:, 1:] - second).exp()[:, :, None] * offsets).sum(1)  # δ / w_1
    rows = torch.cat([-drift[:, None], offsets - second.exp()[:, :, None] * drift[:, None]], dim=1)
    return rows, torch.cat([log_weights[:, :1] + 2 * second, log_weights[:, 1:]], dim=1)
