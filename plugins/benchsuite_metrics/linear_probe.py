"""Linear probe: what a multinomial logistic regression reads off pooled activations.

H - NLL of the probe on held-out items is a lower bound of I(factor; x) in nats, so that the probe shares an axis
with mutual information; accuracy is kept beside it (Alain & Bengio 2016, arXiv:1610.01644; along the noise axis:
Franzese et al., arXiv:2410.03368).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from benchsuite import Curve, Metric, NoiseSweep, NotApplicableError, Record
from benchsuite.contracts import FloatArray
from benchsuite_metrics import logistic

if TYPE_CHECKING:
    import torch

#: what a probe finds without the network; judged apart from the network's own taps
BASELINES = ("input", "denoised", "log-posterior")
#: descending: each fit starts from the one before it, which is smoother
RIDGES = (1e-1, 1e-2, 1e-3, 1e-4)


@dataclass(frozen=True)
class Probed:
    """Outcome on the test items at every tapped level for one tap, ridge chosen on validation."""

    tap: str
    validation_nll: FloatArray  #: (S,)
    log_p: FloatArray  #: (N_test, S) log-probability of the true label
    correct: FloatArray  #: (N_test, S) 1 where the most probable value is the true one, else 0


class LinearProbe(Metric):
    """H - NLL of the best tap, in nats; at most I(factor; x) for the features at hand; may be negative.

    Features are standardised on the training items; the ridge and, level by level, the tap are chosen on the
    validation items, and only then is the test split read. Variants: `accuracy`, and every tap on its own.

    On an exact model's own population the test labels are replaced by their exact posterior given the noisy
    item (Rao–Blackwell): the same expectations with less noise.
    """

    name = "linear-probe"
    version = "1"
    paper = "arXiv:1610.01644"
    unit = "nats"
    bounds: ClassVar[tuple[float, float]] = (float("-inf"), float("inf"))
    needs = (NoiseSweep(taps=True),)
    tolerance = 0.05
    lower_bound = True

    def compute(self, records: Mapping[str, Record]) -> list[Curve]:
        """Published curve, accuracy, and one diagnostic per tap, for every factor."""
        record = records["noise_sweep"]
        taps = [name.removeprefix("tap/") for name in record.arrays if name.startswith("tap/")]
        if not taps:
            raise NotApplicableError("nothing was tapped: the model offers no activations")
        return [curve for factor in record.meta["factors"] for curve in self._factor(record, factor, taps)]

    def truth(self, posterior: FloatArray, prior: FloatArray) -> float:
        """H(factor) - E[H(p)], nats: what a probe of the log-posterior attains."""
        spread = -(posterior * np.log(np.where(posterior > 0, posterior, 1.0))).sum(axis=1)
        return float(-(prior * np.log(np.where(prior > 0, prior, 1.0))).sum() - spread.mean())

    def _factor(self, record: Record, factor: str, taps: list[str]) -> list[Curve]:
        roles, labels = record["tap_role"], record[f"tap_labels/{factor}"]
        classes = record.factor_size(factor)
        seen = np.unique(labels[roles == "train"])
        if len(seen) < 2:
            raise NotApplicableError(f"the probe's training items carry only one value of {factor!r}")
        entropy = float(record.meta["entropy"][factor])
        truth = _truth(record, factor, labels[roles == "test"], classes)
        found = [probe(record[f"tap/{tap}"], labels, roles, truth, tap) for tap in taps]
        own = [p for p in found if p.tap not in BASELINES]
        candidates = own or found
        best = np.stack([p.validation_nll for p in candidates]).argmin(axis=0)  # (S,)
        levels = np.arange(len(best))
        log_p = np.stack([p.log_p for p in candidates])[best, :, levels].T
        correct = np.stack([p.correct for p in candidates])[best, :, levels].T
        chosen = [candidates[i].tap for i in best]
        log_snr = record["tap_log_snr"]
        items = tuple(record["tap_items"][roles == "test"])

        def curve(per_item: FloatArray, variant: str, tap: str | None) -> Curve:
            accuracy = variant == "accuracy"
            return Curve(
                factor=factor,
                log_snr=log_snr,
                per_item=per_item,
                items=items,
                unit="probability" if accuracy else self.unit,
                floor=_chance(labels[roles == "test"], labels[roles == "train"]) if accuracy else 0.0,
                ceiling=1.0 if accuracy else entropy,
                variant=variant,
                tap=tap,
                extra={"taps": chosen, "probe_items": int((roles == "train").sum())} if not variant else {},
            )

        shared = chosen[0] if len(set(chosen)) == 1 else None
        return [
            curve(entropy + log_p, "", shared),
            curve(correct, "accuracy", shared),
            *(curve(entropy + p.log_p, f"tap {p.tap}", p.tap) for p in found),
        ]


def _truth(record: Record, factor: str, labels: FloatArray, classes: int) -> FloatArray:
    """What the test items' values are at each tapped level: (S, N, K), one-hot or the exact posterior."""
    log_snr = record["tap_log_snr"]
    if record.meta["exact"] and f"posterior/{factor}" in record.arrays:
        levels = np.searchsorted(record["log_snr"], log_snr - 1e-9)
        # rows are draw by draw and taps belong to the first draw
        exact: FloatArray = record[f"posterior/{factor}"][: len(labels), levels].transpose(1, 0, 2)
        return exact
    return np.broadcast_to(np.eye(classes)[labels], (len(log_snr), len(labels), classes))


