"""Trajectory: reverse paths of a model from its prior, with x and D(x) at the recorded levels.

Record arrays (P paths; T recorded levels; M items):

====================== ============== ================================================================
``log_snr``            (T,)           recorded levels, ascending: in the order in which a path meets them
``items``              (P,) str       "path/0000001", …
``x``                  (P, T, *shape) state at each recorded level, before the step that leaves it
``denoised``           (P, T, *shape) D(x; sigma), all labels null
``final``              (P, *shape)    the denoised image of the last forward pass
``verdict/<factor>``   (P, K)         the readout on ``final``, if the data set has one: one-hot, or the exact
                                      posterior
``sure/<factor>``      (P, T)         the readout's largest probability on ``denoised``
``sure_end/<factor>``  (P,)           the same on ``final``
``filter/<factor>``    (P, T, K)      on request: p(value | the path down to this level) by the model's own heads
``posterior/<factor>`` (P, T, K)      exact models only: p(value | x)
``mse/train``          (M, T)         on request: ‖eps - eps_hat‖² of training items noised to the level
``mse/test``           (M', T)        the same of the evaluated items
``items/train``, ``items/test``       their ids
====================== ============== ================================================================

**Start.** The forward process from data with mean m and per-coordinate variance v arrives at mean m and
variance sigma² + v, so paths start from N(m, sigma² + v) with the moments of the training split.

**Filter.** A step x -> x' of the unconditional ancestral sampler is, for the head of value k, a draw from
N(mu_k, v I) with mu_k = e^{-2h} x + (1 - e^{-2h}) D_k(x) and v = sigma'² (1 - e^{-2h}), so that
log pi(k) changes by -‖x' - mu_k‖² / 2v (Franzese et al., arXiv:2410.03368: the Kushner–Stratonovich filter of
a static abstraction). It starts from the prior p(k) at infinite noise: the start of a path is to the head of value
k a draw from N(D_k, sigma²), where D_k, far out, is the mean of value k, read off noise in which the path has no
part.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchsuite.contracts import DiffusionModel, ExactModel, FloatArray, Readout, Record, Trajectory
from benchsuite.errors import BenchsuiteError
from benchsuite.noise import log_snr_from_sigma
from benchsuite.protocols.common import (
    Items,
    Meter,
    chunks,
    denoise_batched,
    forward_noise,
    item_keys,
    level_number,
    shared_factors,
)
from benchsuite.protocols.returns import judge, prior_draws, schedule
from benchsuite.protocols.settings import TrajectorySettings
from benchsuite.randomness import normal, stream_keys
from benchsuite.samplers import reverse

#: blocks of a path's stream that its start is drawn from, and the noise in which it has no part: behind all levels
START, APART = level_number(50.0) + 1, level_number(50.0) + 2

#: factor -> p(value), (K,)
Priors = Mapping[str, FloatArray]


@dataclass(frozen=True)
class Course:
    """The levels of a path, the first of them recorded."""

    sigmas: list[float]  #: (L,) descending
    recorded: tuple[int, ...]  #: indices of the recorded ones, ascending


def course(settings: TrajectorySettings, sigma_range: tuple[float, float]) -> Course:
    """The part of the schedule that lies in the model's range.

    Raises:
        BenchsuiteError: fewer than two recorded levels do.
    """
    plan = schedule(settings, sigma_range)
    first = plan.entries[0]
    if len(plan.entries) < 2:
        raise BenchsuiteError(
            f"only one recorded level in [{settings.low}, {settings.high}] lies in the model's range: "
            f"sigma {sigma_range[0]:g} to {sigma_range[1]:g}"
        )
    return Course([float(s) for s in plan.sigmas[first:]], tuple(i - first for i in plan.entries))


def count_passes(
    settings: TrajectorySettings,
    request: Trajectory,
    priors: Priors,
    model: DiffusionModel,
    items: Items,
    train: Items,
) -> int:
    """Forward passes of the paths, before running them."""
    plan = course(settings, model.sigma_range)
    heads = sum(int((p > 0).sum()) for p in _filtered(request, priors, model, items).values())
    steps = len(plan.sigmas)
    path = 2 * steps - 1 if settings.method == "ode-heun" else steps
    paths = settings.paths * (path + steps * heads)  # one for every step, that from infinite noise included
    return paths + request.errors * (len(items) + _few(train, items)) * len(plan.recorded)


def trajectory(
    model: DiffusionModel,
    items: Items,
    train: Items,
    readout: Readout | None,
    priors: Priors,
    request: Trajectory,
    settings: TrajectorySettings,
    *,
    seed: int,
    dataset: str,
    batch: int,
    meter: Meter,
) -> Record:
    """Run the paths.

    Args:
        items: evaluated items; only their denoising errors are measured, on request.
        train: items of the training split, for the moments of the start and for `mse/train`.
        priors: p(value) of every factor of the data.
        batch: largest number of rows in one forward pass.

    Returns:
        The record described above.

    Raises:
        BenchsuiteError: a filter is asked for and the steps are not ancestral.
    """
    if request.conditional and settings.method != "ancestral":
        raise BenchsuiteError(
            f"a filter needs trajectory.method=ancestral, whose steps are Gaussian; it is {settings.method!r}"
        )
    plan = course(settings, model.sigma_range)
    filtered = _filtered(request, priors, model, items)
    ids = tuple(f"path/{i + 1:07d}" for i in range(settings.paths))
    keys = stream_keys((seed, dataset, "trajectory"), ids).to(train.x.device)
    found: dict[str, list[NDArray[Any]]] = {}
    for part in chunks(settings.paths, batch):
        start = prior_draws(keys[part], START, train.x, plan.sigmas[0])
        paths = _Paths(model, plan, settings.method, keys[part], filtered, batch, meter)
        final = paths.run(start)
        kept = paths.arrays() | {"final": final.float().cpu().numpy()}
        if readout is not None:
            verdict = judge(readout, model.decode(final))
            kept |= {f"verdict/{name}": p.float().cpu().numpy() for name, p in verdict.items()}
            kept |= _certainty(readout, model, kept["denoised"], final, batch)
        for name, value in kept.items():
            found.setdefault(name, []).append(value)
    log_snr = np.array([float(log_snr_from_sigma(plan.sigmas[i])) for i in plan.recorded])
    arrays: dict[str, NDArray[Any]] = {
        "log_snr": log_snr,
        "items": np.array(ids),
        **{name: np.concatenate(parts) for name, parts in found.items()},
    }
    if request.errors:
        groups = {"test": items, "train": train.take(range(_few(train, items)))}
        for name, group in groups.items():
            arrays[f"items/{name}"] = np.array(group.ids)
            arrays[f"mse/{name}"] = _errors(model, group, plan, seed, dataset, batch, meter)
    meta = {
        "method": settings.method,
        "steps": len(plan.sigmas),
        "spacing": settings.every / settings.steps_per_level,
        "start": "N(mean, sigma^2 + variance) of the training split",
        "prior": {name: [float(value) for value in p] for name, p in priors.items()},
    }
    return Record("trajectory", arrays, meta)


@dataclass
class _Paths:
    """A block of paths on their way down; keeps what is recorded and no more."""

    model: DiffusionModel
    plan: Course
    method: str
    keys: torch.Tensor  #: (B,)
    filtered: Priors
    batch: int
    meter: Meter
    kept: dict[str, list[NDArray[Any]]] = field(default_factory=dict)
    log_weights: dict[str, torch.Tensor] = field(default_factory=dict)

    def run(self, start: torch.Tensor) -> torch.Tensor:
        """Ends (B, *shape) of the paths from `start`."""
        for name, p in self.filtered.items():
            row = torch.from_numpy(np.asarray(p, dtype=np.float64)).log().to(start.device)
            self.log_weights[name] = row.expand(len(start), -1).clone()
        self._begin(start)
        return reverse(
            lambda x, sigma: denoise_batched(self.model, x, sigma, None, self.batch, self.meter),
            [(0, start)],
            self.plan.sigmas,
            method=self.method,
            noise=lambda step: self._noise(step, start),
            observe=self._observe,
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What was recorded: {name: (B, T, …)} float32."""
        return {name: np.stack(parts, axis=1) for name, parts in self.kept.items()}

    def _noise(self, step: int, like: torch.Tensor) -> torch.Tensor:
        level = level_number(float(log_snr_from_sigma(self.plan.sigmas[step])))
        return normal(self.keys, level, tuple(like.shape[1:])).to(like.dtype)

    def _observe(self, i: int, x: torch.Tensor, denoised: torch.Tensor) -> None:
        if i in self.plan.recorded:
            self._keep("x", x)
            self._keep("denoised", denoised)
            for name, weights in self.log_weights.items():
                self._keep(f"filter/{name}", weights.softmax(dim=1))
            if isinstance(self.model, ExactModel):
                posterior = self.model.posterior(x, x.new_full((len(x),), self.plan.sigmas[i]))
                for name, p in posterior.items():
                    self._keep(f"posterior/{name}", p)
        if self.filtered and i + 1 < len(self.plan.sigmas):
            self._update(i, x, denoised)

    def _begin(self, start: torch.Tensor) -> None:
        """Add the log-likelihoods of the start."""
        sigma = self.plan.sigmas[0]
        apart = sigma * normal(self.keys, APART, tuple(start.shape[1:])).to(start.dtype)
        for name, k, mean in self._heads(apart, sigma):
            off = ((start - mean) / sigma).double().flatten(1)
            self.log_weights[name][:, k] -= off.square().sum(dim=1) / 2

    def _heads(self, x: torch.Tensor, sigma: float) -> Iterator[tuple[str, int, torch.Tensor]]:
        """(factor, k, D_k(x)) of every value that occurs."""
        sigmas = x.new_full((len(x),), sigma)
        columns = [f.name for f in self.model.factors]
        for name, p in self.filtered.items():
            for k in np.flatnonzero(np.asarray(p) > 0):
                labels = torch.full((len(x), len(columns)), -1, dtype=torch.int64, device=x.device)
                labels[:, columns.index(name)] = int(k)
                yield name, int(k), denoise_batched(self.model, x, sigmas, labels, self.batch, self.meter)

    def _update(self, i: int, x: torch.Tensor, denoised: torch.Tensor) -> None:
        """Add the log-likelihoods of the step that leaves level i.

        x' - mu_k = (1 - e^{-2h})(D - D_k) + sqrt(v) z; what all k share, ‖z‖² / 2, is left out.
        """
        sigma, below = self.plan.sigmas[i], self.plan.sigmas[i + 1]
        gain = math.sqrt(1 - (below / sigma) ** 2) / below  # (1 - e^{-2h}) / sqrt(v)
        z = self._noise(i, x).double().flatten(1)
        for name, k, head in self._heads(x, sigma):
            apart = gain * (denoised - head).double().flatten(1)
            self.log_weights[name][:, k] -= (apart * (apart / 2 + z)).sum(dim=1)

    def _keep(self, name: str, value: torch.Tensor) -> None:
        self.kept.setdefault(name, []).append(value.float().cpu().numpy())


