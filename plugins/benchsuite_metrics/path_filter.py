"""Path filter: what the model's own conditional heads conclude about a factor while an image is being generated.

A path of the unconditional reverse SDE is a sequence of Gaussian draws under every conditional head, so that the
posterior of a value given the path follows from Bayes' rule step by step: the Kushner–Stratonovich filter of
Franzese et al. (arXiv:2410.03368, with Girsanov's theorem for the likelihoods), the "online optimal Bayes
classifier" of Handke et al. (arXiv:2506.10433). No data, labels or readout are involved.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from benchsuite import Curve, Metric, NotApplicableError, Record, Trajectory
from benchsuite.contracts import FloatArray


class PathFilter(Metric):
    """H - E[H(pi)] in nats against log-SNR, pi the filter of a factor on the model's own paths.

    0 = the heads cannot tell yet, H = the path is decided; tends to I(factor; x) for exact heads as steps become
    short. It says what the heads believe of the model's samples: over-confident heads decide too early, which a
    score on labelled images (mutual information) would notice. Variants: `expected accuracy`, E[max pi];
    `verdict`, H + E[ln pi(the readout's verdict on the finished image)], where there is a readout; and for exact
    models `total variation`, ½ E‖pi - p(. | x)‖₁, what the filter has not learnt.

    Paths and filter take ancestral steps, whose error is proportional to the step: on exact models up to 0.08 nats
    at `trajectory.steps_per_level` 8 (the default, 1/8 log-SNR a step) and 0.04 at 16, where it is calibrated.
    """

    name = "path-filter"
    version = "1"
    paper = "arXiv:2410.03368"
    unit = "nats"
    bounds: ClassVar[tuple[float, float]] = (float("-inf"), float("inf"))
    needs = (Trajectory(conditional=True),)
    tolerance = 0.05

    def compute(self, records: Mapping[str, Record]) -> list[Curve]:
        """A published curve and its variants for every factor that the model can be told."""
        record = records["trajectory"]
        factors = [name.removeprefix("filter/") for name in record.arrays if name.startswith("filter/")]
        if not factors:
            raise NotApplicableError(
                "the model has no conditional head for any factor of this data set; a path filter compares them"
            )
        return [curve for factor in factors for curve in self._factor(record, factor)]

    def truth(self, posterior: FloatArray, prior: FloatArray) -> float:
        """H(factor) - E[H(p)], nats."""
        return float(_entropy(prior) - _entropy(posterior).mean())

    def _factor(self, record: Record, factor: str) -> list[Curve]:
        pi = record[f"filter/{factor}"].astype(np.float64)  # (P, T, K)
        entropy = float(record.meta["entropy"][factor])
        items = tuple(record["items"])
        extra = {name: record.meta[name] for name in ("method", "steps", "spacing")}

        def curve(per_item: FloatArray, variant: str, unit: str, floor: float, ceiling: float) -> Curve:
            return Curve(
                factor=factor,
                log_snr=record["log_snr"],
                per_item=per_item,
                items=items,
                unit=unit,
                floor=floor,
                ceiling=ceiling,
                variant=variant,
                extra=extra,
            )

        # of the prior, where every filter starts
        chance = float(pi[:, 0].mean(axis=0).max())
        curves = [
            curve(entropy - _entropy(pi), "", "nats", 0.0, entropy),
            curve(pi.max(axis=2), "expected accuracy", "probability", chance, 1.0),
        ]
        if f"verdict/{factor}" in record.arrays:
            verdict = record[f"verdict/{factor}"].astype(np.float64)[:, None]
            score = (verdict * np.log(np.maximum(pi, 1e-12))).sum(axis=2)
            curves.append(curve(entropy + score, "verdict", "nats", 0.0, entropy))
        if f"posterior/{factor}" in record.arrays:
            apart = np.abs(pi - record[f"posterior/{factor}"]).sum(axis=2) / 2
            curves.append(curve(apart, "total variation", "probability", 0.0, 1.0))
        return curves


def _entropy(p: FloatArray) -> FloatArray:
    entropy: FloatArray = -(p * np.log(np.where(p > 0, p, 1.0))).sum(axis=-1)
    return entropy
