"""U-turn: noise an item to a level, come back by the reverse SDE, and let the readout judge what came back.

An item enters the schedule exactly at its starting level and the first reverse step leaves from that level
(the published script for paper B noises to index k and starts from k - 1). All starting levels share one
batch: a group joins when the schedule reaches its level.

Record arrays (M = N draws × items, rows draw by draw; U starting levels):

====================== ============ ==================================================================
``log_snr``            (U,)         starting levels, ascending
``items``              (M,) str
``labels/<factor>``    (M,) int64
``reference/<factor>`` (M, 1, K)    what a copy is compared to: one-hot of the readout on the item itself (after
                                    an encode–decode round trip). For an exact model on its own data (M, U, K):
                                    its posterior given the noised item, the conditional expectation of the
                                    true label's one-hot (Rao–Blackwell: same mean, less noise)
``judged/<factor>``    (M, U, K)    the readout on what came back: one-hot, or the exact posterior
====================== ============ ==================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchsuite.contracts import DiffusionModel, ExactModel, FloatArray, Readout, Record
from benchsuite.errors import BenchsuiteError
from benchsuite.noise import log_snr_from_sigma, sigma_from_log_snr
from benchsuite.protocols.common import (
    Items,
    Meter,
    chunks,
    denoise_batched,
    item_keys,
)
from benchsuite.protocols.settings import UTurnSettings
from benchsuite.randomness import normal, stream_keys
from benchsuite.samplers import reverse


def schedule(settings: UTurnSettings, sigma_range: tuple[float, float]) -> tuple[FloatArray, list[int]]:
    """Descending sigmas of the reverse schedule, and the index of each starting level (noisiest first)."""
    step = settings.every / settings.steps_per_level
    count = round((settings.end - settings.low) / step)
    log_snr = settings.low + step * np.arange(count + 1)
    starting = np.arange(0, count + 1, settings.steps_per_level)
    high, low = (float(log_snr_from_sigma(sigma)) for sigma in sigma_range)
    inside = (log_snr >= low - 1e-9) & (log_snr <= high + 1e-9)
    first = int(np.argmax(inside))
    chosen = [int(i) - first for i in starting if inside[i] and log_snr[i] <= min(settings.high, high) + 1e-9]
    if not chosen:
        raise BenchsuiteError(
            f"no U-turn level in [{settings.low}, {settings.high}] lies in the model's range: "
            f"log-SNR {low:.2f} to {high:.2f}"
        )
    return np.asarray(sigma_from_log_snr(log_snr[inside])), chosen


def count_passes(settings: UTurnSettings, items: int, sigma_range: tuple[float, float]) -> int:
    """Forward passes of the U-turns, before running them."""
    sigmas, starting = schedule(settings, sigma_range)
    per_row = sum(len(sigmas) - i for i in starting)
    heun = settings.method == "ode-heun"
    return items * settings.draws * (2 * per_row - len(starting) if heun else per_row)


def u_turn(
    model: DiffusionModel,
    items: Items,
    readout: Readout,
    settings: UTurnSettings,
    *,
    exact: bool,
    seed: int,
    dataset: str,
    batch: int,
    meter: Meter,
) -> Record:
    """Run the U-turns.

    Args:
        exact: the items come from the population whose posterior the model states.
        batch: largest number of rows in one forward pass; items are taken in blocks that fill it.

    Returns:
        The record described above.
    """
    sigmas, starting = schedule(settings, model.sigma_range)
    soft = exact and readout.exact and isinstance(model, ExactModel)
    judged: dict[str, list[NDArray[Any]]] = {}
    expected: dict[str, list[NDArray[Any]]] = {}
    block = max(1, batch // len(starting))
    for draw in range(settings.draws):
        for part in chunks(len(items), block):
            group = items.take(range(part.start, part.stop))
            keys = _Keys.of(seed, dataset, draw, group, [float(sigmas[i]) for i in starting])
            starts = [
                (i, group.x + float(sigmas[i]) * keys.forward(level, group.x))
                for level, i in enumerate(starting)
            ]
            ends = reverse(
                lambda x, sigma: denoise_batched(model, x, sigma, None, batch, meter),
                starts,
                [float(s) for s in sigmas],
                method=settings.method,
                noise=lambda step, keys=keys, x=group.x: keys.reverse(step, x),
            )
            for name, p in _judge(readout, model.decode(ends)).items():
                judged.setdefault(name, []).append(_by_item(p, len(starting)))
            if soft:
                assert isinstance(model, ExactModel)
                noised = torch.cat([x for _, x in starts])
                level_sigmas = torch.cat([x.new_full((len(x),), float(sigmas[i])) for i, x in starts])
                for name, p in model.posterior(noised, level_sigmas).items():
                    expected.setdefault(name, []).append(_by_item(p, len(starting)))
    verdict = {} if readout.exact else _judge(readout, model.decode(items.x))
    reference = {name: np.tile(p.cpu().numpy()[:, None], (settings.draws, 1, 1)) for name, p in verdict.items()}
    reference |= {name: np.concatenate(parts) for name, parts in expected.items()}
    if readout.exact and not soft:  # judged exactly, but by another model than the one measured
        for f in items.factors:
            one_hot = np.eye(f.size, dtype=np.float32)[items.column(f.name)]
            reference[f.name] = np.tile(one_hot[:, None], (settings.draws, 1, 1))
    arrays: dict[str, NDArray[Any]] = {
        "log_snr": np.asarray(log_snr_from_sigma(sigmas[starting])),
        "items": np.array(items.ids * settings.draws),
        **{f"labels/{f.name}": np.tile(items.column(f.name), settings.draws) for f in items.factors},
        **{f"judged/{name}": np.concatenate(parts) for name, parts in judged.items()},
        **{f"reference/{name}": p.astype(np.float32) for name, p in reference.items()},
    }
    agreement = {
        name: float((p.argmax(dim=1).cpu().numpy() == items.column(name)).mean()) for name, p in verdict.items()
    }
    meta = {
        "method": settings.method,
        "steps": len(sigmas),
        "draws": settings.draws,
        "readout": readout.name,
        "readout_exact": readout.exact,
        "readout_agrees_with_labels": agreement,
    }
    return Record("u_turn", arrays, meta)


@dataclass(frozen=True)
class _Keys:
    """Random streams of one draw of a group of items: one per item for the way up, one per path for the way down.

    Draws 2j and 2j + 1 use the same streams with opposite signs.
    """

    items: torch.Tensor  #: (N,)
    paths: torch.Tensor  #: (levels * N,), level by level
    sign: float

    @classmethod
    def of(cls, seed: int, dataset: str, draw: int, items: Items, sigmas: Sequence[float]) -> _Keys:
        device = items.x.device
        stream = f"u_turn/{draw // 2}"
        rows = [f"{item}@{log_snr_from_sigma(sigma):.6f}" for sigma in sigmas for item in items.ids]
        return cls(
            item_keys(seed, dataset, stream, items.ids, device),
            stream_keys((seed, dataset, f"{stream}/reverse"), rows).to(device),
            -1.0 if draw % 2 else 1.0,
        )

    def forward(self, level: int, like: torch.Tensor) -> torch.Tensor:
        """Noise (N, *shape) that takes the items to starting level number `level`."""
        return self.sign * normal(self.items, level, tuple(like.shape[1:])).to(like.dtype)

    def reverse(self, step: int, like: torch.Tensor) -> torch.Tensor:
        """Noise (levels * N, *shape) of reverse step `step`."""
        return self.sign * normal(self.paths, step, tuple(like.shape[1:])).to(like.dtype)


def _by_item(p: torch.Tensor, levels: int) -> NDArray[Any]:
    """(levels * N, K), level by level => (N, levels, K) float32."""
    table: NDArray[Any] = p.reshape(levels, -1, p.shape[1]).transpose(0, 1).float().cpu().numpy()
    return table


def _judge(readout: Readout, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """The readout's verdict: its exact posterior, or the one-hot of its most probable value."""
    found = readout.probabilities(images)
    if readout.exact:
        return {name: p.float() for name, p in found.items()}
    return {name: torch.nn.functional.one_hot(p.argmax(dim=1), p.shape[1]).float() for name, p in found.items()}
