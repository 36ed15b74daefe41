"""Checks of a metric against the contract of `Metric`."""

from __future__ import annotations

import math
import warnings

import numpy as np

from benchsuite.contracts import Metric
from benchsuite.runner import check_curves
from benchsuite.statistics import cluster_means, summarise
from benchsuite.testing.metric_case import SIGMAS, MetricCase, differences, mean, published
from benchsuite.testing.options import every_option_acts
from benchsuite.testing.records import copied, frozen, reference_records
from benchsuite.testing.results import Checks, Observation, Skip, findings, said, worst
from benchsuite.testing.state import changed_by

CONTRACT = Checks[MetricCase]()


@CONTRACT.add("stated", "name, version, unit, bounds, tolerance and needs are stated")
def _stated(case: MetricCase) -> Observation:
    metric = case.metric
    wrong = [f"no {key}" for key in ("name", "version", "unit") if not isinstance(getattr(metric, key, None), str)]
    wrong += [f"empty {key}" for key in ("name", "version", "unit") if getattr(metric, key, None) == ""]
    bounds = getattr(metric, "bounds", None)
    if not (isinstance(bounds, tuple) and len(bounds) == 2 and bounds[0] < bounds[1]):
        wrong.append(f"bounds = {bounds!r}")
    if not metric.tolerance > 0:
        wrong.append(f"tolerance = {metric.tolerance!r}")
    return findings(wrong + case.undeclared(), "all of them, needs as protocol options")


@CONTRACT.add("needs-declared", "compute reads no record, and no part of one, that it does not declare")
def _needs(case: MetricCase) -> Observation:
    missed = [said(case.outcome)] if isinstance(case.outcome, KeyError) else []
    return findings(missed, f"nothing beyond {', '.join(map(str, case.metric.needs))}")


@CONTRACT.add("computes", "compute returns curves for the reference case")
def _computes(case: MetricCase) -> Observation:
    if isinstance(case.outcome, KeyError):
        raise Skip("see needs-declared")
    if isinstance(case.outcome, Exception):
        raise case.outcome
    return findings([] if case.outcome else ["an empty list"], "curves")


@CONTRACT.add(
    "well-formed", "curves are finite, in the stated unit, one published per factor, and can be summarised"
)
def _well_formed(case: MetricCase) -> Observation:
    if isinstance(case.outcome, Exception):
        raise Skip("compute fails, see computes and needs-declared")
    curves = case.outcome
    check_curves(case.metric, curves)
    wrong = [f"{c.factor} ({c.variant}) is not finite" for c in curves if not np.isfinite(c.per_item).all()]
    wrong += [f"{f} is in {c.unit}" for f, c in published(curves).items() if c.unit != case.metric.unit]
    wrong += [f"{c.factor} has only variants" for c in curves if c.factor not in published(curves)]
    wrong += [f"{c.factor} has floor = ceiling = {c.floor:g}" for c in curves if c.floor == c.ceiling]
    return findings(sorted(set(wrong)), f"finite curves in {case.metric.unit}")


@CONTRACT.add("items-kept", "rows of a curve carry the ids of the record's items, draws of one item the same id")
def _items(case: MetricCase) -> Observation:
    known = {
        str(i)
        for record in case.records.values()
        for key in record.arrays
        if key in ("items", "tap_items") or key.startswith("items/")
        for i in record[key]
    }
    wrong = []
    for curve in case.curves:
        strange = sorted({str(i) for i in curve.items} - known)
        if strange:
            wrong.append(f"{curve.factor} ({curve.variant or 'published'}) has items such as {strange[0]!r}")
    return findings(wrong, "ids of the record")


@CONTRACT.add("inside-bounds", "the published value stays within the metric's bounds")
def _bounds(case: MetricCase) -> Observation:
    low, high = case.metric.bounds
    found = []
    for factor, curve in published(case.curves).items():
        values, items = cluster_means(curve.per_item, curve.items)
        error = SIGMAS * values.std(axis=0, ddof=1) / math.sqrt(len(items)) + 1e-6
        beyond = np.maximum(low - values.mean(axis=0), values.mean(axis=0) - high) - error
        found.append((f"for {factor}", float(beyond.max()), 0.0))
    return worst("beyond the bounds and five standard errors", found)


@CONTRACT.add("interval", "the bootstrap interval holds the value, and has width wherever items differ")
def _interval(case: MetricCase) -> Observation:
    wrong = []
    for factor, curve in published(case.curves).items():
        summary = summarise(curve, replicates=200, seed=0)
        outside = (summary.low > summary.value + 1e-9) | (summary.high < summary.value - 1e-9)
        if outside.any():
            wrong.append(f"{factor} lies outside at log-SNR {curve.log_snr[outside][0]:.1f}")
        if np.ptp(summary.value) > case.metric.tolerance and (summary.high - summary.low).max() < 1e-9:
            wrong.append(f"{factor} has none: every item has the value of the mean")
    return findings(wrong, "low <= value <= high, and low < high somewhere")


@CONTRACT.add("deterministic", "the same records give the same curves")
def _deterministic(case: MetricCase) -> Observation:
    return differences(case.curves, case.again(case.records), 0.0)


@CONTRACT.add("records-unchanged", "records are only read")
def _unchanged(case: MetricCase) -> Observation:
    given, kept = frozen(case.records), copied(case.records)
    try:
        case.again(case.records)
        with warnings.catch_warnings():
            # torch warns of a read-only array that it is handed; writing to it is what matters
            warnings.filterwarnings("ignore", message=".*not writable.*")
            case.metric.compute(given)
    except ValueError as error:
        return findings([said(error)], "no attempt to write")
    wrong = [
        f"{name}[{key!r}] changed"
        for name, record in kept.items()
        for key, array in record.arrays.items()
        if not np.array_equal(array, given[name].arrays.get(key, array[:0]))
    ]
    wrong += [f"meta of {name} changed" for name, record in kept.items() if record.meta != given[name].meta]
    return findings(wrong, "no change")


@CONTRACT.add("no-global-state", "random generators, grad mode and default dtype are left alone")
def _global(case: MetricCase) -> Observation:
    changed = changed_by(lambda: case.again(case.records))
    return findings([f"{name} changed" for name in changed], "no change")


@CONTRACT.add("ignored-option", "every option changes the store's key or the result, or the value is refused")
def _option(case: MetricCase) -> Observation:

    def outcome(metric: Metric) -> tuple[object, ...]:
        curves = metric.compute(reference_records(metric.needs))  # an option may ask for more
        values = [(c.factor, c.variant, mean(c).round(9).tolist()) for c in curves]
        return sorted(vars(metric).items(), key=str), values

    return every_option_acts(type(case.metric), case.options, case.alternatives, outcome)
