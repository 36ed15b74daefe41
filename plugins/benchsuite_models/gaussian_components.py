"""Gaussian components under Gaussian noise: likelihoods, posterior means and draws, in float64.

With Σ = U diag(λ) Uᵀ, noise sigma turns N(m, Σ) into N(m, U diag(λ + sigma²) Uᵀ), and x0 given x is Gaussian with
mean m + U λ/(λ + sigma²) Uᵀ(x - m) and variances λ sigma²/(λ + sigma²) along U. One diagonalisation serves every
noise level. Two layouts with one interface: a covariance common to all components makes everything a matrix
product; otherwise components are visited in turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch


class Components(Protocol):
    """K Gaussians in d dimensions. x is (b, d) and sigma (b, 1), both float64; k is (b,) int64."""

    def log_likelihood(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """log N(x; m_k, Σ_k + sigma²): (b, K), up to a constant per row."""

    def mean(self, x: torch.Tensor, sigma: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Σ_k weights_k E[x0 | x, k]: (b, d); weights (b, K) with rows of sum 1."""

    def draw(self, x: torch.Tensor, sigma: torch.Tensor, k: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """x0 given x and its component k: (b, d); z (b, d) standard normal."""

    def prior_draw(self, k: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """x0 given its component k: (b, d); z (b, d) standard normal."""

    def to(self, device: str) -> Components:
        """The same components on `device`."""


class SharedCovariance:
    """Components m_k (K, d) with one covariance: eigenvalues (d,), eigenvectors (d, d) in columns."""

    def __init__(self, means: torch.Tensor, variances: torch.Tensor, rotation: torch.Tensor) -> None:
        self.means, self.variances, self.rotation = means, variances, rotation
        self._rotated = means @ rotation  # means in the eigenbasis, where everything below happens

    @property
    def device(self) -> torch.device:
        """Where the tensors live."""
        return self.means.device

    def posterior_variances(self, sigma: torch.Tensor) -> torch.Tensor:
        """Variances (b, d) of x0 given x and its component, along the eigenvectors; sigma (b, 1)."""
        return self.variances * sigma**2 / (self.variances + sigma**2)

    def log_likelihood(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """See `Components`. The quadratic and the determinant in x alone are common to a row."""
        precision = 1 / (self.variances + sigma**2)  # (b, d)
        cross = (x @ self.rotation * precision) @ self._rotated.T
        return cross - precision @ (self._rotated**2).T / 2

    def mean(self, x: torch.Tensor, sigma: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """See `Components`."""
        return self._posterior_mean(x, sigma, weights @ self._rotated) @ self.rotation.T

    def draw(self, x: torch.Tensor, sigma: torch.Tensor, k: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """See `Components`."""
        deviation = self.posterior_variances(sigma).sqrt() * z
        return (self._posterior_mean(x, sigma, self._rotated[k]) + deviation) @ self.rotation.T

    def prior_draw(self, k: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """See `Components`."""
        return self.means[k] + (self.variances.sqrt() * z) @ self.rotation.T

    def to(self, device: str) -> SharedCovariance:
        """See `Components`."""
        return SharedCovariance(self.means.to(device), self.variances.to(device), self.rotation.to(device))

    def _posterior_mean(self, x: torch.Tensor, sigma: torch.Tensor, centre: torch.Tensor) -> torch.Tensor:
        ratio = self.variances / (self.variances + sigma**2)
        return centre + ratio * (x @ self.rotation - centre)


class OwnCovariances:
    """Components m_k (K, d), each with its covariance: eigenvalues (K, d), eigenvectors (K, d, d) or None.

    None stands for diagonal covariances.
    """

    def __init__(self, means: torch.Tensor, variances: torch.Tensor, rotations: torch.Tensor | None) -> None:
        self._means, self._variances, self._rotations = means, variances, rotations

    def log_likelihood(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """See `Components`."""
        import torch

        columns = []
        for k, mean in enumerate(self._means):
            total = self._variances[k] + sigma**2  # (b, d)
            columns.append(-((self._into(k, x - mean) ** 2 / total).sum(1) + total.log().sum(1)) / 2)
        return torch.stack(columns, dim=1)

    def mean(self, x: torch.Tensor, sigma: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """See `Components`."""
        import torch

        out = torch.zeros_like(x)
        for k, mean in enumerate(self._means):
            ratio = self._variances[k] / (self._variances[k] + sigma**2)
            out += weights[:, k, None] * (mean + self._out_of(k, ratio * self._into(k, x - mean)))
        return out

    def draw(self, x: torch.Tensor, sigma: torch.Tensor, k: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """See `Components`."""
        import torch

        out = torch.empty_like(x)
        for component in torch.unique(k).tolist():
            rows = k == component
            level, mean = sigma[rows], self._means[component]
            ratio = self._variances[component] / (self._variances[component] + level**2)
            deviation = ratio * self._into(component, x[rows] - mean) + level * ratio.sqrt() * z[rows]
            out[rows] = mean + self._out_of(component, deviation)
        return out

    def prior_draw(self, k: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """See `Components`."""
        import torch

        out = torch.empty_like(z)
        for component in torch.unique(k).tolist():
            rows = k == component
            deviation = self._variances[component].sqrt() * z[rows]
            out[rows] = self._means[component] + self._out_of(component, deviation)
        return out

    def to(self, device: str) -> OwnCovariances:
        """See `Components`."""
        rotations = None if self._rotations is None else self._rotations.to(device)
        return OwnCovariances(self._means.to(device), self._variances.to(device), rotations)

    def _into(self, k: int, deviation: torch.Tensor) -> torch.Tensor:
        return deviation if self._rotations is None else deviation @ self._rotations[k]

    def _out_of(self, k: int, deviation: torch.Tensor) -> torch.Tensor:
        return deviation if self._rotations is None else deviation @ self._rotations[k].T
