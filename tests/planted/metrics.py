"""Metrics with one mistake each: what goes wrong with information, retention, votes and probes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from benchsuite_metrics.fork_entropy import ForkEntropy, plug_in

from benchsuite import Curve, Record
from planted import Bug
from planted.healthy_metrics import Array, CentroidProbe, Information, Retention, curve

# ------------------------------------------------------------------------------------ information


class HalfForgotten(Information):
    """The ½ of I-MMSE is left out."""

    def rate(self, record: Record, factor: str) -> Array:
        return 2 * super().rate(record, factor)


class OverLnSigma(Information):
    """Integrates over ln sigma as if it were log-SNR."""

    def integral(self, rate: Array, log_snr: Array) -> Array:
        return super().integral(rate, log_snr / 2)


class FromTheWrongEnd(Information):
    """Integrates from the clean end: time reversed."""

    def integral(self, rate: Array, log_snr: Array) -> Array:
        return super().integral(rate[:, ::-1], log_snr)[:, ::-1]


class ResidualForgotten(Information):
    """Starts at 0 wherever the grid starts."""

    def integral(self, rate: Array, log_snr: Array) -> Array:
        return super().integral(rate, log_snr) - rate[:, :1]


class OwnMaximum(Information):
    """Calls its own largest value "entirely fixed", instead of H."""

    def ceiling(self, information: Array, entropy: float) -> float:
        return float(information.mean(axis=0).max())


class HeadsSwapped(Information):
    """error(conditional) - error(unconditional): the sign of the mse difference."""

    def rate(self, record: Record, factor: str) -> Array:
        return (record[f"error/{factor}"].astype(float) - record["error/unconditional"]) / 2


# -------------------------------------------------------------------------------------- retention


class TiesAreHits(Retention):
    """A hit if the item's value is among the most probable ones, however many share that place."""

    def agreement(self, judged: Array, reference: Array) -> Array:
        return (reference * (judged >= judged.max(axis=2, keepdims=True))).sum(axis=2)


class NextColumn(Retention):
    """Value k of the copy is compared to value k + 1 of the item."""

    def agreement(self, judged: Array, reference: Array) -> Array:
        return (judged * np.roll(reference, 1, axis=2)).sum(axis=2)


class NextItem(Retention):
    """Loops over items 1 … and indexes from 0: every copy is compared to its neighbour's original."""

    def agreement(self, judged: Array, reference: Array) -> Array:
        return (judged * np.roll(reference, 1, axis=0)).sum(axis=2)


class WithItself(Retention):
    """Compares the copy to itself."""

    def agreement(self, judged: Array, reference: Array) -> Array:
        return (judged**2).sum(axis=2)


class BackgroundLeftOut(Retention):
    """Value 0 is the background of somebody's data and does not count."""

    def agreement(self, judged: Array, reference: Array) -> Array:
        return (judged[..., 1:] * reference[..., 1:]).sum(axis=2)


class WeightedByPosition(Retention):
    """A running mean over items that was meant for training steps."""

    def agreement(self, judged: Array, reference: Array) -> Array:
        found = super().agreement(judged, reference)
        weights = np.linspace(0, 2, len(found))[:, None]
        return found * weights


class Percent(Retention):
    """In percent, with the bounds of a probability."""

    def agreement(self, judged: Array, reference: Array) -> Array:
        return 100 * super().agreement(judged, reference)


class DividesByNothing(Retention):
    """0 / 0 where a value never comes back."""

    def agreement(self, judged: Array, reference: Array) -> Array:
        with np.errstate(invalid="ignore"):
            return super().agreement(judged, reference) / (judged[..., :1] > 0.5).any(axis=2) ** 0.5

    def compute(self, records: Mapping[str, Record]) -> list[Curve]:
        with np.errstate(divide="ignore", invalid="ignore"):
            return super().compute(records)


class DrawsAsItems(Retention):
    """Counts every noise draw as an item of its own: intervals come out too narrow."""

    def items(self, record: Record) -> tuple[str, ...]:
        return tuple(f"{item}/{row}" for row, item in enumerate(record["items"]))


class AggregatesFirst(Retention):
    """Gives every item the mean over items: there is nothing left to resample."""

    def agreement(self, judged: Array, reference: Array) -> Array:
        found = super().agreement(judged, reference)
        return np.broadcast_to(found.mean(axis=0), found.shape)


class FloorIsZero(Retention):
    """Forgets that unrelated items agree by chance."""

    def floor(self, judged: Array, reference: Array) -> float:
        return 0.0


