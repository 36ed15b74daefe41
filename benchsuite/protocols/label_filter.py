"""Label filter: what a model's conditional heads conclude, step by step, about items that are being denoised.

Record arrays (M = N draws × items, rows draw by draw; T levels):

======================== ============= ==============================================================
``log_snr``              (T,)          ascending: in the order in which a path meets them
``items``                (M,) str      item id of each row (repeated over draws)
``labels/<factor>``      (M,) int64
``filter/<factor>``      (M, T, K)     ln pi(value | the path down to this level), at least ln 1e-12
``coarse/<factor>``      (M, T, K)     the same from every other level only, for extrapolation
``mixture/<factor>``     (M, T)        sum_k pi(k) ‖eps_hat_k - eps_hat_pi‖², eps_hat_pi = sum_k pi(k) eps_hat_k
``posterior/<factor>``   (M, T, K)     exact models only: p(value | x)
======================== ============= ==============================================================

The oracle of a data set is asked, not run (``meta["stated"]``): what its filter of steps of no length concludes is
its posterior at the last point. ``filter`` is the logarithm of that, and nothing is coarse or mixed.

**Path.** The noise of an item decays as it would under the reverse process: from one level to the next
n' = e^{-h/2} n + √(1 - e^{-h}) z with h the step in log-SNR, so that x = x0 + sigma n is a path of the reverse
SDE given x0, and has the noise sweep's law at every level.

**Filter.** For the head of value k the step x -> x' is a draw from N(mu_k, v), with
mu_k = e^{-h} x + (1 - e^{-h}) D_k(x) and v = sigma'² (1 - e^{-h}); hence ln pi(k) changes by

    -½ ‖x' - mu_k‖² / v = -½ ‖√(e^h - 1) (n - eps_hat_k) - z‖²

(the Kushner–Stratonovich filter of a static abstraction, Franzese et al., arXiv:2410.03368). The first step comes
from infinite noise, where D_k is the mean of class k: it is read off pure noise in which the item has no part.
pi is a function of the path alone, so that H + E[ln pi(true value)] never exceeds the information of the path,
which is that of its last point, whatever the errors of the heads; errors that heads share cancel, and a decided
path stays decided. What steps of length h cost is proportional to h (the mean of a step is exact, D_k within a
step is not), which is why a second filter takes steps of 2h from the same forward passes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

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
#: block of an item's stream for the noise in which it has no part, behind those of all levels
APART = level_number(50.0) + 1

#: factor -> p(value), (K,)
Priors = Mapping[str, FloatArray]


def filtered(model: DiffusionModel, items: Items, priors: Priors, settings: FilterSettings) -> Priors:
    """Priors of the factors that are filtered: the model can be told them, and they have few values."""
    names = shared_factors(model, items.factors)
    few = [f.name for f in items.factors if f.name in names and f.size <= settings.most_values]
    return {name: priors[name] for name in few if name in priors}


def levels(settings: FilterSettings, sigma_range: tuple[float, float]) -> tuple[FloatArray, int]:
    """Every step's level and the index of the first one in the model's range; they end with the last one that is.

    Levels below the range are kept: the noise of a path is drawn from the grid's first level on, so that models
    of other ranges see the same paths.
    """
    grid = np.linspace(settings.low, settings.high, (settings.nodes - 1) * settings.steps_per_level + 1)
    high, low = (float(log_snr_from_sigma(sigma)) for sigma in sigma_range)
    inside = np.flatnonzero((grid >= low - 1e-9) & (grid <= high + 1e-9))
    if len(inside) < 2:
        raise BenchsuiteError(
            f"only {len(inside)} levels of the filter's grid [{settings.low}, {settings.high}] lie in the model's "
            f"range: log-SNR {low:.2f} to {high:.2f}"
        )
    return grid[: inside[-1] + 1], int(inside[0])


def count_passes(
    settings: FilterSettings, items: int, values: int, sigma_range: tuple[float, float], stated: bool = False
) -> int:
    """Forward passes of the filter, at most: values that are ruled out take none.

    Args:
        values: values of positive probability of all filtered factors together.
        stated: of an oracle, see `label_filter`.
    """
    if stated:
        return 0
    grid, first = levels(settings, sigma_range)
    steps = 1 + len(grid) - first  # the first one comes from infinite noise
    return min(items, settings.items) * settings.draws * steps * values


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
    stated: bool = False,
) -> Record:
    """Run the filter on the first `settings.items` items.

    Args:
        priors: p(value) of every factor that may be filtered, where the filter starts.
        batch: largest number of rows in one forward pass.
        stated: the model, an exact one, is the ideal of this data set: its posterior answers for it.

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
            way = paths.ask if stated else paths.run
            way(grid, first, settings.steps_per_level, keys[part], draw)
            for name, columns in paths.kept.items():
                found.setdefault(name, []).append(np.stack(columns, axis=1))
    arrays: dict[str, NDArray[np.generic]] = {
        "log_snr": grid[[i for i in range(first, len(grid)) if i % settings.steps_per_level == 0]],
        "items": np.array(items.ids * settings.draws),
        **{f"labels/{f.name}": np.tile(items.column(f.name), settings.draws) for f in items.factors},
        **{name: np.concatenate(parts) for name, parts in found.items()},
    }
    meta = {"filtered": list(chosen), "spacing": float(grid[1] - grid[0]), "stated": stated}
    return Record("label_filter", arrays, meta)