def probe(features: FloatArray, labels: FloatArray, roles: FloatArray, truth: FloatArray, tap: str) -> Probed:
    """Fit every (level × ridge) on "train", choose the ridge on "val", look at "test".

    Args:
        features: (S, R, D).
        labels: (R,) ints; roles: (R,) "train", "val" or "test".
        truth: (S, N_test, K) distribution of the test items' values.
    """
    import torch

    classes = truth.shape[2]
    x = torch.tensor(features, dtype=torch.float32)  # a copy: records are read-only
    y = torch.tensor(labels, dtype=torch.int64)
    rows = {role: torch.as_tensor(np.flatnonzero(roles == role)) for role in ("train", "val", "test")}
    centre = x[:, rows["train"]].mean(dim=1, keepdim=True)
    spread = x[:, rows["train"]].std(dim=1, keepdim=True)
    # features that do not vary carry nothing: they become 0 rather than noise blown up
    x = torch.where(spread > 1e-6 * spread.amax(dim=2, keepdim=True).clamp_min(1e-12), (x - centre) / spread, 0.0)
    levels = len(x)
    fits: list[logistic.Fit] = []
    for ridge in RIDGES:
        start = fits[-1] if fits else None
        fits.append(
            logistic.fit(x[:, rows["train"]], y[rows["train"]], classes, x.new_full((levels,), ridge), start)
        )

    def log_p(role: str) -> torch.Tensor:
        """(ridges, S, N, K)"""
        return torch.stack([fit.log_probabilities(x[:, rows[role]]) for fit in fits])

    scores = log_p("val").take_along_dim(y[rows["val"]][None, None, :, None], dim=3)[..., 0].mean(dim=2)
    best = scores.argmax(dim=0)
    test = log_p("test")[best, torch.arange(levels)]  # (S, N, K)
    target = torch.tensor(truth, dtype=torch.float32)
    top = test >= test.amax(dim=2, keepdim=True)  # a tie between m values counts 1 / m
    return Probed(
        tap,
        -scores.amax(dim=0).double().numpy(),
        (target * test).sum(dim=2).T.double().numpy(),
        (target * top / top.sum(dim=2, keepdim=True)).sum(dim=2).T.double().numpy(),
    )


def _chance(test: FloatArray, train: FloatArray) -> float:
    """Accuracy of always saying the commonest training value."""
    values, counts = np.unique(train, return_counts=True)
    return float((test == values[counts.argmax()]).mean())
