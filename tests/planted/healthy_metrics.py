"""Small correct metrics: information, retention, a probe. The mistakes in `planted.metrics` are made in these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from benchsuite import Curve, Metric, NoiseSweep, Record, UTurn

Array = NDArray[Any]


def curve(metric: Metric, record: Record, factor: str, per_item: Array, **facts: Any) -> Curve:
    facts = {"floor": 0.0, "ceiling": 1.0, "items": tuple(record["items"]), **facts}
    log_snr = facts.pop("log_snr", record["log_snr"])
    return Curve(factor=factor, log_snr=log_snr, per_item=per_item, **{"unit": metric.unit, **facts})


def entropy(p: Array) -> Array:
    return -(p * np.log(np.where(p > 0, p, 1.0))).sum(axis=-1)


class Information(Metric):
    """½ ∫ ‖eps_cond - eps‖² d log_snr, plug-in form."""

    name = "information"
    unit = "nats"
    bounds: ClassVar[tuple[float, float]] = (0.0, float("inf"))
    needs = (NoiseSweep(heads=True),)
    tolerance = 0.03

    def rate(self, record: Record, factor: str) -> Array:
        return record[f"gap/{factor}"].astype(float) / 2

    def integral(self, rate: Array, log_snr: Array) -> Array:
        steps = np.diff(log_snr) * (rate[:, 1:] + rate[:, :-1]) / 2
        return np.concatenate([rate[:, :1], rate[:, :1] + steps.cumsum(axis=1)], axis=1)

    def ceiling(self, information: Array, entropy: float) -> float:
        return entropy

    def compute(self, records: Mapping[str, Record]) -> list[Curve]:
        record, found = records["noise_sweep"], []
        for factor in record.meta["heads"]:
            information = self.integral(self.rate(record, factor), record["log_snr"])
            ceiling = self.ceiling(information, record.meta["entropy"][factor])
            found.append(curve(self, record, factor, information, ceiling=ceiling))
        return found

    def truth(self, posterior: Array, prior: Array) -> float:
        return float(entropy(prior) - entropy(posterior).mean())


class Retention(Metric):
    """Agreement with the item after a U-turn."""

    name = "retention"
    unit = "probability"
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    needs = (UTurn(),)
    tolerance = 0.02

    def agreement(self, judged: Array, reference: Array) -> Array:
        return (judged * reference).sum(axis=2)

    def floor(self, judged: Array, reference: Array) -> float:
        return float(judged[:, 0].mean(axis=0) @ reference[:, 0].mean(axis=0))

    def items(self, record: Record) -> tuple[str, ...]:
        return tuple(record["items"])

    def compute(self, records: Mapping[str, Record]) -> list[Curve]:
        record, found = records["u_turn"], []
        for factor in record.meta["factors"]:
            judged, reference = record[f"judged/{factor}"], record[f"reference/{factor}"]
            facts = {"floor": self.floor(judged, reference), "items": self.items(record)}
            found.append(curve(self, record, factor, self.agreement(judged, reference), **facts))
        return found

    def truth(self, posterior: Array, prior: Array) -> float:
        return float((posterior**2).sum(axis=1).mean())


class CentroidProbe(Metric):
    """H - NLL of Gaussian classes around centroids, tap chosen on validation: exact on Gaussians."""

    name = "centroid-probe"
    unit = "nats"
    bounds: ClassVar[tuple[float, float]] = (float("-inf"), float("inf"))
    needs = (NoiseSweep(taps=True),)
    tolerance = 0.05
    fitted_on: ClassVar[tuple[str, ...]] = ("train",)
    chosen_on: ClassVar[str] = "val"

    def hits(self, log_p: Array, labels: Array) -> Array:
        """1 / m where the true value is among m most probable ones."""
        top = log_p >= log_p.max(axis=-1, keepdims=True) - 1e-9
        return np.take_along_axis(top / top.sum(axis=-1, keepdims=True), labels[None, :, None], axis=2)[..., 0]

    def compute(self, records: Mapping[str, Record]) -> list[Curve]:
        record, found = records["noise_sweep"], []
        roles, test = record["tap_role"], record["tap_role"] == "test"
        for factor in record.meta["factors"]:
            labels, size = record[f"tap_labels/{factor}"], record.factor_size(factor)
            fits = [
                self.log_p(x, labels, np.isin(roles, self.fitted_on), size)
                for name, x in record.arrays.items()
                if name.startswith("tap/") and name != "tap/log-posterior"
            ]  # (taps, S, R, K)
            nll = [-np.take_along_axis(f, labels[None, :, None], axis=2)[..., 0] for f in fits]
            best = np.stack([n[:, roles == self.chosen_on].mean(axis=1) for n in nll]).argmin(axis=0)
            chosen = np.stack([fits[tap][level] for level, tap in enumerate(best)])[:, test]
            right = np.take_along_axis(chosen, labels[None, test, None], axis=2)[..., 0]
            h = record.meta["entropy"][factor]
            facts = {"items": tuple(record["tap_items"][test]), "log_snr": record["tap_log_snr"]}
            chance = np.bincount(labels[test]).max() / test.sum()
            found.append(curve(self, record, factor, (h + right).T, ceiling=h, **facts))
            accuracy = {"variant": "accuracy", "unit": "probability", "floor": chance}
            found.append(curve(self, record, factor, self.hits(chosen, labels[test]).T, **facts, **accuracy))
        return found

    def log_p(self, x: Array, labels: Array, rows: Array, size: int) -> Array:
        """Log-probabilities (S, R, K) from centroids, variance and frequencies of `rows`; x (S, R, D)."""
        x = x.astype(float)
        means = np.stack([x[:, rows & (labels == k)].mean(axis=1) for k in range(size)], axis=1)
        own = means[:, labels[rows]]
        variance = np.square(x[:, rows] - own).mean(axis=(1, 2))[:, None, None] + 1e-12
        square = np.square(x[:, :, None] - means[:, None]).sum(axis=3)
        logits = np.log(np.bincount(labels[rows], minlength=size)) - square / (2 * variance)
        logits -= logits.max(axis=2, keepdims=True)
        return logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))

    def truth(self, posterior: Array, prior: Array) -> float:
        return float(entropy(prior) - entropy(posterior).mean())


HEALTHY_METRICS = (Information, Retention, CentroidProbe)
