"""The way back, shared by U-turns and forks: schedules, streams and judging.

An item enters the schedule exactly at its starting level and the first reverse step leaves from that level (the
published script for paper B noises to index k and starts from k - 1). All starting levels share one batch: a
group joins when the schedule reaches its level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchsuite.contracts import DiffusionModel, ExactModel, FloatArray, Readout
from benchsuite.errors import BenchsuiteError
from benchsuite.noise import log_snr_from_sigma, sigma_from_log_snr
from benchsuite.protocols.common import Items, Meter, denoise_batched, item_keys, level_number
from benchsuite.protocols.settings import ReturnSettings
from benchsuite.randomness import normal, stream_keys
from benchsuite.samplers import reverse


@dataclass(frozen=True)
class Schedule:
    """Descending noise levels of the way back, and where items may enter."""

    sigmas: FloatArray  #: (L,) descending
    entries: tuple[int, ...]  #: index of each starting level, noisiest first

    @property
    def entry_sigmas(self) -> list[float]:
        """Noise level of each starting level."""
        return [float(self.sigmas[i]) for i in self.entries]

    @property
    def log_snr(self) -> FloatArray:
        """(U,) starting levels, ascending."""
        return np.asarray(log_snr_from_sigma(self.sigmas[list(self.entries)]))

    def passes(self, method: str) -> int:
        """Forward passes of one item that starts once from every level."""
        per_row = sum(len(self.sigmas) - i for i in self.entries)
        return 2 * per_row - len(self.entries) if method == "ode-heun" else per_row


def schedule(settings: ReturnSettings, sigma_range: tuple[float, float]) -> Schedule:
    """The part of the schedule that lies in the model's range.

    Raises:
        BenchsuiteError: no starting level does.
    """
    step = settings.every / settings.steps_per_level
    count = round((settings.end - settings.low) / step)
    log_snr = settings.low + step * np.arange(count + 1)
    high, low = (float(log_snr_from_sigma(sigma)) for sigma in sigma_range)
    inside = (log_snr >= low - 1e-9) & (log_snr <= high + 1e-9)
    first = int(np.argmax(inside))
    levels = range(0, count + 1, settings.steps_per_level)
    entries = tuple(i - first for i in levels if inside[i] and log_snr[i] <= settings.high + 1e-9)
    if not entries:
        raise BenchsuiteError(
            f"no starting level in [{settings.low}, {settings.high}] lies in the model's range: "
            f"log-SNR {low:.2f} to {high:.2f}"
        )
    return Schedule(np.asarray(sigma_from_log_snr(log_snr[inside])), entries)


@dataclass(frozen=True)
class Streams:
    """Random streams of one draw of a group of items: one per item on the way up, one per path on the way down.

    Antithetic draws 2j and 2j + 1 use the same streams with opposite signs; every draw number that is not
    antithetic has streams of its own.
    """

    items: torch.Tensor  #: (N,)
    paths: torch.Tensor  #: (levels * N,), level by level
    sign: float

    @classmethod
    def of(
        cls,
        seed: int,
        dataset: str,
        protocol: str,
        draw: int,
        items: Items,
        sigmas: Sequence[float],
        path: int = 0,
        antithetic: bool = True,
    ) -> Streams:
        """Streams of draw number `draw`; continuations that share the way up differ in `path`."""
        device = items.x.device
        stream = f"{protocol}/{draw // 2 if antithetic else draw}"
        rows = [f"{item}@{log_snr_from_sigma(sigma):.6f}" for sigma in sigmas for item in items.ids]
        return cls(
            item_keys(seed, dataset, stream, items.ids, device),
            stream_keys((seed, dataset, stream, "reverse", path), rows).to(device),
            -1.0 if antithetic and draw % 2 else 1.0,
        )

    @classmethod
    def together(cls, streams: Sequence[Streams], levels: int) -> Streams:
        """Several paths of the same items as one group: level by level, and path by path within a level."""
        paths = torch.stack([each.paths.view(levels, -1) for each in streams], dim=1)
        return cls(torch.cat([each.items for each in streams]), paths.flatten(), streams[0].sign)

    def noised(self, x: torch.Tensor, sigmas: Sequence[float]) -> list[torch.Tensor]:
        """Items (N, *shape) noised to every starting level."""
        shape = tuple(x.shape[1:])
        return [x + sigma * self.sign * normal(self.items, _number(sigma), shape).to(x.dtype) for sigma in sigmas]

    def reverse(self, sigma: float, like: torch.Tensor) -> torch.Tensor:
        """Noise (levels * N, *shape) of the reverse step that leaves from `sigma`."""
        return self.sign * normal(self.paths, _number(sigma), tuple(like.shape[1:])).to(like.dtype)


def prior_draws(keys: torch.Tensor, block: int, train: torch.Tensor, sigma: float) -> torch.Tensor:
    """Where reverse paths start: N(mean, sigma² + variance) with the moments of `train`, (B, *shape).

    The usual sigma n alone misplaces data that are not small beside sigma (at log-SNR -7, sigma is 33); starting
    from noised images instead would hand every path a hint of one image.

    Args:
        keys: (B,) streams of the paths, and their block to draw from.
        train: (N, *shape) training items.
    """
    mean, spread = train.double().mean(dim=0), train.double().var(dim=0, correction=0)
    return (mean + (sigma**2 + spread).sqrt() * normal(keys, block, tuple(train.shape[1:]))).to(train.dtype)


def _number(sigma: float) -> int:
    return level_number(float(log_snr_from_sigma(sigma)))


def come_back(
    model: DiffusionModel,
    plan: Schedule,
    noised: Sequence[torch.Tensor],
    streams: Streams,
    method: str,
    batch: int,
    meter: Meter,
) -> torch.Tensor:
    """Clean ends of the paths that start from `noised`, one tensor per level: (levels * N, *shape)."""
    sigmas = [float(sigma) for sigma in plan.sigmas]
    return reverse(
        lambda x, sigma: denoise_batched(model, x, sigma, None, batch, meter),
        list(zip(plan.entries, noised, strict=True)),
        sigmas,
        method=method,
        noise=lambda step: streams.reverse(sigmas[step], noised[0]),
    )


def judge(readout: Readout, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """The readout's verdict: its exact posterior, or the one-hot of its most probable value."""
    found = readout.probabilities(images)
    if readout.exact:
        return {name: p.float() for name, p in found.items()}
    return {name: torch.nn.functional.one_hot(p.argmax(dim=1), p.shape[1]).float() for name, p in found.items()}


def judged_factors(model: DiffusionModel, readout: Readout, items: Items) -> tuple[str, ...]:
    """Names of the factors that the readout judges."""
    return tuple(readout.probabilities(model.decode(items.x[:1])))


def stated_posterior(
    model: DiffusionModel, noised: Sequence[torch.Tensor], plan: Schedule, factors: Sequence[str]
) -> dict[str, torch.Tensor]:
    """p(factor | x) that an exact model states at `noised`, one (N, *shape) per level: {factor: (levels * N, K)}.

    It is the law of the values that `come_back` leads to, for steps of length 0 and a judge who never errs.
    """
    assert isinstance(model, ExactModel)
    sigmas = [x.new_full((len(x),), sigma) for x, sigma in zip(noised, plan.entry_sigmas, strict=True)]
    found = model.posterior(torch.cat(list(noised)), torch.cat(sigmas))
    return {name: found[name].float() for name in factors if name in found}


def by_item(p: torch.Tensor, levels: int) -> NDArray[Any]:
    """(levels * N, K), level by level => (N, levels, K) float32."""
    table: NDArray[Any] = p.reshape(levels, -1, p.shape[1]).transpose(0, 1).float().cpu().numpy()
    return table