class MutatesRecord(Retention):
    """Normalises the verdicts in place, for itself and for whoever comes next."""

    def agreement(self, judged: Array, reference: Array) -> Array:
        judged /= judged.sum(axis=2, keepdims=True)
        return super().agreement(judged, reference)


class GlobalJitter(Retention):
    """Breaks ties with numpy's global generator."""

    def agreement(self, judged: Array, reference: Array) -> Array:
        jitter = 1e-3 * np.random.standard_normal(judged.shape)  # noqa: NPY002 - the mistake
        return super().agreement(judged + jitter, reference)


class SeedsEverybody(Retention):
    """Seeds numpy's global generator: repeatable, and at everybody else's expense."""

    def agreement(self, judged: Array, reference: Array) -> Array:
        np.random.seed(0)  # noqa: NPY002 - the mistake
        return super().agreement(judged, reference)


class ReadsMore(Retention):
    """Looks into a record that it has not asked for."""

    def compute(self, records: Mapping[str, Record]) -> list[Curve]:
        assert len(records["noise_sweep"]["items"])
        return super().compute(records)


class OptionDropped(Retention):
    """Takes a smoothing width and forgets it."""

    def __init__(self, width: int = 1) -> None:
        pass


class NoVersion(Retention):
    """Its number can change without notice."""

    version = ""


class Crashes(Retention):
    """Works for two values only."""

    def agreement(self, judged: Array, reference: Array) -> Array:
        assert judged.shape[2] == 2, f"two values expected, got {judged.shape[2]}"
        return super().agreement(judged, reference)


# ------------------------------------------------------------------------------------ fork entropy


class PlugInVotes(ForkEntropy):
    """The entropy of the votes' frequencies, biased low by (K - 1) / 2k."""

    def compute(self, records: Mapping[str, Record]) -> list[Curve]:
        record, found = records["fork"], []
        for factor in record.meta["factors"]:
            votes = record[f"votes/{factor}"]
            h = record.meta["entropy"][factor]
            found.append(curve(self, record, factor, plug_in(votes, record.meta["k"]), floor=h, ceiling=0.0))
        return found


# ------------------------------------------------------------------------------------------ probe


class ChosenOnTest(CentroidProbe):
    """The best layer is the one that does best on the test items."""

    chosen_on = "test"


class FittedOnTest(CentroidProbe):
    """Test items are among those learned from."""

    fitted_on = ("train", "test")


class AccuracyCountsTies(CentroidProbe):
    """Correct if the true value is among the most probable ones."""

    def hits(self, log_p: Array, labels: Array) -> Array:
        top = log_p >= log_p.max(axis=-1, keepdims=True) - 1e-9
        return np.take_along_axis(top, labels[None, :, None], axis=2)[..., 0].astype(float)


METRIC_BUGS: dict[str, Bug] = {
    cls.__name__: Bug(cls, caught_by, also)
    for cls, caught_by, also in [
        (HalfForgotten, "calibrated", ()),
        (OverLnSigma, "calibrated", ("grid-start",)),
        (FromTheWrongEnd, "calibrated", ()),
        (ResidualForgotten, "grid-start", ()),
        (OwnMaximum, "ceiling-fixed", ("well-formed",)),
        (HeadsSwapped, "inside-bounds", ("calibrated",)),
        (TiesAreHits, "ties-share-credit", ("calibrated", "control-dummy")),
        (NextColumn, "relabelling", ("calibrated",)),
        (NextItem, "calibrated", ("item-order",)),
        (WithItself, "control-shuffled", ("calibrated",)),
        (BackgroundLeftOut, "relabelling", ("calibrated",)),
        (WeightedByPosition, "item-order", ()),
        (Percent, "inside-bounds", ("calibrated", "control-dummy", "control-shuffled", "ties-share-credit")),
        (FloorIsZero, "control-dummy", ("control-shuffled", "ties-share-credit")),
        (DividesByNothing, "well-formed", ()),
        (DrawsAsItems, "items-kept", ()),
        (AggregatesFirst, "interval", ("control-shuffled",)),
        (MutatesRecord, "records-unchanged", ("calibrated",)),
        (GlobalJitter, "deterministic", ("no-global-state",)),
        (SeedsEverybody, "no-global-state", ()),
        (ReadsMore, "needs-declared", ()),
        (OptionDropped, "ignored-option", ()),
        (NoVersion, "stated", ()),
        (Crashes, "computes", ()),
        (PlugInVotes, "calibrated", ("control-shuffled",)),
        (ChosenOnTest, "test-split-unread", ()),
        (FittedOnTest, "test-split-unread", ()),
        (AccuracyCountsTies, "ties-share-credit", ()),
    ]
}