#: factor -> (B, K), or (R, …) of its active (row, value) pairs
ByFactor = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class _Stop:
    """A level that the coarse filter steps over two of."""

    log_pi: ByFactor  #: of the coarse filter
    noise: torch.Tensor  #: (B, *shape)
    level: float
    rest: ByFactor  #: n - eps_hat_k of the active pairs (R, D)
    active: ByFactor  #: (B, K) bool


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

    def run(self, grid: FloatArray, first: int, every: int, keys: torch.Tensor, draw: int) -> None:
        """Go through the levels `first`, first + 1, … of `grid`, keeping what the record holds of some."""
        noise = self._arrived(grid[: first + 1], keys, draw)
        fine = self._start(noise, float(grid[first]), self._z(keys, APART, draw))
        behind: list[_Stop] = []  # the last two levels
        for i in range(first, len(grid)):
            level = float(grid[i])
            coarse = fine
            if len(behind) == 2:
                stop = behind.pop(0)
                step = level - stop.level
                # the fine filter's two increments as one
                z = (noise - math.exp(-step / 2) * stop.noise) / math.sqrt(-math.expm1(-step))
                coarse = _updated(stop.log_pi, stop.rest, stop.active, step, z)
            active = {name: _undecided(fine[name], coarse[name], self.negligible) for name in fine}
            rest = self._rest(active, noise, level)
            if i % every == 0:
                self._keep(fine, coarse, active, rest, noise, level)
            behind.append(_Stop(coarse, noise, level, rest, active))
            if i + 1 < len(grid):
                step = float(grid[i + 1]) - level
                z = self._z(keys, level_number(float(grid[i + 1])), draw)
                fine = _updated(fine, rest, active, step, z)
                noise = _decayed(noise, z, step)

    def ask(self, grid: FloatArray, first: int, every: int, keys: torch.Tensor, draw: int) -> None:
        """Go through the same levels, keeping what the model's posterior says on the same path."""
        noise = self._arrived(grid[: first + 1], keys, draw)
        for i in range(first, len(grid)):
            if i > first:
                z = self._z(keys, level_number(float(grid[i])), draw)
                noise = _decayed(noise, z, float(grid[i] - grid[i - 1]))
            if i % every == 0:
                posterior = self._posterior(noise, float(grid[i]))
                logs = {name: p.double().log().clamp_min(LOG_FLOOR) for name, p in posterior.items()}
                self._add({f"filter/{name}": log_pi for name, log_pi in logs.items()})
                self._add({f"posterior/{name}": p for name, p in posterior.items()})

    def _arrived(self, grid: FloatArray, keys: torch.Tensor, draw: int) -> torch.Tensor:
        """The noise (B, *shape) of the paths at the last level of `grid`, having come through the others."""
        noise = self._z(keys, level_number(float(grid[0])), draw)
        for below, level in pairwise(grid):
            noise = _decayed(noise, self._z(keys, level_number(float(level)), draw), level - below)
        return noise

    def _posterior(self, noise: torch.Tensor, level: float) -> dict[str, torch.Tensor]:
        """{factor: p(value | x) (B, K)} of the filtered factors, by an exact model."""
        assert isinstance(self.model, ExactModel)
        sigma = math.exp(-level / 2)
        posterior = self.model.posterior(self.x0 + sigma * noise, noise.new_full((len(noise),), sigma))
        return {name: posterior[name] for name in self.priors}

    def _z(self, keys: torch.Tensor, level: int, draw: int) -> torch.Tensor:
        """Fresh noise (B, *shape) that arrives at a level; draws come in antithetic pairs."""
        z = normal(keys, level * MAX_DRAWS + draw // 2, tuple(self.x0.shape[1:])).to(self.x0.dtype)
        return -z if draw % 2 else z

    def _start(self, noise: torch.Tensor, level: float, apart: torch.Tensor) -> dict[str, torch.Tensor]:
        """ln pi (B, K) of every factor after the step from infinite noise to the first level.

        Args:
            apart: (B, *shape) noise on which the heads show the means of their classes.
        """
        log_pi = {
            name: torch.as_tensor(np.asarray(p, dtype=np.float64)).log().repeat(len(self.x0), 1).to(self.x0.device)
            for name, p in self.priors.items()
        }
        active = {name: _undecided(weights, weights, self.negligible) for name, weights in log_pi.items()}
        sigma = math.exp(-level / 2)
        means = self._heads(active, sigma * apart, sigma)
        started = {}
        for name, weights in log_pi.items():
            row = active[name].nonzero(as_tuple=True)[0]
            off = ((self.x0[row] - means[name]) / sigma + noise[row]).double().flatten(1)
            started[name] = _bayes(weights, -0.5 * off.square().sum(dim=1), active[name])
        return started

    def _rest(self, active: ByFactor, noise: torch.Tensor, level: float) -> dict[str, torch.Tensor]:
        """{factor: n - eps_hat_k (R, D) of its active (row, value) pairs}: the noise that a head misses."""
        sigma = math.exp(-level / 2)
        heads = self._heads(active, self.x0 + sigma * noise, sigma)
        rows = {name: mask.nonzero(as_tuple=True)[0] for name, mask in active.items()}
        # x = x0 + sigma n = D + sigma eps_hat
        return {name: ((heads[name] - self.x0[row]) / sigma).double().flatten(1) for name, row in rows.items()}

    def _heads(self, active: ByFactor, x: torch.Tensor, sigma: float) -> dict[str, torch.Tensor]:
        """{factor: D_k(x) (R, *shape) of its active (row, value) pairs, in their order}."""
        columns = [f.name for f in self.model.factors]
        rows, labels = [], []
        for name, mask in active.items():
            row, value = mask.nonzero(as_tuple=True)
            given = torch.full((len(row), len(columns)), -1, dtype=torch.int64, device=x.device)
            given[:, columns.index(name)] = value
            rows.append(row)
            labels.append(given)
        where = torch.cat(rows)
        if not len(where):
            return dict.fromkeys(active, x[:0])
        sigmas = x.new_full((len(where),), sigma)
        out = denoise_batched(self.model, x[where], sigmas, torch.cat(labels), self.batch, self.meter)
        return dict(zip(active, out.split([len(row) for row in rows]), strict=True))

    def _keep(
        self,
        fine: ByFactor,
        coarse: ByFactor,
        active: ByFactor,
        rest: ByFactor,
        noise: torch.Tensor,
        level: float,
    ) -> None:
        """Add one level to what the record holds."""
        found = {f"filter/{name}": weights.clamp_min(LOG_FLOOR) for name, weights in fine.items()}
        found |= {f"coarse/{name}": weights.clamp_min(LOG_FLOOR) for name, weights in coarse.items()}
        for name, weights in fine.items():
            row, value = active[name].nonzero(as_tuple=True)
            found[f"mixture/{name}"] = _spread(rest[name], row, weights.exp()[row, value], len(weights))
        if isinstance(self.model, ExactModel):
            found |= {f"posterior/{name}": p for name, p in self._posterior(noise, level).items()}
        self._add(found)

    def _add(self, found: ByFactor) -> None:
        for name, value in found.items():
            self.kept.setdefault(name, []).append(value.float().cpu().numpy())


def _decayed(noise: torch.Tensor, z: torch.Tensor, step: float) -> torch.Tensor:
    """The noise of a path `step` further down in log-SNR."""
    return math.exp(-step / 2) * noise + math.sqrt(-math.expm1(-step)) * z


def _undecided(fine: torch.Tensor, coarse: torch.Tensor, negligible: float) -> torch.Tensor:
    """Values (B, K) that are still in question for either filter: none where a single one is."""
    active = torch.maximum(fine, coarse) > (math.log(negligible) if negligible > 0 else -math.inf)
    return active & (active.sum(dim=1, keepdim=True) > 1)


def _updated(
    log_pi: ByFactor,
    rest: ByFactor,
    active: ByFactor,
    step: float,
    z: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """ln pi of every factor after a step that left with `rest` and whose fresh noise was z (B, *shape)."""
    gain, updated = math.sqrt(math.expm1(step)), {}
    for name, weights in log_pi.items():
        row = active[name].nonzero(as_tuple=True)[0]
        off = gain * rest[name] - z[row].double().flatten(1)
        updated[name] = _bayes(weights, -0.5 * off.square().sum(dim=1), active[name])
    return updated


def _bayes(log_pi: torch.Tensor, log_likelihood: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
    """Bayes' rule among the active values, which keep their share of the whole: (B, K).

    Args:
        log_likelihood: (R,), of the active pairs in their order.
    """
    mine = log_pi.where(active, -math.inf)
    posterior = mine.masked_scatter(active, mine[active] + log_likelihood)
    share = mine.logsumexp(dim=1, keepdim=True) - posterior.logsumexp(dim=1, keepdim=True)
    return torch.where(active, posterior + share, log_pi)


def _spread(vectors: torch.Tensor, row: torch.Tensor, weight: torch.Tensor, count: int) -> torch.Tensor:
    """sum_k w_k ‖v_k - mean‖² (count,) for vectors (R, D) that belong to rows; 0 where there are none."""
    total = weight.new_zeros(count).index_add(0, row, weight).clamp_min(1e-300)
    weight = weight / total[row]
    mean = vectors.new_zeros(count, vectors.shape[1]).index_add(0, row, weight[:, None] * vectors)
    apart = (vectors - mean[row]).square().sum(dim=1)
    return weight.new_zeros(count).index_add(0, row, weight * apart)
