"""Fork: k independent continuations of the reverse SDE from one noised item, each judged by the readout.

On request also from the states of as many paths that the model generates itself, from noise: for a perfect model
the same law, and no image is involved.

Record arrays (N items, U starting levels):

====================== ============ ==================================================================
``log_snr``            (U,)         starting levels, ascending
``items``              (N,) str
``labels/<factor>``    (N,) int64
``votes/<factor>``     (N, U, K)    how many of the k continuations were judged to have each value; an exact
                                    readout's verdict is drawn from its posterior
``own_items``          (N,) str     "path/0000001", …: the model's own paths, on request
``own/<factor>``       (N, U, K)    votes of the continuations from the states of these paths
====================== ============ ==================================================================

The oracle of a data set is asked, not run: its posterior is the law of what its continuations show to a judge who
never errs. Votes are drawn from that, and it is kept itself:

=========================== ============ =============================================================
``posterior/<factor>``      (N, U, K)    at the noised items, of the factors that the readout judges
``own_posterior/<factor>``  (N, U, K)    at the states of its own paths
=========================== ============ =============================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchsuite.contracts import DiffusionModel, Fork, Readout, Record
from benchsuite.noise import log_snr_from_sigma, sigma_from_log_snr
from benchsuite.protocols.common import Items, Meter, chunks, denoise_batched, item_keys, level_number
from benchsuite.protocols.returns import (
    Schedule,
    Streams,
    by_item,
    come_back,
    judge,
    judged_factors,
    prior_draws,
    schedule,
    stated_posterior,
)
from benchsuite.protocols.settings import ForkSettings
from benchsuite.randomness import normal, uniform
from benchsuite.samplers import reverse

#: blocks of a path's stream that verdicts and the start of an own path are drawn from, behind those of all levels
VERDICTS, START = level_number(50.0) + 1, level_number(50.0) + 101


def count_passes(
    settings: ForkSettings,
    items: int,
    sigma_range: tuple[float, float],
    request: Fork | None = None,
    stated: bool = False,
) -> int:
    """Forward passes of the forks, before running them; `stated`: of an oracle, see `fork`."""
    plan = schedule(settings, sigma_range)
    passes = 0 if stated else settings.k * plan.passes(settings.method)
    if request is not None and request.paths:
        levels = len(_way_down(settings, plan, sigma_range)[0])
        passes += passes + (2 * levels - 1 if settings.method == "ode-heun" else levels)
    return min(items, settings.items) * passes


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
    request: Fork | None = None,
    train: Items | None = None,
    stated: bool = False,
    exact: bool = False,
) -> Record:
    """Run the forks on the first `settings.items` items; those of an oracle on its population, on all of them.

    Args:
        batch: largest number of rows in one forward pass.
        request: whether to fork the model's own paths too.
        train: items of the training split, from whose moments the start of own paths is drawn.
        stated: the model, an exact one, is the ideal of this data set: its posterior answers for it.
        exact: the items come from the population whose posterior the model states.

    Returns:
        The record described above.
    """
    plan = schedule(settings, model.sigma_range)
    levels = len(plan.entries)
    count = min(settings.items, len(items))
    # an oracle takes no passes; but beside models it answers for the very items that they are run on
    items = items if stated and exact else items.take(range(count))
    stated_factors = judged_factors(model, readout, items) if stated else None
    forks = _Forks(model, readout, settings, plan, seed, dataset, batch, meter, stated_factors)
    arrays: dict[str, NDArray[Any]] = {
        "log_snr": plan.log_snr,
        "items": np.array(items.ids),
        **{f"labels/{f.name}": items.column(f.name) for f in items.factors},
    }
    size = max(1, batch // (levels * settings.k))
    found = []
    for part in chunks(len(items), size):
        group = items.take(range(part.start, part.stop))
        # draw 0 every time: the continuations share the way up and only differ on the way down
        streams = Streams.of(seed, dataset, "fork", 0, group, plan.entry_sigmas)
        found.append(forks.run(group, streams.noised(group.x, plan.entry_sigmas), "votes", "posterior"))
    arrays |= {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    if request is not None and request.paths:
        assert train is not None
        ids = tuple(f"path/{i + 1:07d}" for i in range(count))
        found = []
        for part in chunks(count, size):
            states = forks.own_paths(ids[part], train.x)
            group = Items(states[0], items.labels[part, :0], ids[part], ())
            found.append(forks.run(group, states, "own", "own_posterior"))
        arrays["own_items"] = np.array(ids)
        arrays |= {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    meta = {
        "k": settings.k,
        "method": settings.method,
        "steps": len(plan.sigmas),
        "spacing": settings.every / settings.steps_per_level,
        "readout_accuracy": dict(readout.accuracy),
    }
    return Record("fork", arrays, meta)


class _Forks:
    """Where paths fork, and how their continuations are run and judged."""

    def __init__(
        self,
        model: DiffusionModel,
        readout: Readout,
        settings: ForkSettings,
        plan: Schedule,
        seed: int,
        dataset: str,
        batch: int,
        meter: Meter,
        stated: Sequence[str] | None,
    ) -> None:
        self.model, self.readout, self.settings, self.plan = model, readout, settings, plan
        self.seed, self.dataset, self.batch, self.meter = seed, dataset, batch, meter
        self.stated = stated  #: factors whose posterior answers; None if the model is run

    def run(
        self, group: Items, states: Sequence[torch.Tensor], votes: str, posterior: str
    ) -> dict[str, NDArray[Any]]:
        """Votes (N, U, K) of k continuations from `states`, one (N, *shape) per level, noisiest first.

        Returns:
            {"<votes>/<factor>": votes}, and if the model states it {"<posterior>/<factor>": its posterior}.
        """
        k, levels = self.settings.k, len(self.plan.entries)
        streams = Streams.together(
            [Streams.of(self.seed, self.dataset, "fork", 0, group, self.plan.entry_sigmas, i) for i in range(k)],
            levels,
        )
        found: dict[str, NDArray[Any]] = {}
        if self.stated is not None:
            law = stated_posterior(self.model, states, self.plan, self.stated)
            found |= {f"{posterior}/{name}": by_item(p, levels) for name, p in law.items()}
            judged = {
                name: torch.cat([part for part in p.chunk(levels) for _ in range(k)]) for name, p in law.items()
            }
        else:
            copies = [torch.cat([state] * k) for state in states]
            ends = come_back(self.model, self.plan, copies, streams, self.settings.method, self.batch, self.meter)
            judged = judge(self.readout, self.model.decode(ends))
        for number, (name, p) in enumerate(judged.items()):
            if self.stated is not None or self.readout.exact:
                p = _drawn(p, uniform(streams.paths, VERDICTS + number, (1,)))
            table = by_item(p, levels)  # (k N, U, K), continuation by continuation
            found[f"{votes}/{name}"] = table.reshape(k, -1, *table.shape[1:]).sum(axis=0)
        return found

    def own_paths(self, ids: Sequence[str], train: torch.Tensor) -> list[torch.Tensor]:
        """States (N, *shape) at every starting level, noisiest first, of paths that begin as noise."""
        sigmas, entries = _way_down(self.settings, self.plan, self.model.sigma_range)
        keys = item_keys(self.seed, self.dataset, "fork/own", ids, train.device)
        states: dict[int, torch.Tensor] = {}

        def noise(step: int) -> torch.Tensor:
            block = level_number(float(log_snr_from_sigma(sigmas[step])))
            return normal(keys, block, tuple(train.shape[1:])).to(train.dtype)

        reverse(
            lambda x, sigma: denoise_batched(self.model, x, sigma, None, self.batch, self.meter),
            [(0, prior_draws(keys, START, train, sigmas[0]))],
            sigmas,
            method=self.settings.method,
            noise=noise,
            observe=lambda i, x, denoised: states.update({i: x}),
        )
        return [states[i] for i in entries]


def _way_down(
    settings: ForkSettings, plan: Schedule, sigma_range: tuple[float, float]
) -> tuple[list[float], list[int]]:
    """Levels of an own path, descending in sigma, to the cleanest starting level; where those levels are in it."""
    step = settings.every / settings.steps_per_level
    first, last = float(log_snr_from_sigma(plan.sigmas[0])), float(plan.log_snr[-1])
    noisiest = max(settings.paths_from, float(log_snr_from_sigma(sigma_range[1])))
    above = max(0, int((first - noisiest) / step + 1e-9))
    count = round((last - first) / step) + 1
    levels = first + step * np.arange(-above, count)
    return [float(s) for s in sigma_from_log_snr(levels)], [above + i for i in plan.entries]


def _drawn(p: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """One-hot of a value drawn from each row of p (B, K) with u (B, 1) uniform."""
    index = (p.cumsum(dim=1) < u.to(p.device)).sum(dim=1).clamp_max(p.shape[1] - 1)
    return torch.nn.functional.one_hot(index, p.shape[1]).float()
