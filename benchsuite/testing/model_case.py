"""A model that is being checked, on items and noise that all checks share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from benchsuite.contracts import Dataset, DiffusionModel, ExactModel
from benchsuite.testing.results import Skip

#: rows of the checks that compare outputs, and of those that average over items
ROWS, MANY, ITEMS = 16, 2000, 128
#: float arithmetic loses digits in proportion to the largest number in it, which is sigma
TOLERANCE = 1e-4


class ModelCase:
    """A bound and loaded model with clean items.

    Args:
        dataset: what the model is bound to; None for a model that is its own data, or takes any.
        options: what the model was built with, to build it anew with other options.
    """

    def __init__(
        self,
        model: DiffusionModel,
        dataset: Dataset | None,
        device: str,
        options: Mapping[str, Any],
        alternatives: Mapping[str, Any],
    ) -> None:
        self.model, self.dataset, self.device = model, dataset, device
        self.options, self.alternatives = options, alternatives
        self.loaded = False
        self._errors: dict[tuple[float, float], float] = {}

    def load(self, model: DiffusionModel) -> DiffusionModel:
        """Bind `model` to the data set, if there is one, and load it."""
        if self.dataset is not None:
            model.bind(self.dataset)
        model.load(self.device)
        return model

    def ready(self) -> None:
        """Load the model that is checked.

        Raises:
            Skip: it does not load; the check "loads" says why.
        """
        if not self.loaded:
            try:
                self.load(self.model)
            except Exception as error:
                raise Skip("the model does not load") from error
            self.loaded = True

    # ---------------------------------------------------------------------------- data

    @cached_property
    def data(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Clean items (N, *shape) float32 and labels (N, F of the model), -1 where unknown.

        An exact model's own draws (`MANY`), else encoded items of the test split (`ITEMS`).

        Raises:
            Skip: neither is there.
        """
        if isinstance(self.model, ExactModel):
            try:
                x0, labels = self.model.sample(MANY, self.generator(0))
                return x0.float(), labels
            except NotImplementedError:
                pass
        if self.dataset is None:
            raise Skip("needs a data set")
        part = self.dataset.split("test")
        with torch.no_grad():
            x0 = self.model.encode(part.images[:ITEMS].to(self.device)).float()
        labels = self.labels(len(x0))
        columns = [f.name for f in self.dataset.factors]
        for index, factor in enumerate(self.model.factors):
            if factor.name in columns:
                labels[:, index] = part.labels[:ITEMS, columns.index(factor.name)]
        return x0, labels

    @cached_property
    def few(self) -> torch.Tensor:
        """A few items (ROWS, *shape) float32; arbitrary ones in [-1, 1] if there is no data."""
        self.ready()
        try:
            return self.data[0][:ROWS]
        except Skip:
            return 2 * torch.rand(ROWS, *self.model.shape, generator=self.generator(1)).to(self.device) - 1

    @cached_property
    def scale(self) -> tuple[torch.Tensor, float]:
        """Mean item (*shape) and root-mean-square deviation from it, per coordinate."""
        self.ready()
        x0 = self.data[0].double()
        mean = x0.mean(dim=0)
        return mean.float(), float((x0 - mean).square().mean().sqrt())

    @property
    def std(self) -> float:
        """Root-mean-square deviation of a coordinate from its mean; 0.5 if there is no data."""
        try:
            return max(self.scale[1], 1e-6)
        except Skip:
            return 0.5

    def within(self, sigma: float) -> float:
        """The noise level nearest to `sigma` that the model accepts."""
        low, high = self.model.sigma_range
        return float(min(max(sigma, low), high))

    def generator(self, seed: int) -> torch.Generator:
        """A fresh generator on the CPU."""
        return torch.Generator().manual_seed(seed)

    def noise(self, like: torch.Tensor, seed: int = 7) -> torch.Tensor:
        """The same standard normal noise for the same shape, whatever the level."""
        z = torch.randn(like.shape, generator=self.generator(seed), dtype=torch.float64)
        return z.to(like.device, like.dtype)

    # ---------------------------------------------------------------------------- asking

    def labels(self, rows: int, factor: int | None = None, value: int = 0) -> torch.Tensor:
        """All null, or `value` for one factor: (rows, F) int64."""
        given = torch.full((rows, len(self.model.factors)), -1, dtype=torch.int64, device=self.device)
        if factor is not None:
            given[:, factor] = value
        return given

    def ask(
        self, x: torch.Tensor, sigma: float | torch.Tensor, labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        """D(x; sigma) as the model returns it, on a copy of `x`."""
        self.ready()
        level = sigma if isinstance(sigma, torch.Tensor) else x.new_full((len(x),), sigma)
        with torch.no_grad():
            return self.model.denoise(x.clone(), level.clone(), None if labels is None else labels.clone())

    def denoise(
        self, x: torch.Tensor, sigma: float | torch.Tensor, labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        """`ask`, for checks that are about something else than the output's form.

        Raises:
            Skip: the output is not finite or has another shape, which checks of their own report.
        """
        out = self.ask(x, sigma, labels)
        if out.shape != x.shape:
            raise Skip("output of another shape, see shape-dtype")
        if not bool(torch.isfinite(out).all()):
            raise Skip("non-finite output, see finite")
        return out.to(x.dtype)

    def error(self, sigma: float, told: float | None = None) -> float:
        """Mean squared error of a coordinate at `sigma`, if the model is told `told`; asked once."""
        self.ready()
        asked = (sigma, told or sigma)
        if asked not in self._errors:
            x0 = self.data[0][:ITEMS]
            out = self.denoise(x0 + sigma * self.noise(x0), asked[1])
            self._errors[asked] = float((out - x0).double().square().mean())
        return self._errors[asked]

    # ---------------------------------------------------------------------------- factors

    def values(self, index: int) -> list[int]:
        """Values of a factor that occur: those of positive prior, if the model states one."""
        factor = self.model.factors[index]
        prior = self.prior.get(factor.name)
        return [k for k in range(factor.size) if prior is None or prior[k] > 0]

    def telling(self) -> list[int]:
        """Factors about which x says something; for a model that is not exact, all that have two values."""
        self.ready()
        found = [i for i in range(len(self.model.factors)) if len(self.values(i)) > 1]
        if not isinstance(self.model, ExactModel) or not self.prior:
            return found
        sigma = self.within(self.std)
        x = self.few + sigma * self.noise(self.few)
        with torch.no_grad():
            posterior = self.model.posterior(x, x.new_full((len(x),), sigma))
        names = [factor.name for factor in self.model.factors]
        return [i for i in found if float((posterior[names[i]] - self.prior[names[i]].to(x)).abs().max()) > 1e-6]

    @cached_property
    def prior(self) -> dict[str, torch.Tensor]:
        """p(factor) of an exact model, {factor: (K,)} float64; empty if it states none."""
        if not isinstance(self.model, ExactModel):
            return {}
        try:
            return {name: p.double() for name, p in self.model.prior().items()}
        except NotImplementedError:
            return {}

    # ---------------------------------------------------------------------------- exact models

    @cached_property
    def levels(self) -> list[Level]:
        """Where an exact model is examined: at the scale of its data, and where each factor is half decided.

        Raises:
            Skip: the model is not exact, or cannot be sampled.
        """
        self.ready()
        if not isinstance(self.model, ExactModel):
            raise Skip("not an exact model")
        x0, labels = self.data
        if len(x0) < MANY:
            raise Skip("the model cannot be sampled")
        sizes = torch.tensor([factor.size for factor in self.model.factors], device=labels.device)
        if labels.shape != (len(x0), len(sizes)) or bool(((labels < 0) | (labels >= sizes)).any()):
            raise Skip("labels of samples are not valid, see samples-valid")
        few = x0[:ITEMS].double()
        noise = self.noise(few, seed=5)
        grid = np.geomspace(
            self.within(0.02 * self.std), self.within(3 * self.std * math.sqrt(few[0].numel())), 25
        )
        decided: dict[str, list[float]] = {}  # E sum p², from that of the prior up to 1
        for sigma in grid:
            for name, p in posterior(self.model, few + sigma * noise, float(sigma)).items():
                decided.setdefault(name, []).append(float(p.square().sum(dim=1).mean()))
        chosen = {self.within(self.std)}
        for values in decided.values():
            agreement = np.nan_to_num(values)
            middle = (agreement.min() + agreement.max()) / 2
            if np.ptp(agreement) > 0.05:
                chosen.add(float(grid[np.abs(agreement - middle).argmin()]))
        return [Level(self, self.model, sigma) for sigma in sorted(chosen)]


@dataclass(frozen=True)
class Level:
    """An exact model's own draws at one noise level, in float64; n = `MANY`."""

    case: ModelCase
    model: ExactModel
    sigma: float

    @cached_property
    def x0(self) -> torch.Tensor:
        """Clean draws (n, *shape)."""
        return self.case.data[0].double()

    @cached_property
    def x(self) -> torch.Tensor:
        """Noisy draws (n, *shape)."""
        return self.x0 + self.sigma * self.case.noise(self.x0, seed=11)

    @cached_property
    def denoised(self) -> torch.Tensor:
        """D(x), (n, *shape)."""
        return self.case.denoise(self.x, self.sigma)

    @cached_property
    def posterior(self) -> dict[str, torch.Tensor]:
        """p(factor | x), {factor: (n, K)}."""
        return posterior(self.model, self.x, self.sigma)

    @cached_property
    def drawn(self) -> torch.Tensor:
        """One posterior draw per row of `x`, (n, *shape)."""
        return self.draws(self.x)

    def draws(self, x: torch.Tensor, seed: int = 13) -> torch.Tensor:
        """One posterior draw per row of `x`, float64."""
        level = x.new_full((len(x),), self.sigma)
        with torch.no_grad():
            return self.model.sample_posterior(x.clone(), level, self.case.generator(seed)).double()


def posterior(model: ExactModel, x: torch.Tensor, sigma: float) -> dict[str, torch.Tensor]:
    """p(factor | x) at one level."""
    with torch.no_grad():
        return model.posterior(x.clone(), x.new_full((len(x),), sigma))
