"""Sample validity: whether what a model generates from pure noise has a clear value of every factor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from benchsuite import Curve, Metric, NotApplicableError, Record, Trajectory, UsageError
from benchsuite.contracts import FloatArray


class SampleValidity(Metric):
    """Fraction of images that the judge is sure about on every factor, along paths from the model's prior.

    An image is valid if the judge's largest probability is at least `confidence` for every factor it judges. The
    curve is that of the denoised image D(x) at each level of the path; ``extra["samples"]`` is the fraction of
    valid samples at the end of the paths, with its 95 % Wilson interval, beside the fraction per factor and the
    total variation between the values' frequencies in the samples and in the data (and what sampling alone would
    make of it).

    Args:
        confidence: in (0.5, 1].

    Raises:
        UsageError: another confidence.
    """

    name = "sample-validity"
    version = "1"
    unit = "fraction of images"
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    needs = (Trajectory(),)
    onset = False
    per_factor = False

    def __init__(self, confidence: float = 0.9) -> None:
        if not 0.5 < confidence <= 1:
            raise UsageError(f"{self.name}: confidence={confidence} is not in (0.5, 1]")
        self.confidence = confidence

    def compute(self, records: Mapping[str, Record]) -> list[Curve]:
        """One curve; its last level is not the sample but the last D(x) recorded.

        Raises:
            NotApplicableError: the data set has no judge.
        """
        record = records["trajectory"]
        factors = [name.removeprefix("sure/") for name in record.arrays if name.startswith("sure/")]
        if not factors:
            raise NotApplicableError("the data set has no readout to judge the samples")
        sure = {factor: record[f"sure_end/{factor}"] >= self.confidence for factor in factors}  # (P,)
        count, paths = int(np.all(list(sure.values()), axis=0).sum()), len(record["items"])
        along = np.all([record[f"sure/{factor}"] >= self.confidence for factor in factors], axis=0)
        return [
            Curve(
                factor="",
                log_snr=record["log_snr"],
                per_item=along.astype(np.float64),
                items=tuple(record["items"]),
                unit=self.unit,
                extra={
                    "samples": count / paths,
                    "samples_interval": wilson(count, paths),
                    "samples_by_factor": {name: float(each.mean()) for name, each in sure.items()},
                    "frequencies_apart": {name: self._apart(record, name) for name in sure},
                    "method": record.meta["method"],
                    "spacing": record.meta["spacing"],
                },
            )
        ]

    @staticmethod
    def _apart(record: Record, factor: str) -> dict[str, Any]:
        """Total variation between frequencies in samples and data, and its mean under sampling alone."""
        verdict = record[f"verdict/{factor}"]
        prior = np.asarray(record.meta["prior"][factor], dtype=np.float64)
        return {
            "total_variation": float(np.abs(verdict.mean(axis=0) - prior).sum() / 2),
            "by_sampling": expected_variation(prior, len(verdict)),
        }


def wilson(count: int, n: int, z: float = 1.959964) -> list[float]:
    """95 % interval of a probability from `count` of `n` (Wilson 1927)."""
    p = count / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return [max(0.0, centre - half), min(1.0, centre + half)]


def expected_variation(prior: FloatArray, n: int) -> float:
    """Mean total variation between `prior` (K,) and frequencies of n draws from it, to leading order in 1/n."""
    return float(np.sqrt(2 * prior * (1 - prior) / (np.pi * n)).sum() / 2)
