"""Fork entropy: how undecided a factor still is at a noise level, from k continuations of one noised item.

Forking experiments of Franzese et al. (arXiv:2410.03368). For a perfect model the entropy of the continuations'
values tends to H(p(factor | x)), so that fork entropy + mutual information = H(factor), and the agreement of two
continuations is class retention.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from benchsuite import Curve, Fork, Metric, NotApplicableError, Record
from benchsuite.contracts import FloatArray


class ForkEntropy(Metric):
    """E[H(factor | x)] in nats against log-SNR; H(factor) = undecided, 0 = decided.

    k continuations cannot show more than ln k nats and the plug-in entropy of k votes is biased low (0.65 nats at
    k = 8 for ten equal values), so the published estimator is that of Chao, Wang & Jost (2013, Methods Ecol.
    Evol. 4:1091), whose bias at k = 16, averaged over posteriors, is below 0.04 nats for up to ten values.
    Variants: `miller-madow`, and `agreement`, the unbiased frequency with which two continuations agree. A
    readout that errs adds its own entropy: its accuracy is stated beside the number.

    Of the oracle of a data set the posterior is known: published is its entropy and `agreement` is E[sum p²].
    Variant `votes` is what k continuations would have shown, beside which stands how far that falls short.

    Args:
        paths: also fork the states of the model's own generative paths: variant `own paths`, which for a perfect
            model is the published curve, and otherwise says what images that are not the model's own change.
    """

    name = "fork-entropy"
    version = "2"
    paper = "arXiv:2410.03368"
    unit = "nats"
    bounds: ClassVar[tuple[float, float]] = (0.0, float("inf"))
    needs = (Fork(),)
    tolerance = 0.05

    def __init__(self, paths: bool = False) -> None:
        self.paths = paths
        self.needs = (Fork(paths=paths),)

    def compute(self, records: Mapping[str, Record]) -> list[Curve]:
        """Published curve and its variants for every factor that the readout judges."""
        record = records["fork"]
        factors = [name.removeprefix("votes/") for name in record.arrays if name.startswith("votes/")]
        if not factors:
            raise NotApplicableError("the data set's readout judges no factor")
        return [curve for factor in factors for curve in self._factor(record, factor)]

    def _factor(self, record: Record, factor: str) -> list[Curve]:
        votes, law = _votes(record, "votes", factor), _law(record, "posterior", factor)
        entropy = float(record.meta["entropy"][factor])
        chance = float((votes[:, 0].sum(axis=0) ** 2).sum() / votes[:, 0].sum() ** 2)
        extra = {name: record.meta[name] for name in ("k", "steps", "method", "spacing")}
        extra |= {"readout_accuracy": record.meta["readout_accuracy"].get(factor)}

        def curve(
            per_item: FloatArray, variant: str, unit: str, floor: float, ceiling: float, items: str = "items"
        ) -> Curve:
            return Curve(
                factor=factor,
                log_snr=record["log_snr"],
                per_item=per_item,
                items=tuple(record[items]),
                unit=unit,
                floor=floor,
                ceiling=ceiling,
                variant=variant,
                extra=extra,
            )

        shown, agreed = chao_wang_jost(votes), pair_agreement(votes)
        curves = [
            curve(shown if law is None else plug_in(law, 1), "", "nats", entropy, 0.0),
            curve(miller_madow(votes), "miller-madow", "nats", entropy, 0.0),
            curve(agreed if law is None else np.square(law).sum(axis=-1), "agreement", "probability", chance, 1.0),
        ]
        if law is not None:
            curves.append(curve(shown, "votes", "nats", entropy, 0.0))
        if self.paths:
            law = _law(record, "own_posterior", factor)
            own = chao_wang_jost(_votes(record, "own", factor)) if law is None else plug_in(law, 1)
            curves.append(curve(own, "own paths", "nats", entropy, 0.0, "own_items"))
        return curves

    def truth(self, posterior: FloatArray, prior: FloatArray) -> float:
        """E[H(p)] over rows of p (N, K), nats."""
        return float(plug_in(posterior, 1).mean())


def _votes(record: Record, name: str, factor: str) -> NDArray[Any]:
    votes: NDArray[Any] = np.rint(record[f"{name}/{factor}"]).astype(np.int64)  # (N, U, K)
    return votes


def _law(record: Record, name: str, factor: str) -> FloatArray | None:
    """The posterior (N, U, K) that votes stand for, if the model states it."""
    found = record.arrays.get(f"{name}/{factor}")
    return None if found is None else found.astype(np.float64)


def plug_in(counts: FloatArray, k: int) -> FloatArray:
    """Entropy of counts / k over the last axis, nats."""
    p = counts / k
    entropy: FloatArray = -(p * np.log(np.where(p > 0, p, 1.0))).sum(axis=-1)
    return entropy


def miller_madow(votes: FloatArray) -> FloatArray:
    """Plug-in entropy + (values seen - 1) / 2k (Miller 1955), votes (..., K) integers."""
    k = int(votes.reshape(-1, votes.shape[-1])[0].sum())
    corrected: FloatArray = plug_in(votes, k) + ((votes > 0).sum(axis=-1) - 1) / (2 * k)
    return corrected


def chao_wang_jost(votes: FloatArray) -> FloatArray:
    """Entropy from the slope of the accumulation curve (Chao, Wang & Jost 2013, eq. 7), votes (..., K).

    The first part estimates sum_{r<k} (1/r) E[p (1 - p)^r] without bias; the rest, what k votes cannot show, is
    extrapolated from the numbers of values seen once (f1) and twice (f2).
    """
    k = int(votes.reshape(-1, votes.shape[-1])[0].sum())
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, k))])  # harmonic[n - 1] = sum_{r<n} 1/r
    seen = np.maximum(votes, 1)
    shown = (votes / k * (harmonic[k - 1] - harmonic[seen - 1])).sum(axis=-1)
    f1, f2 = (votes == 1).sum(axis=-1), (votes == 2).sum(axis=-1)
    once = np.maximum(f1 - 1, 0)
    a = np.where(f2 > 0, 2 * f2 / np.maximum((k - 1) * f1 + 2 * f2, 1), 2 / ((k - 1) * once + 2))
    r = np.arange(1, k)
    partial = ((1 - a)[..., None] ** r / r).sum(axis=-1)
    # a = 1 means that nothing is missing; the guard keeps 0 ** negative out of the unused branch
    rest = f1 / k * np.where(a < 1, 1 - a, 1.0) ** (1 - k) * (-np.log(a) - partial)
    entropy: FloatArray = shown + np.where((f1 > 0) & (a < 1), rest, 0.0)
    return entropy


def pair_agreement(votes: FloatArray) -> FloatArray:
    """Unbiased probability that two different continuations agree: sum n (n - 1) / k (k - 1)."""
    k = votes.sum(axis=-1)
    agreement: FloatArray = (votes * (votes - 1)).sum(axis=-1) / (k * (k - 1))
    return agreement
