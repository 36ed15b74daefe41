"""Denoising loss: how much of the noise a model fails to tell from the image, level by level.

I-MMSE (Kong, Brekelmans & Ver Steeg, arXiv:2302.03792): -log p(x0) is a constant plus the integral over log-SNR of
half the squared error of the noise. What a denoiser loses against the ideal one therefore adds up, in nats, to a
bound of the divergence between the data and what the model generates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from benchsuite import Curve, Metric, NoiseSweep, Record
from benchsuite.contracts import FloatArray


class DenoisingLoss(Metric):
    """½ E‖eps - D_eps(x)‖² of the unconditional head, in nats per unit of log-SNR.

    The row's signed area over the oracle's curve is ½ ∫ (loss - floor) d log_snr: the Girsanov bound of
    KL(data ‖ model) over the levels measured. Variants give the conditional heads, ``told <factor>``.
    """

    name = "denoising-loss"
    version = "1"
    paper = "arXiv:2302.03792"
    unit = "nats per log-SNR"
    bounds: ClassVar[tuple[float, float]] = (0.0, float("inf"))
    needs = (NoiseSweep(heads=True),)
    onset = False
    per_factor = False
    excess = True

    def compute(self, records: Mapping[str, Record]) -> list[Curve]:
        """The unconditional head's curve, and one variant per conditional head."""
        record = records["noise_sweep"]
        return [
            self._curve(record, head, "" if head == "unconditional" else f"told {head}")
            for head in ("unconditional", *record.meta["heads"])
        ]

    def _curve(self, record: Record, head: str, variant: str) -> Curve:
        loss: FloatArray = record[f"error/{head}"].astype(np.float64) / 2
        return Curve(
            factor="",
            log_snr=record["log_snr"],
            per_item=loss,
            items=tuple(record["items"]),
            unit=self.unit,
            variant=variant,
        )
