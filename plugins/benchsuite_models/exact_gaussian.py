"""A Gaussian with full covariance and a linear-Gaussian factor: every quantity in closed form."""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from benchsuite import Codec, Dataset, ExactModel, Factor, UsageError, fingerprint_state
from benchsuite.contracts import FloatArray
from benchsuite_models.exact_common import check_bound, check_labels, check_query, normal
from benchsuite_models.gaussian_components import SharedCovariance
from benchsuite_models.mixture_input import Array, check_covariances, check_means

if TYPE_CHECKING:
    import torch

#: The default case, see `ring_covariance`.
DIM, DECAY = 16, 0.8


class ExactGaussian(ExactModel):
    """x0 ~ N(mean, Σ), x (d,), with the linear-Gaussian factor phi = C x0 + n, n ~ N(0, R), phi (m,).

    phi is continuous and reached through the methods below, which give the truth for estimators of information
    between continuous variables: `mutual_information`, `score_gap`, `denoise_given`, `observe`. For metrics, which
    work with labels, the model has one factor, ``sign``: whether the first row of C (x0 - mean) is negative
    (0) or not (1). Its posterior is a normal distribution function, its conditional means are those of a
    truncated Gaussian: an abstraction without clusters, which is fixed gradually.

    Args:
        mean: (d,) array-like; with `covariance` left out as well, a Gaussian random field on a ring.
        covariance: a variance or a (d, d) matrix; 1.0 by default.
        projection: C, (m, d); by default the first coordinate.
        noise: R, a variance or an (m, m) matrix; 0.1 by default.
        dim: sites of the random field (16).
        decay: its power spectrum is k^-decay, 0 <= decay (0.8).

    Raises:
        UsageError: for impossible input, with the value and the rule.
    """

    name = "exact-gaussian"
    own_data = True
    paper = "2402.18491"

    def __init__(
        self,
        mean: Any = None,
        covariance: Any = None,
        projection: Any = None,
        noise: Any = None,
        *,
        dim: int | None = None,
        decay: float | None = None,
    ) -> None:
        import torch

        self._ring = False
        if mean is None:
            if covariance is not None:
                raise UsageError("covariance belongs to mean: give mean (d,) too")
            covariance = ring_covariance(DIM if dim is None else dim, DECAY if decay is None else decay)
            mean, self._ring = np.zeros(len(covariance)), True
        elif dim is not None or decay is not None:
            raise UsageError("dim and decay describe a random field and cannot go with a given mean")
        centre = check_means(np.asarray(mean, dtype=np.float64)[None])  # (1, d)
        width = centre.shape[1]
        self._variances, self._vectors = _one_covariance("covariance", covariance, width)
        self.projection = check_means([np.eye(width)[0]] if projection is None else projection)  # (m, d)
        if self.projection.shape[1] != width:
            raise UsageError(f"projection must have shape (m, {width}), got {self.projection.shape}")
        if not self.projection[0].any():
            raise UsageError("the first row of projection is 0, so the factor sign has no values")
        self._noise = _one_covariance("noise", 0.1 if noise is None else noise, len(self.projection))
        self.covariance = _assembled(self._variances, self._vectors)  # (d, d)
        self.noise = _assembled(*self._noise)  # (m, m)
        self.factors = (Factor("sign", ("negative", "positive")),)
        self.mean = centre[0]
        self.shape = (width,)
        self.sigma_range = (1e-3, 1e4)
        self._dtype = torch.float32
        self._component = SharedCovariance(*map(torch.from_numpy, (centre, self._variances, self._vectors)))
        # The functional of `sign`, and the same in the eigenbasis of Σ, where posteriors are diagonal.
        self._functional = torch.from_numpy(self.projection[0])
        self._rotated = torch.from_numpy(self.projection[0] @ self._vectors)

    @cached_property
    def _gain(self) -> Array:
        """G (d, m) of the Kalman update that conditioning on phi is: mean + G (phi - C mean), Σ - G C Σ."""
        cross = self.covariance @ self.projection.T
        return np.asarray(np.linalg.solve(self.projection @ cross + self.noise, cross.T).T)

    @cached_property
    def _given(self) -> tuple[Array, Array]:
        """Eigenvalues (d,) and eigenvectors (d, d) of Σ_phi, the covariance of x0 given phi."""
        keep = np.eye(len(self.mean)) - self._gain @ self.projection
        # Joseph form: symmetric and positive semi-definite to rounding.
        covariance = keep @ self.covariance @ keep.T + self._gain @ self.noise @ self._gain.T
        values, vectors = np.linalg.eigh(covariance)
        return values.clip(0), vectors

    def bind(self, dataset: Dataset, codec: Codec | None = None) -> None:
        """Check that `dataset` has this Gaussian's shape and factor."""
        check_bound(self, dataset)

    def load(self, device: str = "cpu", dtype: str = "float32") -> None:
        """Move to `device`; `dtype` is that of `sample`, the arithmetic stays float64."""
        import torch

        self._dtype = torch.float64 if dtype == "float64" else torch.float32
        self._component = self._component.to(device)
        self._functional, self._rotated = self._functional.to(device), self._rotated.to(device)

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        """E[x0 | x], the Wiener filter, or E[x0 | x, sign]: (B, d), dtype and device of `x`.

        Labels (B, 1), -1 = null. Knowing the sign moves the mean by V c / s times the inverse Mills ratio of
        ±t, where V is the posterior covariance, s² = cᵀ V c and t = c·(E[x0 | x] - mean) / s.
        """
        import torch

        labels = check_labels(self.name, self.factors, labels, x)
        mean, level, spread, t = self._functional_posterior(x, sigma)
        side = torch.where(labels[:, 0] == 0, -1.0, labels[:, 0].clamp(min=0).double())  # -1, +1, null = 0
        log_mills = -(t**2) / 2 - math.log(2 * math.pi) / 2 - torch.special.log_ndtr(side * t)
        shift = (self._component.posterior_variances(level) * self._rotated) @ self._component.rotation.T
        moved: torch.Tensor = mean + (side * log_mills.exp() / spread)[:, None] * shift
        return moved.to(x.dtype)

    def denoise_given(self, x: torch.Tensor, sigma: torch.Tensor, phi: torch.Tensor) -> torch.Tensor:
        """E[x0 | x, phi]: x (B, d), sigma (B,), phi (B, m) => (B, d)."""
        import torch

        check_query(self.name, self.shape, x, sigma)
        if phi.shape != (x.shape[0], len(self.projection)):
            raise UsageError(
                f"{self.name} takes phi ({x.shape[0]}, {len(self.projection)}), got {tuple(phi.shape)}"
            )
        variances, vectors, gain, mean, projection = (
            torch.from_numpy(array).to(x.device)
            for array in (*self._given, self._gain, self.mean, self.projection)
        )
        centre = mean + (phi.double() - projection @ mean) @ gain.T
        ratio = variances / (variances + sigma.double()[:, None] ** 2)
        return (centre + (((x.double() - centre) @ vectors) * ratio) @ vectors.T).to(x.dtype)

    def posterior(self, x: torch.Tensor, sigma: torch.Tensor) -> dict[str, torch.Tensor]:
        """p(sign | x) = Φ(±t), see `denoise`: {"sign": (B, 2)}, in the dtype of `x`."""
        import torch

        *_, t = self._functional_posterior(x, sigma)
        # Through the logarithm: torch's Φ itself is 1 - Φ(-t) in the tail.
        p = torch.special.log_ndtr(torch.stack([-t, t], dim=1)).exp()
        return {"sign": p.to(x.dtype)}

    def sample_posterior(
        self, x: torch.Tensor, sigma: torch.Tensor, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """One draw of x0 given x per row: (B, d)."""
        check_query(self.name, self.shape, x, sigma)
        level = sigma.double()[:, None]
        k = level.new_zeros(len(level)).long()
        draw = self._component.draw(x.double(), level, k, normal(x.shape, x.device, generator))
        return draw.to(x.dtype)

    def prior(self) -> dict[str, torch.Tensor]:
        """p(sign) = (1/2, 1/2)."""
        return {"sign": self._functional.new_full((2,), 0.5)}

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """`n` draws: x0 (n, d) and labels (n, 1) int64."""
        z = normal((n, *self.shape), self._component.device, generator)
        x0 = self._component.prior_draw(z.new_zeros(n).long(), z)
        return x0.to(self._dtype), self._project(x0).ge(0).long()[:, None]

    def position_distances(self) -> FloatArray | None:
        """Distances (d, d) along the ring of the random field; None for a given mean and covariance."""
        if not self._ring:
            return None
        site = np.arange(len(self.mean))
        gap = np.abs(site[:, None] - site)
        return np.asarray(np.minimum(gap, len(site) - gap), dtype=np.float64)

    def observe(self, x0: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
        """phi = C x0 + n with fresh noise n: x0 (B, d) => (B, m), dtype of `x0`."""
        import torch

        projection, variances, vectors = (
            torch.from_numpy(array).to(x0.device) for array in (self.projection, *self._noise)
        )
        z = normal((x0.shape[0], len(projection)), x0.device, generator)
        return (x0.double() @ projection.T + (variances.sqrt() * z) @ vectors.T).to(x0.dtype)

    def mutual_information(self, sigma: float | FloatArray) -> Array:
        """I(x_sigma; phi) = 1/2 ln det(Σ + sigma²) / det(Σ_phi + sigma²) in nats, for each sigma > 0."""
        level = _squares(sigma)
        return np.asarray((np.log(self._variances + level) - np.log(self._given[0] + level)).sum(-1) / 2).reshape(
            np.shape(sigma)
        )

    def score_gap(self, sigma: float | FloatArray) -> Array:
        """E‖eps(x | phi) - eps(x)‖² = sigma² [tr(Σ_phi + sigma²)⁻¹ - tr(Σ + sigma²)⁻¹], for each sigma > 0.

        Half of it is dI / d log_snr, so that its integral must give `mutual_information`.
        """
        level = _squares(sigma)
        gap = level * (1 / (self._given[0] + level) - 1 / (self._variances + level))
        return np.asarray(gap.sum(-1)).reshape(np.shape(sigma))

    def information(self) -> float:
        """I(x0; phi) = 1/2 ln det(C Σ Cᵀ + R) / det R in nats, the limit of `mutual_information` at sigma → 0."""
        total = self.projection @ self.covariance @ self.projection.T
        return float(np.linalg.slogdet(total + self.noise)[1] - np.linalg.slogdet(self.noise)[1]) / 2

    def susceptibility(self, sigma: float | FloatArray) -> Array:
        """chi = Σ_ij V_ij / Σ_i V_ii, V the covariance of U-turn outcomes x0' of one x0, for each sigma > 0.

        Noising and drawing from the posterior give V the spectrum λ sigma² (2λ + sigma²) / (λ + sigma²)². The
        control without a phase transition of Sclocchi et al. (arXiv 2410.13770, §3.3): on the random field chi
        grows with the noise and is largest at sigma → ∞, instead of peaking.
        """
        level = _squares(sigma)
        ratio = self._variances / (self._variances + level)
        spectrum = level * ratio * (1 + ratio)  # (…, d)
        uniform = self._vectors.sum(0) ** 2
        return np.asarray((spectrum @ uniform) / spectrum.sum(-1)).reshape(np.shape(sigma))

    def _project(self, x0: torch.Tensor) -> torch.Tensor:
        """c·(x0 - mean): (B, d) => (B,)."""
        return (x0 - self._component.means[0]) @ self._functional

    def _functional_posterior(
        self, x: torch.Tensor, sigma: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """E[x0 | x] (B, d), sigma (B, 1), and of c·(x0 - mean) given x: deviation s (B,), mean over s (B,)."""
        check_query(self.name, self.shape, x, sigma)
        level = sigma.double()[:, None]
        mean = self._component.mean(x.double(), level, level.new_ones(len(level), 1))
        spread = (self._component.posterior_variances(level) @ self._rotated**2).sqrt()
        return mean, level, spread, self._project(mean) / spread

    def fingerprint(self) -> str:
        """Digest of mean, covariance, projection and noise, and of whether its sites have a geometry."""
        import torch

        arrays = {
            "mean": self.mean,
            "covariance": self.covariance,
            "projection": self.projection,
            "noise": self.noise,
            "ring": np.array(self._ring),
        }
        return fingerprint_state({name: torch.from_numpy(array) for name, array in arrays.items()})


def ring_covariance(dim: int, decay: float) -> Array:
    """Covariance (dim, dim) of a random field on a ring: power k^-decay, that of k = 1 at k = 0, mean power 1.

    Raises:
        UsageError: unless dim >= 2 and decay >= 0 and finite.
    """
    if dim < 2:
        raise UsageError(f"dim must be at least 2, got {dim}")
    if not (np.isfinite(decay) and decay >= 0):
        raise UsageError(f"decay must be finite and not negative, got {decay:g}")
    wave = np.minimum(np.arange(dim), dim - np.arange(dim)).clip(1).astype(np.float64)
    power = wave**-decay
    first = np.fft.ifft(power / power.mean()).real
    site = np.arange(dim)
    covariance = first[(site[:, None] - site) % dim]
    return np.asarray((covariance + covariance.T) / 2)


def _one_covariance(what: str, covariance: Any, dim: int) -> tuple[Array, Array]:
    """Eigenvalues (d,) and eigenvectors (d, d) of a variance or a matrix."""
    array = np.asarray(1.0 if covariance is None else covariance, dtype=np.float64)
    if array.shape not in ((), (dim, dim)):
        raise UsageError(f"{what} must be a number or have shape ({dim}, {dim}), got {array.shape}")
    values, vectors = check_covariances(array, 1, dim)
    assert vectors is not None  # both forms are shared ones
    return values, vectors


def _assembled(values: Array, vectors: Array) -> Array:
    """The matrix with these eigenvalues and eigenvectors."""
    return np.asarray((vectors * values) @ vectors.T)


def _squares(sigma: float | FloatArray) -> Array:
    """sigma² (…, 1)."""
    level = np.asarray(sigma, dtype=np.float64)
    if not (level > 0).all():
        raise UsageError(f"sigma must be positive, got {level.min():g}")
    return np.asarray(level[..., None] ** 2)
