"""An exact denoiser with stated errors across and along the ridge: the fixture whose answers are laws."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from benchsuite import (
    Codec,
    Dataset,
    DiffusionModel,
    NotApplicableError,
    Split,
    UsageError,
    fingerprint_state,
)
from benchsuite_models.empirical_bayes import EmpiricalBayes
from benchsuite_models.exact_common import check_labels, check_query
from benchsuite_models.tangent_frame import along, tangent_frame

if TYPE_CHECKING:
    import torch

#: frames are full eigendecompositions, for spaces of a few coordinates
MOST_DIM = 128


class PlantedError(DiffusionModel):
    """Posterior mean over the points of a data set plus a normal and a tangent error of stated size.

    With m(x) the exact denoiser and P the projection on the tangent space of dimension d* (leading eigenvectors
    of the responsibility covariance at x), the denoiser is

        D(x) = m(x) + normal · u / ‖u‖ + tangent · P (x - m(x)),   u = (1 - P) direction,

    at levels with start <= log_snr <= stop, and m(x) elsewhere. In variance-exploding coordinates the reverse SDE
    relaxes towards D at the rate 2 in tau = -ln sigma, from which follow (after the error analysis of He, Qiu,
    Tao, arXiv:2602.06021):

    * **align**: the mean normal offset goes from y_0 to y_0 q + normal (1 - q), q = (sigma / sigma_start)². Late
      error alone counts: of an error that stops at sigma_1 the fraction (sigma / sigma_1)² is left at sigma.
    * **slide**: near a point the tangent distance shrinks by (sigma / sigma_start)^{2 (1 - tangent)}: at
      tangent = 0 samples reach the point, at 1 they stay where they were on the ridge.
    * neither error appears in the other's direction.

    Without errors (the default) it is `empirical-bayes`, unconditional.

    Args:
        normal: length of the normal error, in the units of the data.
        tangent: share lambda of x that replaces the exact denoiser along the ridge, 0 … 1.
        dim: d*, dimension of the ridge, 1 … d - 1 and less than the number of points.
        start: log-SNR from which the errors act; None = from the first level.
        stop: log-SNR up to which they act; None = to the last level.
        direction: (d,) array-like, not 0: which way normal errors push. By default that in which the points
            vary least (its largest coordinate positive).

    Raises:
        UsageError: a value out of range.
    """

    name = "planted-error"
    family = "exact"
    paper = "arXiv:2602.06021"

    def __init__(
        self,
        normal: float = 0.0,
        tangent: float = 0.0,
        dim: int = 1,
        start: float | None = None,
        stop: float | None = None,
        direction: Any = None,
    ) -> None:
        if not math.isfinite(normal):
            raise UsageError(f"normal must be finite, got {normal}")
        if not 0 <= tangent <= 1:
            raise UsageError(f"tangent must lie in [0, 1], got {tangent:g}")
        if dim < 1:
            raise UsageError(f"dim must be at least 1, got {dim}")
        self.normal, self.tangent, self.dim = float(normal), float(tangent), dim
        self.start, self.stop = -math.inf if start is None else start, math.inf if stop is None else stop
        if not self.start < self.stop:
            raise UsageError(f"errors need start < stop, got {start} and {stop}")
        self.direction = None if direction is None else np.array(direction, dtype=np.float64)
        if self.direction is not None and not (np.isfinite(self.direction).all() and self.direction.any()):
            raise UsageError("direction must be finite and not 0")
        self._exact = EmpiricalBayes()
        self.sigma_range = self._exact.sigma_range

    def bind(self, dataset: Dataset, codec: Codec | None = None) -> None:
        """Take the points of `dataset`, as `EmpiricalBayes` does.

        Raises:
            NotApplicableError: if the space has too many coordinates for frames.
        """
        self._exact.bind(dataset, codec)
        self.shape, self.space = self._exact.shape, self._exact.space  # type: ignore[misc]
        if math.prod(self.shape) > MOST_DIM:
            raise NotApplicableError(
                f"{self.name} is for spaces of at most {MOST_DIM} coordinates, {dataset.name} has {self.shape}"
            )

    def load(self, device: str = "cpu", dtype: str = "float32") -> None:
        """Encode the points and find the direction of the normal error.

        Raises:
            UsageError: `dim` or `direction` does not suit the points.
        """
        import torch

        self._exact.load(device, dtype)
        self.shape = self._exact.shape
        population = self._exact.population.flatten(1).double()
        self._points = torch.unique(population, dim=0)
        count, width = self._points.shape
        if not self.dim < min(count, width):
            raise UsageError(
                f"{self.name}: dim must be less than the {width} coordinates and the {count} distinct points, "
                f"got {self.dim}"
            )
        if self.direction is None:
            away = population - population.mean(0)
            least = torch.linalg.eigh(away.T @ away)[1][:, 0]
            self._direction = least * least[least.abs().argmax()].sign()
        elif self.direction.size != width:
            raise UsageError(f"{self.name}: direction must have {width} coordinates, got {self.direction.size}")
        else:
            self._direction = torch.from_numpy(self.direction).flatten().to(device)

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        """The exact denoiser plus both errors: (B, *shape), dtype and device of `x`; labels (B, 0) or None."""
        check_labels(self.name, self.factors, labels, x)
        exact = self._exact.denoise(x.double(), sigma.double())
        across, ahead = self._errors(x, sigma, exact)
        return (exact + across + ahead).to(x.dtype)

    def errors(self, x: torch.Tensor, sigma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What is planted at x (B, *shape): the normal and the tangent part of D - m, (B, *shape) float64 each."""
        return self._errors(x, sigma, self._exact.denoise(x.double(), sigma.double()))

    def frame(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """Orthonormal tangent directions at x (B, *shape): (B, prod(shape), dim) float64."""
        check_query(self.name, self.shape, x, sigma)
        return tangent_frame(x.flatten(1).double(), sigma, self._points, self.dim)

    def training_points(self) -> Split:
        """The points of the data set."""
        return self._exact.training_points()

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """As the bound codec does."""
        return self._exact.encode(images)

    def decode(self, x: torch.Tensor) -> torch.Tensor:
        """As the bound codec does."""
        return self._exact.decode(x)

    def fingerprint(self) -> str:
        """Digest of the points and of everything that was planted."""
        planted = (self.normal, self.tangent, self.dim, self.start, self.stop)
        state = {"planted": planted, "points": self._exact.fingerprint(), "direction": self._direction}
        return fingerprint_state(state)

    def _errors(
        self, x: torch.Tensor, sigma: torch.Tensor, exact: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        across, ahead = torch.zeros_like(exact), torch.zeros_like(exact)
        log_snr = -2 * sigma.double().log()
        acting = ((log_snr >= self.start) & (log_snr <= self.stop)).nonzero()[:, 0]
        if len(acting) and (self.normal or self.tangent):
            frame = self.frame(x[acting], sigma[acting])
            push = self._direction.expand(len(acting), -1)
            push = push - along(frame, push)
            size = push.norm(dim=1, keepdim=True)
            # where the direction is tangent to the ridge there is no way to push
            push = push / size.clamp_min(1e-9 * float(self._direction.norm()))
            lag = along(frame, (x[acting].double() - exact[acting]).flatten(1))
            across[acting] = (self.normal * push).view(-1, *self.shape)
            ahead[acting] = (self.tangent * lag).view(-1, *self.shape)
        return across, ahead
