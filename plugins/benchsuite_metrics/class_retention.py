"""Class retention: how often a factor survives a U-turn (forward to a noise level and back).

Forward–backward experiments of Sclocchi, Favero & Wyart (arXiv:2402.16991). For a perfect model retention is
E[sum_k p(k | x)²], the agreement of two independent continuations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from benchsuite import Curve, Metric, NotApplicableError, Record, UTurn
from benchsuite.contracts import FloatArray


class ClassRetention(Metric):
    """Probability that a factor is the same after a U-turn, against the level of the turn.

    1 = always kept; the floor, agreement with an unrelated item, is measured at the noisiest level from
    shuffled pairs (sum over values of the two marginal frequencies) and is what onsets are normalised to.

    For an exact model, variant ``one-shot`` is the same from its exact posterior at the turn, E[sum_k p(k | x)²]:
    what real reverse steps must come to, but for their step size. Of the oracle of a data set it is published.
    """

    name = "class-retention"
    version = "1"
    paper = "arXiv:2402.16991"
    unit = "probability"
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    needs = (UTurn(),)
    tolerance = 0.01

    def compute(self, records: Mapping[str, Record]) -> list[Curve]:
        """One curve per factor that the readout judges."""
        record = records["u_turn"]
        factors = [name.removeprefix("judged/") for name in record.arrays if name.startswith("judged/")]
        if not factors:
            raise NotApplicableError("the data set's readout judges no factor")
        curves = []
        items = tuple(record["items"])
        for factor in factors:
            judged = record[f"judged/{factor}"].astype(np.float64)  # (M, U, K)
            reference = record[f"reference/{factor}"].astype(np.float64)  # (M, 1 or U, K)
            floor = float(judged[:, 0].mean(axis=0) @ reference[:, 0].mean(axis=0))
            curves.append(
                Curve(
                    factor=factor,
                    log_snr=record["log_snr"],
                    per_item=(judged * reference).sum(axis=2),
                    items=items,
                    unit=self.unit,
                    floor=floor,
                    ceiling=1.0,
                    extra={
                        "floor": floor,
                        "steps": record.meta["steps"],
                        "method": record.meta["method"],
                        "spacing": record.meta["spacing"],
                        "readout_agrees_with_labels": record.meta["readout_agrees_with_labels"].get(factor),
                    },
                )
            )
            # the posterior of an exact model, at every level
            if reference.shape[1] > 1 and not record.meta.get("stated"):
                curves.append(
                    Curve(
                        factor=factor,
                        log_snr=record["log_snr"],
                        per_item=np.square(reference).sum(axis=2),
                        items=items,
                        unit=self.unit,
                        floor=floor,
                        ceiling=1.0,
                        variant="one-shot",
                    )
                )
        return curves

    def truth(self, posterior: FloatArray, prior: FloatArray) -> float:
        """E[sum p²]."""
        return float((posterior**2).sum(axis=1).mean())
