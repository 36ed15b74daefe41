"""A metric that is being checked, on records of a small case whose truth is known."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from benchsuite import calibration
from benchsuite.contracts import Curve, FloatArray, Metric, ProtocolOptions
from benchsuite.discovery import Catalog
from benchsuite.errors import NotApplicableError
from benchsuite.runner import check_curves
from benchsuite.statistics import cluster_means
from benchsuite.testing.records import SETTINGS, Records, reference_records
from benchsuite.testing.reference import ReferenceMixture
from benchsuite.testing.results import Observation, Skip, findings, worst

#: of every mean that is compared with its standard error: many levels and factors are looked at
SIGMAS = 5.0
#: items and seeds of the small calibration, and its coarser levels
SIZES = {150: 3}
SMALL = replace(
    SETTINGS,
    probe_items=512,
    bootstrap=50,
    sweep=replace(SETTINGS.sweep, draws=1),
    u_turn=replace(SETTINGS.u_turn, every=2.0, steps_per_level=6, draws=1),
    fork=replace(SETTINGS.fork, low=-4.0, items=64),
)
PROTOCOLS = ("noise_sweep", "label_filter", "u_turn", "fork", "trajectory", "population", "channels")


class MetricCase:
    """A metric and what it makes of the reference records."""

    def __init__(self, metric: Metric, options: Mapping[str, Any], alternatives: Mapping[str, Any]) -> None:
        self.metric, self.options, self.alternatives = metric, options, alternatives

    def undeclared(self) -> list[str]:
        """What is wrong with `needs`."""
        needs = getattr(self.metric, "needs", None)
        if not isinstance(needs, tuple) or not needs:
            return [f"needs = {needs!r}"]
        return [f"need {n!r}" for n in needs if not isinstance(n, ProtocolOptions) or n.protocol not in PROTOCOLS]

    @property
    def records(self) -> Records:
        """Fresh copies of the records that the metric declares, and of nothing else.

        Raises:
            Skip: what it declares is no protocol.
        """
        if self.undeclared():
            raise Skip("needs are not declared, see stated")
        return reference_records(self.metric.needs)

    @cached_property
    def outcome(self) -> list[Curve] | Exception:
        """What the metric returns, or throws, for the reference records.

        Raises:
            NotApplicableError: the metric does not apply to them.
        """
        try:
            return self.metric.compute(self.records)
        except (Skip, NotApplicableError):
            raise
        except Exception as error:
            return error

    @cached_property
    def curves(self) -> list[Curve]:
        """Well-formed curves for the reference records.

        Raises:
            Skip: there are none; checks of their own say why.
        """
        if isinstance(self.outcome, Exception):
            raise Skip("compute fails, see computes and needs-declared")
        try:
            check_curves(self.metric, self.outcome)
        except Exception as error:
            raise Skip("curves are malformed, see well-formed") from error
        if not all(np.isfinite(curve.per_item).all() for curve in self.outcome):
            raise Skip("curves are not finite, see well-formed")
        return self.outcome

    def again(self, records: Records) -> list[Curve]:
        """What the metric returns for other records.

        Raises:
            Skip: it has nothing for the reference records to compare with.
        """
        assert self.curves is not None
        return self.metric.compute(records)

    @cached_property
    def verdict(self) -> calibration.Verdict:
        """Judgement of a small calibration on the reference case.

        Raises:
            Skip: the metric states no truth.
        """
        if type(self.metric).truth is Metric.truth:
            raise Skip("the metric states no truth")
        assert self.curves is not None
        catalog = Catalog(models={ReferenceMixture.name: ReferenceMixture})
        found = calibration.calibrate(
            catalog, [self.metric], [ReferenceMixture.name], SIZES, lambda steps, *_: steps, SMALL
        )
        if not found:
            raise Skip("the posterior of the reference case does not determine the metric's truth")
        return calibration.verdicts(found, [self.metric])[0]


def published(curves: Sequence[Curve]) -> dict[str, Curve]:
    """{factor: its published curve}."""
    return {curve.factor: curve for curve in curves if not curve.variant}


def mean(curve: Curve) -> FloatArray:
    """(T,), noise draws of an item counted once."""
    values: FloatArray = cluster_means(curve.per_item, curve.items)[0].mean(axis=0)
    return values


def differences(
    a: Sequence[Curve], b: Sequence[Curve], limit: float, what: str = "difference", low: float = -math.inf
) -> Observation:
    """Compare published curves at the levels that both have."""
    found = []
    theirs = published(b)
    for factor, curve in published(a).items():
        if factor not in theirs:
            return findings([f"no curve for {factor}"], "the same curves")
        shared, i, j = np.intersect1d(curve.log_snr.round(6), theirs[factor].log_snr.round(6), return_indices=True)
        gaps = np.abs(mean(curve)[i] - mean(theirs[factor])[j])
        at = int(gaps.argmax())
        found.append((f"for {factor} at log-SNR {shared[at]:.1f}", float(gaps[at]), limit))
    return worst(what, found)


def found_nothing(curves: Iterable[Curve], tolerance: float) -> Observation:
    """No curve may lie beyond its floor, on the ceiling's side, by more than tolerance and sampling error."""
    found = []
    for curve in curves:
        values, items = cluster_means(curve.per_item, curve.items)
        error = values.std(axis=0, ddof=1) / math.sqrt(len(items))
        side = 1.0 if curve.ceiling >= curve.floor else -1.0
        beyond = side * (values.mean(axis=0) - curve.floor) - SIGMAS * error
        at = int(beyond.argmax())
        where = f"for {curve.factor}{f' ({curve.variant})' if curve.variant else ''}"
        found.append((f"{where} at log-SNR {curve.log_snr[at]:.1f}", float(beyond[at]), tolerance))
    return worst("beyond the floor and five standard errors", found)
