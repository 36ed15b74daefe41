"""Label filter: what a model's conditional heads conclude, step by step, about items that are being denoised.

Record arrays (M = N draws × items, rows draw by draw; T levels):

======================== ============= ==============================================================
``log_snr``              (T,)          ascending: in the order in which a path meets them
``items``                (M,) str      item id of each row (repeated over draws)
``labels/<factor>``      (M,) int64
``filter/<factor>``      (M, T, K)     ln pi(value | the path down to this level), at least ln 1e-12
``mixture/<factor>``     (M, T)        sum_k pi(k) ‖eps_hat_k - eps_hat_pi‖², eps_hat_pi = sum_k pi(k) eps_hat_k
``posterior/<factor>``   (M, T, K)     exact models only: p(value | x)
======================== ============= ==============================================================

**Path.** The noise of an item decays as it would under the reverse process: from one level to the next
n' = e^{-h/2} n + √(1 - e^{-h}) z with h the step in log-SNR, so that x = x0 + sigma n is a path of the reverse
SDE given x0, and has the noise sweep's law at every level.

**Filter.** For the head of value k the step x -> x' is a draw from N(mu_k, v), with
mu_k = e^{-h} x + (1 - e^{-h}) D_k(x) and v = sigma'² (1 - e^{-h}); hence ln pi(k) changes by

    -½ ‖x' - mu_k‖² / v = -½ ‖√(e^h - 1) (eps_hat_k - n) + z‖²

(the Kushner–Stratonovich filter of a static abstraction, Franzese et al., arXiv:2410.03368). pi is a function of
the path alone, so that H + E[ln pi(true value)] never exceeds the information of the path, which is that of its
last point, whatever the errors of the heads: errors that heads share cancel, and a decided path stays decided.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from benchsuite.contracts import DiffusionModel, ExactModel, FloatArray, Record
from benchsuite.errors import BenchsuiteError
from benchsuite.noise import log_snr_from_sigma
from benchsuite.protocols.common import (
    MAX_DRAWS,
    Items,
    Meter,
    chunks,
    denoise_batched,
    item_keys,
    level_number,
    shared_factors,
)
from benchsuite.protocols.settings import FilterSettings
from benchsuite.randomness import normal

#: what ln pi is cut off at when it is written down
LOG_FLOOR = math.log(1e-12)

#: factor -> p(value), (K,)
Priors = Mapping[str, FloatArray]


def filtered(model: DiffusionModel, items: Items, priors: Priors, settings: FilterSettings) -> Priors:
    """Priors of the factors that are filtered: the model can be told them, and they have few values."""
    names = shared_factors(model, items.factors)
    return {f.name: priors[f.name] for f in items.factors if f.name in names and f.size <= settings.most_values}


def levels(settings: FilterSettings, sigma_range: tuple[float, float]) -> tuple[FloatArray, int]:
    """The grid and the index of the first level in the model's range; it ends with the last one that is.

    Levels below the range are kept: the noise of a path is drawn from the grid's first level on, so that models
    of other ranges see the same paths.
    """
    grid = np.linspace(settings.low, settings.high, settings.nodes)
    high, low = (float(log_snr_from_sigma(sigma)) for sigma in sigma_range)
    inside = np.flatnonzero((grid >= low - 1e-9) & (grid <= high + 1e-9))
    if len(inside) < 2:
        raise BenchsuiteError(
            f"only {len(inside)} levels of the filter's grid [{settings.low}, {settings.high}] lie in the model's "
            f"range: log-SNR {low:.2f} to {high:.2f}"
        )
    return grid[: inside[-1] + 1], int(inside[0])


def count_passes(settings: FilterSettings, items: int, values: int, sigma_range: tuple[float, float]) -> int:
    """Forward passes of the filter, at most: values that are ruled out take none.

    Args:
        values: values of positive probability of all filtered factors together.
    """
    grid, first = levels(settings, sigma_range)
    return min(items, settings.items) * settings.draws * (len(grid) - first) * values


def label_filter(
    model: DiffusionModel,
    items: Items,
    priors: Priors,
    settings: FilterSettings,
    *,
    seed: int,
    dataset: str,
    batch: int,
    meter: Meter,
) -> Record:
    """Run the filter on the first `settings.items` items.

    Args:
        priors: p(value) of every factor of the data, where the filter starts.
        batch: largest number of rows in one forward pass.

    Returns:
        The record described above; `meta["filtered"]` names the factors.
    """
    grid, first = levels(settings, model.sigma_range)
    chosen = filtered(model, items, priors, settings)
    items = items.take(range(min(settings.items, len(items))))
    keys = item_keys(seed, dataset, "label_filter", items.ids, items.x.device)
    rows = max(1, batch // max(sum(len(p) for p in chosen.values()), 1))
    found: dict[str, list[NDArray[np.float32]]] = {}
    for draw in range(settings.draws if chosen else 0):
        for part in chunks(len(items), rows):
            paths = _Paths(model, items.x[part], chosen, settings.negligible, batch, meter)
            paths.run(grid, first, keys[part], draw)
            for name, columns in paths.kept.items():
                found.setdefault(name, []).append(np.stack(columns, axis=1))
    arrays: dict[str, NDArray[np.generic]] = {
        "log_snr": grid[first:],
        "items": np.array(items.ids * settings.draws),
        **{f"labels/{f.name}": np.tile(items.column(f.name), settings.draws) for f in items.factors},
        **{name: np.concatenate(parts) for name, parts in found.items()},
    }
    return Record("label_filter", arrays, {"filtered": list(chosen), "spacing": float(grid[1] - grid[0])})


@dataclass
class _Paths:
    """A block of items on their way down, with what has been concluded about each."""

    model: DiffusionModel
    x0: torch.Tensor  #: (B, *shape)
    priors: Priors
    negligible: float
    batch: int
    meter: Meter
    kept: dict[str, list[NDArray[np.float32]]] = field(default_factory=dict)

    def run(self, grid: FloatArray, first: int, keys: torch.Tensor, draw: int) -> None:
        """Go through the levels `first`, first + 1, … of `grid`, keeping what the record holds."""
        log_pi = {
            name: torch.as_tensor(np.asarray(p, dtype=np.float64)).log().repeat(len(self.x0), 1).to(self.x0.device)
            for name, p in self.priors.items()
        }
        noise = self._z(keys, float(grid[0]), draw)
        for i, level in enumerate(grid):
            last = i + 1 == len(grid)
            step = 0.0 if last else float(grid[i + 1] - level)
            # the step to the next level; its stream belongs to the level that it arrives at
            z = torch.zeros_like(noise) if last else self._z(keys, float(grid[i + 1]), draw)
            if i >= first:
                sigma = math.exp(-level / 2)
                self._keep(log_pi, self.x0 + sigma * noise, sigma)
                log_pi = self._level(log_pi, noise, sigma, math.sqrt(math.expm1(step)), z)
            noise = math.exp(-step / 2) * noise + math.sqrt(-math.expm1(-step)) * z

    def _z(self, keys: torch.Tensor, level: float, draw: int) -> torch.Tensor:
        """Fresh noise (B, *shape) of one level; draws come in antithetic pairs."""
        z = normal(keys, level_number(level) * MAX_DRAWS + draw // 2, tuple(self.x0.shape[1:])).to(self.x0.dtype)
        return -z if draw % 2 else z

    def _keep(self, log_pi: Mapping[str, torch.Tensor], x: torch.Tensor, sigma: float) -> None:
        for name, weights in log_pi.items():
            self._store(f"filter/{name}", weights.clamp_min(LOG_FLOOR))
        if isinstance(self.model, ExactModel):
            for name, p in self.model.posterior(x, x.new_full((len(x),), sigma)).items():
                if name in log_pi:
                    self._store(f"posterior/{name}", p)

    def _store(self, name: str, value: torch.Tensor) -> None:
        self.kept.setdefault(name, []).append(value.float().cpu().numpy())

    def _level(
        self, log_pi: Mapping[str, torch.Tensor], noise: torch.Tensor, sigma: float, gain: float, z: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Spread of the heads at this level, and ln pi after the step that leaves it.

        Args:
            gain: √(e^h - 1) of the step.
        """
        active = {name: _undecided(weights, self.negligible) for name, weights in log_pi.items()}
        heads = self._heads(active, self.x0 + sigma * noise, sigma)
        updated = {}
        for name, weights in log_pi.items():
            row, value = active[name].nonzero(as_tuple=True)
            # eps_hat_k - n: the noise that the head leaves unexplained
            rest = ((self.x0[row] - heads[name]) / sigma).double().flatten(1)
            likelihood = torch.full_like(weights, -math.inf)
            likelihood[row, value] = -0.5 * (gain * rest + z[row].double().flatten(1)).square().sum(dim=1)
            self._store(f"mixture/{name}", _spread(rest, row, weights.exp()[row, value], len(weights)))
            updated[name] = _shifted(weights, likelihood, active[name])
        return updated

    def _heads(
        self, active: Mapping[str, torch.Tensor], x: torch.Tensor, sigma: float
    ) -> dict[str, torch.Tensor]:
        """{factor: D_k(x) of its active (row, value) pairs, in their order}, all in one pass."""
        columns = [f.name for f in self.model.factors]
        rows, labels, counts = [], [], []
        for name, mask in active.items():
            row, value = mask.nonzero(as_tuple=True)
            given = torch.full((len(row), len(columns)), -1, dtype=torch.int64, device=x.device)
            given[:, columns.index(name)] = value
            rows.append(row)
            labels.append(given)
            counts.append(len(row))
        if not sum(counts):
            return {name: x[:0] for name in active}
        where = torch.cat(rows)
        sigmas = x.new_full((len(where),), sigma)
        out = denoise_batched(self.model, x[where], sigmas, torch.cat(labels), self.batch, self.meter)
        return dict(zip(active, out.split(counts), strict=True))