def _certainty(
    readout: Readout, model: DiffusionModel, denoised: NDArray[Any], final: torch.Tensor, batch: int
) -> dict[str, NDArray[Any]]:
    """The arrays ``sure/`` and ``sure_end/`` of a block of paths."""
    columns: dict[str, list[NDArray[Any]]] = {}
    steps = [torch.from_numpy(denoised[:, t]).to(final) for t in range(denoised.shape[1])]
    for x in (*steps, final):
        rows: dict[str, list[torch.Tensor]] = {}
        for part in x.split(batch):
            for name, p in readout.probabilities(model.decode(part)).items():
                rows.setdefault(name, []).append(p.max(dim=1).values.float())
        for name, parts in rows.items():
            columns.setdefault(name, []).append(torch.cat(parts).cpu().numpy())
    levels = {f"sure/{name}": np.stack(parts[:-1], axis=1) for name, parts in columns.items()}
    return levels | {f"sure_end/{name}": parts[-1] for name, parts in columns.items()}


def _filtered(request: Trajectory, priors: Priors, model: DiffusionModel, items: Items) -> Priors:
    """The factors that a filter is run for, with their priors."""
    return {name: priors[name] for name in shared_factors(model, items.factors)} if request.conditional else {}


def _few(train: Items, items: Items) -> int:
    """Training items whose errors are measured: as many as are evaluated, if there are."""
    return min(len(train), len(items))


def _errors(
    model: DiffusionModel, items: Items, plan: Course, seed: int, dataset: str, batch: int, meter: Meter
) -> FloatArray:
    """‖eps - eps_hat‖² (M, T) under the noise that a noise sweep gives the same item at the same level."""
    keys = item_keys(seed, dataset, "noise_sweep", items.ids, items.x.device)
    columns = []
    for i in plan.recorded:
        sigma = plan.sigmas[i]
        level = level_number(float(log_snr_from_sigma(sigma)))
        rows = []
        for part in chunks(len(items), batch):
            x0 = items.x[part]
            x = x0 + sigma * forward_noise(keys[part], level, 0, tuple(x0.shape[1:])).to(x0.dtype)
            denoised = denoise_batched(model, x, x.new_full((len(x),), sigma), None, batch, meter)
            rows.append(((denoised - x0) / sigma).float().square().flatten(1).sum(dim=1).cpu().numpy())
        columns.append(np.concatenate(rows))
    errors: FloatArray = np.stack(columns, axis=1)
    return errors
