"""How much a reverse sampler inflates retention, as a function of its step size.

On an exact model the posterior p at the turn is known, so that the agreement of what comes back with p is compared
with sum p² item by item: the difference is the sampler's bias, without the sampling error of either.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from benchsuite.contracts import ExactModel
from benchsuite.own_data import ExactReadout, OwnData
from benchsuite.protocols.common import Items, Meter
from benchsuite.protocols.settings import METHODS, UTurnSettings
from benchsuite.protocols.u_turn import u_turn

#: log-SNR per reverse step
SPACINGS = (2.0, 1.0, 0.5, 0.25, 0.125)
#: a protocol's default step is the largest whose bias is below this
TARGET = 0.01


@dataclass(frozen=True)
class SamplerBias:
    """One sampler at one step size on one case."""

    method: str
    spacing: float  #: log-SNR per step
    steps: int  #: of the whole schedule
    case: str
    factor: str
    bias: float  #: largest |mean bias| of retention over starting levels, with its sign
    at_log_snr: float
    standard_error: float


def sampler_bias(
    model: ExactModel,
    case: str,
    *,
    n: int = 4000,
    spacings: Sequence[float] = SPACINGS,
    methods: Iterable[str] = METHODS,
    seed: int = 0,
) -> list[SamplerBias]:
    """Bias of every method at every step size on a loaded exact model.

    The probability-flow ODE returns the same copy every time; its retention is not that of the reverse SDE, and
    its row measures by how much.
    """
    data = OwnData(model, {"train": 1, "val": 1, "test": n}, seed)
    data.load()
    split = data.split("test")
    items = Items(split.images, split.labels, split.ids, data.factors)
    readout = ExactReadout(model)
    found = []
    for method in methods:
        for spacing in spacings:
            every = max(spacing, 1.0)
            settings = UTurnSettings(
                low=-6.0, high=6.0, every=every, steps_per_level=round(every / spacing), method=method, draws=2
            )
            with torch.no_grad():
                record = u_turn(
                    model, items, readout, settings, seed=seed, dataset=case, batch=8192, meter=Meter()
                )
            for factor in data.factors:
                p = record[f"reference/{factor.name}"].astype(np.float64)
                excess = (record[f"judged/{factor.name}"] * p - p**2).sum(axis=2)  # (M, U)
                # the two draws of an item are antithetic: their mean is the independent unit
                excess = excess.reshape(settings.draws, n, -1).mean(axis=0)
                mean, error = excess.mean(axis=0), excess.std(axis=0, ddof=1) / np.sqrt(n)
                at = int(np.abs(mean).argmax())
                found.append(
                    SamplerBias(
                        method,
                        spacing,
                        int(record.meta["steps"]),
                        case,
                        factor.name,
                        float(mean[at]),
                        float(record["log_snr"][at]),
                        float(error[at]),
                    )
                )
    return found


def recommended_spacing(found: Sequence[SamplerBias], method: str, target: float = TARGET) -> float | None:
    """The largest spacing at which `method` stays within `target` on every case, beyond two standard errors."""
    mine = [f for f in found if f.method == method]
    for spacing in sorted({f.spacing for f in mine}, reverse=True):
        if all(abs(f.bias) - 2 * f.standard_error < target for f in mine if f.spacing == spacing):
            return spacing
    return None