def _undecided(log_pi: torch.Tensor, negligible: float) -> torch.Tensor:
    """Values (B, K) that are still in question: none where a single one is."""
    active = log_pi > (math.log(negligible) if negligible > 0 else -math.inf)
    return active & (active.sum(dim=1, keepdim=True) > 1)


def _shifted(log_pi: torch.Tensor, likelihood: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
    """Bayes' rule among the active values, which keep their share of the whole: (B, K)."""
    mine = log_pi.where(active, -math.inf)
    posterior = mine + likelihood
    share = mine.logsumexp(dim=1, keepdim=True) - posterior.logsumexp(dim=1, keepdim=True)
    return torch.where(active, posterior + share, log_pi)


def _spread(heads: torch.Tensor, row: torch.Tensor, weight: torch.Tensor, count: int) -> torch.Tensor:
    """sum_k w_k ‖v_k - mean‖² (count,) for vectors (R, D) that belong to rows; 0 where there are none."""
    total = weight.new_zeros(count).index_add(0, row, weight).clamp_min(1e-300)
    weight = weight / total[row]
    mean = heads.new_zeros(count, heads.shape[1]).index_add(0, row, weight[:, None] * heads)
    apart = (heads - mean[row]).square().sum(dim=1)
    return weight.new_zeros(count).index_add(0, row, weight * apart)
