"""A Gaussian mixture with known means, weights and covariances: every posterior in closed form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from benchsuite import Codec, Dataset, ExactModel, UsageError, fingerprint_state
from benchsuite_models.exact_common import (
    by_factor,
    check_bound,
    check_labels,
    check_query,
    choose,
    normal,
    numbered,
    one_hot,
    uniform,
)
from benchsuite_models.gaussian_components import Components, OwnCovariances, SharedCovariance
from benchsuite_models.mixture_input import (
    check_covariances,
    check_factors,
    check_means,
    check_weights,
    preset_mixture,
)

if TYPE_CHECKING:
    import torch


class ExactMixture(ExactModel):
    """x0 ~ Σ_k w_k N(m_k, Σ_k), with labelled components; x (d,).

    Given x at noise sigma, component k has weight ∝ w_k N(x; m_k, Σ_k + sigma² I) and x0 given k is Gaussian;
    the covariances are diagonalised once, so that a noise level costs no inversion. Computed in float64.

    Args:
        means: (K, d) array-like. Left out, the mixture is the named `preset`.
        weights: (K,) positive, sum 1; equal by default.
        covariances: a variance, (K,) variances, a (d, d) matrix for all, (K, d) diagonals or (K, d, d)
            matrices; 1.0 by default. For K = d a square array is one matrix for all.
        factors: {name: K integer labels}, the value that each component has in each factor (0 … max, none left
            out). By default one factor "class" with a value per component.
        preset: "two-gaussians" (default), "simplex", "hierarchy" or "flat", see `preset_mixture`.
        classes, dim, distance, fine_distance, std, seed: options of the preset; None = its own default.
        dummy: adds a factor "dummy" with this many equally likely values, drawn independently of x: its
            posterior is uniform, its information 0, and conditioning on it changes nothing (a control).

    Raises:
        UsageError: for impossible input, with the value and the rule.
    """

    name = "exact-mixture"
    own_data = True
    cases = (
        "preset=two-gaussians,dim=8",
        "preset=simplex,classes=10,dim=16",
        "preset=hierarchy,dummy=3",
        "preset=flat",
    )
    paper = "2402.18491"  # speciation in Gaussian mixtures, Biroli et al.

    def __init__(
        self,
        means: Any = None,
        weights: Any = None,
        covariances: Any = None,
        factors: Mapping[str, Any] | None = None,
        *,
        preset: str | None = None,
        classes: int | None = None,
        dim: int | None = None,
        distance: float | None = None,
        fine_distance: float | None = None,
        std: float | None = None,
        seed: int | None = None,
        dummy: int | None = None,
    ) -> None:
        import torch

        options = {
            "classes": classes,
            "dim": dim,
            "distance": distance,
            "fine_distance": fine_distance,
            "std": std,
            "seed": seed,
        }
        if means is None:
            if any(argument is not None for argument in (weights, covariances, factors)):
                raise UsageError("weights, covariances and factors belong to means: give means (K, d) too")
            means, covariances, factors = preset_mixture(preset or "two-gaussians", options)
        else:
            extra = [key for key, value in {"preset": preset, **options}.items() if value is not None]
            if extra:
                raise UsageError(f"{', '.join(extra)} describe a named mixture and cannot go with given means")
        m = check_means(means)
        count, width = m.shape
        w = check_weights(weights, count)
        given = np.array(1.0 if covariances is None else covariances, dtype=np.float64)
        values, vectors = check_covariances(given, count, width)
        self.factors, labels = check_factors(factors, count)
        self._component_factors = self.factors
        if dummy is not None:
            if dummy < 2:
                raise UsageError(f"dummy must have at least 2 values, got {dummy}")
            if any(factor.name == "dummy" for factor in self.factors):
                raise UsageError("dummy adds a factor of that name, but factors has one already")
            self.factors = (*self.factors, numbered("dummy", dummy))
        self.shape = (width,)
        self.sigma_range = (1e-3, 1e4)
        self._dtype = torch.float32
        # Eigenvectors differ between machines, what was given does not.
        self._given = {"means": m, "weights": w, "covariances": given, "labels": labels}
        self._weights = torch.from_numpy(w)  # (K,)
        self._labels = torch.from_numpy(labels)  # (K, F without dummy)
        self._components: Components
        if values.ndim == 1 and vectors is not None:
            self._components = SharedCovariance(*map(torch.from_numpy, (m, values, vectors)))
        else:
            rotations = None if vectors is None else torch.from_numpy(vectors)
            self._components = OwnCovariances(torch.from_numpy(m), torch.from_numpy(values), rotations)

    def bind(self, dataset: Dataset, codec: Codec | None = None) -> None:
        """Check that `dataset` has this mixture's shape and factors."""
        check_bound(self, dataset)

    def load(self, device: str = "cpu", dtype: str = "float32") -> None:
        """Move to `device`; `dtype` is that of `sample`, the arithmetic stays float64."""
        import torch

        self._dtype = torch.float64 if dtype == "float64" else torch.float32
        self._weights, self._labels = self._weights.to(device), self._labels.to(device)
        self._components = self._components.to(device)

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        """E[x0 | x] or E[x0 | x, labels]: (B, d), dtype and device of `x`; labels (B, F), -1 = null.

        Raises:
            UsageError: if no component carries the asked combination of labels.
        """
        position, level = self._query(x, sigma)
        weights = self._responsibilities(position, level, check_labels(self.name, self.factors, labels, x))
        return self._components.mean(position, level, weights).to(x.dtype)

    def responsibilities(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """p(component | x): (B, K) float64."""
        return self._responsibilities(*self._query(x, sigma), check_labels(self.name, self.factors, None, x))

    def posterior(self, x: torch.Tensor, sigma: torch.Tensor) -> dict[str, torch.Tensor]:
        """p(factor | x) as {factor: (B, K)}, in the dtype of `x`."""
        return self._per_factor(self.responsibilities(x, sigma), x.dtype)

    def sample_posterior(
        self, x: torch.Tensor, sigma: torch.Tensor, generator: torch.Generator | None = None
    ) -> torch.Tensor:
        """One draw of x0 given x per row: a component, then its Gaussian posterior: (B, d)."""
        k = choose(self.responsibilities(x, sigma), uniform((x.shape[0],), x.device, generator))
        z = normal(x.shape, x.device, generator)
        return self._components.draw(*self._query(x, sigma), k, z).to(x.dtype)

    def features(self, x0: torch.Tensor) -> dict[str, torch.Tensor]:
        """The point x0 (B, d), then which value of each factor it has, the first factor last."""
        found = self._per_factor(self.responsibilities(x0, x0.new_full((len(x0),), self.sigma_range[0])), x0.dtype)
        return {"data": x0, **{f.name: found[f.name] for f in self._component_factors[::-1]}}

    def positions(self, x0: torch.Tensor) -> torch.Tensor:
        """Coordinates (B, d, 1) of x0 (B, d): that one moved counts, not where to, for the axes are unrelated."""
        return x0[:, :, None]

    def prior(self) -> dict[str, torch.Tensor]:
        """p(factor) as {factor: (K,)} float64."""
        return self._per_factor(self._weights[None], self._weights.dtype, squeeze=True)

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """`n` draws: x0 (n, d) and labels (n, F) int64."""
        import torch

        device = self._weights.device
        k = choose(self._weights.expand(n, -1), uniform((n,), device, generator))
        x0 = self._components.prior_draw(k, normal((n, *self.shape), device, generator))
        labels = self._labels[k]
        if len(self.factors) > labels.shape[1]:
            values = (uniform((n, 1), device, generator) * self.factors[-1].size).long()
            labels = torch.cat([labels, values], dim=1)
        return x0.to(self._dtype), labels

    def fingerprint(self) -> str:
        """Digest of means, weights, covariances and labels as they were given."""
        import torch

        given = {name: torch.from_numpy(array) for name, array in self._given.items()}
        factors = tuple((factor.name, factor.size) for factor in self.factors)
        return fingerprint_state({**given, "factors": factors})

    def _query(self, x: torch.Tensor, sigma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Checked x (B, d) and sigma (B, 1) in float64."""
        check_query(self.name, self.shape, x, sigma)
        return x.double(), sigma.double()[:, None]

    def _responsibilities(self, x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """p(component | x, labels): (B, K)."""
        logits = self._weights.log() + self._components.log_likelihood(x, sigma)
        return logits.masked_fill(~self._allowed(labels), -float("inf")).softmax(1)

    def _allowed(self, labels: torch.Tensor) -> torch.Tensor:
        """Which components carry the labels (B, F): (B, K)."""
        asked = labels[:, None, : self._labels.shape[1]]  # the dummy excludes nothing
        allowed = ((self._labels == asked) | (asked < 0)).all(2)
        if not bool(allowed.any(1).all()):
            row = int((~allowed.any(1)).nonzero()[0])
            values = ", ".join(
                f"{factor.name} = {int(value)}"
                for factor, value in zip(self._component_factors, asked[row, 0], strict=True)
                if value >= 0
            )
            raise UsageError(f"{self.name}: no component has {values}")
        return allowed

    def _per_factor(
        self, weights: torch.Tensor, dtype: torch.dtype, squeeze: bool = False
    ) -> dict[str, torch.Tensor]:
        """Component probabilities (B, K) => {factor: (B, values)}."""
        parts = by_factor(weights @ one_hot(self._labels, self._component_factors), self._component_factors, dtype)
        for factor in self.factors[len(self._component_factors) :]:
            parts[factor.name] = weights.new_full((len(weights), factor.size), 1 / factor.size, dtype=dtype)
        return {name: part[0] for name, part in parts.items()} if squeeze else parts
