"""Fork: k independent continuations of the reverse SDE from one noised item, each judged by the readout.

Record arrays (N items, U starting levels):

====================== ============ ==================================================================
``log_snr``            (U,)         starting levels, ascending
``items``              (N,) str
``labels/<factor>``    (N,) int64
``votes/<factor>``     (N, U, K)    how many of the k continuations were judged to have each value; an exact
                                    readout's verdict is drawn from its posterior
====================== ============ ==================================================================
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchsuite.contracts import DiffusionModel, Readout, Record
from benchsuite.protocols.common import Items, Meter, chunks, level_number
from benchsuite.protocols.returns import Streams, by_item, come_back, judge, schedule
from benchsuite.protocols.settings import ForkSettings
from benchsuite.randomness import uniform

#: block of a path's stream that verdicts are drawn from, behind those of all levels
VERDICTS = level_number(50.0) + 1


def count_passes(settings: ForkSettings, items: int, sigma_range: tuple[float, float]) -> int:
    """Forward passes of the forks, before running them."""
    return min(items, settings.items) * settings.k * schedule(settings, sigma_range).passes(settings.method)


def fork(
    model: DiffusionModel,
    items: Items,
    readout: Readout,
    settings: ForkSettings,
    *,
    seed: int,
    dataset: str,
    batch: int,
    meter: Meter,
) -> Record:
    """Run the forks on the first `settings.items` items.

    Args:
        batch: largest number of rows in one forward pass.

    Returns:
        The record described above.
    """
    plan = schedule(settings, model.sigma_range)
    levels = len(plan.entries)
    items = items.take(range(min(settings.items, len(items))))
    votes: dict[str, list[NDArray[Any]]] = {}
    for part in chunks(len(items), max(1, batch // levels)):
        group = items.take(range(part.start, part.stop))
        counts: dict[str, NDArray[Any]] = {}
        for path in range(settings.k):
            # draw 0 every time: the continuations share the way up and only differ on the way down
            streams = Streams.of(seed, dataset, "fork", 0, group, plan.entry_sigmas, path)
            noised = streams.noised(group.x, plan.entry_sigmas)
            ends = come_back(model, plan, noised, streams, settings.method, batch, meter)
            for number, (name, p) in enumerate(judge(readout, model.decode(ends)).items()):
                if readout.exact:
                    p = _drawn(p, uniform(streams.paths, VERDICTS + number, (1,)))
                counts[name] = counts.get(name, 0) + by_item(p, levels)
        for name, count in counts.items():
            votes.setdefault(name, []).append(count)
    arrays: dict[str, NDArray[Any]] = {
        "log_snr": plan.log_snr,
        "items": np.array(items.ids),
        **{f"labels/{f.name}": items.column(f.name) for f in items.factors},
        **{f"votes/{name}": np.concatenate(parts) for name, parts in votes.items()},
    }
    meta = {
        "k": settings.k,
        "method": settings.method,
        "steps": len(plan.sigmas),
        "spacing": settings.every / settings.steps_per_level,
        "readout_accuracy": dict(readout.accuracy),
    }
    return Record("fork", arrays, meta)


def _drawn(p: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """One-hot of a value drawn from each row of p (B, K) with u (B, 1) uniform."""
    index = (p.cumsum(dim=1) < u.to(p.device)).sum(dim=1).clamp_max(p.shape[1] - 1)
    return torch.nn.functional.one_hot(index, p.shape[1]).float()
