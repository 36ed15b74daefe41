"""Checks of what a metric says: invariances, controls in which there is nothing to find, and a known truth."""

from __future__ import annotations

import math

import numpy as np

from benchsuite.statistics import cluster_means
from benchsuite.testing.controls import constant, shuffled, with_trap
from benchsuite.testing.metric_case import MetricCase, differences, found_nothing, published
from benchsuite.testing.records import between, halved, relabelled, reordered
from benchsuite.testing.results import Checks, Observation, Skip, at_most, worst

#: below this level little is known of the reference case's class: 0.1 nats of 1.4
START = -2.0

SCIENCE = Checks[MetricCase]()


@SCIENCE.add("item-order", "the order of the items makes no difference")
def _order(case: MetricCase) -> Observation:
    return differences(case.curves, case.again(reordered(case.records, 1)), case.metric.tolerance / 10)


@SCIENCE.add("relabelling", "which value has which number makes no difference")
def _relabelling(case: MetricCase) -> Observation:
    return differences(case.curves, case.again(relabelled(case.records, 2)), case.metric.tolerance / 10)


@SCIENCE.add("ceiling-fixed", "floor and ceiling do not depend on how far the measured curve rises")
def _ceiling(case: MetricCase) -> Observation:
    """Levels at which little is decided yet; an estimator's own maximum there is not H."""
    part = {(c.factor, c.variant): c for c in case.again(between(case.records, -math.inf, START + 1.0))}
    found = []
    for curve in case.curves:
        other = part.get((curve.factor, curve.variant))
        if other is not None:
            gap = max(abs(curve.floor - other.floor), abs(curve.ceiling - other.ceiling))
            found.append((f"of {curve.factor} ({curve.variant or 'published'})", gap, 1e-6))
    return worst("change", found)


@SCIENCE.add("grid-start", "a grid that starts higher gives the same values: what lies below it is accounted for")
def _grid_start(case: MetricCase) -> Observation:
    part = case.again(between(case.records, START, math.inf))
    return differences(part, case.curves, case.metric.tolerance)


# ----------------------------------------------------------------------------------- controls


@SCIENCE.add("control-dummy", "nothing is found about a factor that is independent of the image")
def _dummy(case: MetricCase) -> Observation:
    if "dummy" not in published(case.curves):
        raise Skip("the metric says nothing about the dummy factor")
    return found_nothing([published(case.curves)["dummy"]], case.metric.tolerance)


@SCIENCE.add("control-shuffled", "nothing is found if labels are dealt out at random")
def _shuffled(case: MetricCase) -> Observation:
    if not case.metric.per_factor:
        raise Skip("the metric is about no factor")
    if all(record.protocol == "trajectory" for record in case.records.values()):
        raise Skip("the metric reads generated paths, which carry no labels")
    curves = case.again(shuffled(case.records, 3))
    return found_nothing(published(curves).values(), case.metric.tolerance)


@SCIENCE.add(
    "ties-share-credit", "a tie between m values counts 1 / m: without information curves are at their floor"
)
def _ties(case: MetricCase) -> Observation:
    if not case.metric.per_factor:
        raise Skip("the metric is about no factor")
    records = constant(case.records)
    if set(records) != {need.protocol for need in case.metric.needs}:
        raise Skip("the metric does not read activations or verdicts")
    return found_nothing(case.again(records), 0.01)


@SCIENCE.add("test-split-unread", "nothing is fitted or chosen on the test items")
def _test_split(case: MetricCase) -> Observation:
    records = with_trap(case.records, True, 4)
    if not any("tap_role" in record.arrays for record in records.values()):
        raise Skip("the metric does not read activations")
    sprung = case.again(records)
    untouched = case.again(with_trap(case.records, False, 4))
    choice = differences(sprung, untouched, 1e-4, "choice by the test items: difference")
    if not choice.ok:
        return choice
    found = []
    part = published(case.again(halved(records)))
    for factor, curve in published(sprung).items():
        values, items = cluster_means(curve.per_item, curve.items)
        others, kept = cluster_means(part[factor].per_item, part[factor].items)
        rows = [items.index(i) for i in kept]
        found.append((f"for {factor}", float(np.abs(values[rows] - others).max()), 1e-4))
    return worst("difference of an item when others are left out,", found)


# -------------------------------------------------------------------------------- calibration


@SCIENCE.add("calibrated", "the mean over seeds is within the stated tolerance of the truth")
def _calibrated(case: MetricCase) -> Observation:
    verdict = case.verdict
    return at_most(f"bias beyond two standard errors ({verdict.unit})", verdict.bias, verdict.tolerance)
