"""Outcomes → the results document: summaries, oracle gaps, ranks, provenance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from benchsuite import consistency, route_agreement
from benchsuite.calibration_files import known_sampler_bias, known_verdicts
from benchsuite.contracts import Curve, FloatArray, Metric
from benchsuite.emergence import emergence
from benchsuite.plan import Plan
from benchsuite.results import SCHEMA_VERSION
from benchsuite.runner import Fault, Outcome
from benchsuite.statistics import Estimate, Summary, area_between, difference, rank_with_ties, summarise
from benchsuite.store import key_of

#: (label, split, dataset, factor, metric)
Cell = tuple[str, str, str, str, str]


def assemble(
    plan: Plan, outcomes: Sequence[Outcome], provenance: dict[str, Any], *folders: Path
) -> dict[str, Any]:
    """The results document, as in `benchsuite.results`; `folders` may hold the user's calibrations."""
    summaries: dict[Cell, tuple[Curve, Summary]] = {}
    for outcome in outcomes:
        for name, curves in outcome.curves.items():
            for curve in curves:
                if not curve.variant:
                    summaries[_cell(outcome, curve.factor, name)] = (curve, _summary(plan, curve))
    gaps: dict[Cell, Estimate] = {}
    verdicts = known_verdicts(plan.metrics, *folders)
    rows, checks = [], []
    for outcome in outcomes:
        flags, found = _consistency(plan, outcome, summaries)
        checks += found
        for metric in plan.metrics_of(outcome.unit):
            for factor in _factors(outcome, metric):
                row = _row(plan, outcome, metric, factor, summaries, gaps, folders)
                rows.append(row | {"flags": [*row["flags"], *flags.get((metric.name, factor), ())]})
    return {
        "schema_version": SCHEMA_VERSION,
        "provenance": provenance,
        "settings": _plain(plan.settings) | _own_settings(plan),
        "rows": rows,
        "ranking": _ranking(plan, outcomes, gaps, verdicts),
        "emergence": [entry for outcome in outcomes for entry in _emergence(plan, outcome, summaries)],
        "consistency": checks,
        "calibration": {metric.name: verdicts.get(metric.name) for metric in plan.metrics},
    }


def _own_settings(plan: Plan) -> dict[str, Any]:
    """{"units": {label: the protocols that run otherwise}}, if any do."""
    own: dict[str, Any] = {}
    for unit in plan.units:
        changed = {
            f.name: _plain(getattr(unit.settings, f.name))
            for f in fields(plan.settings)
            if unit.settings and getattr(unit.settings, f.name) != getattr(plan.settings, f.name)
        }
        if changed:
            own[unit.label] = changed
    return {"units": own} if own else {}


def _row(
    plan: Plan,
    outcome: Outcome,
    metric: Metric,
    factor: str,
    summaries: dict[Cell, tuple[Curve, Summary]],
    gaps: dict[Cell, Estimate],
    folders: Sequence[Path],
) -> dict[str, Any]:
    unit = outcome.unit
    cell = _cell(outcome, factor, metric.name)
    row: dict[str, Any] = {
        "cell_id": key_of({"cell": cell}),
        "model": unit.spec,
        "label": unit.label,
        "family": unit.cls.family,
        "paper": unit.cls.paper,
        "oracle": unit.oracle,
        "space": unit.space,
        "reference": unit.reference,
        "reference_split": _reference_split(outcome) if unit.reference else None,
        "dataset": outcome.dataset,
        "split": unit.split,
        "metric": metric.name,
        "metric_version": metric.version,
        "metric_paper": metric.paper,
        "unit": metric.unit,
        "lower_bound": metric.lower_bound,
        "factor": factor,
        "n_items": None,
        "draws": None,
        "entropy": outcome.entropy.get(factor),
        "scalars": {"log_snr_50": None, "width": None, "gap": None, "area": None},
        "scalar_notes": {},
        "flags": [],
        "curves": [],
        "readout_accuracy": None,
        "forward_passes": None,
        "extra": {},
    }
    facts = {name: value for name, value in outcome.facts.items() if value is not None}
    row |= {
        key: facts.pop(key, row.get(key, "")) for key in ("model_fingerprint", "dataset_fingerprint", "n_items")
    }
    row["readout_accuracy"] = facts.pop("readout_accuracy", None)
    row["extra"] = facts
    fault = outcome.faults.get(metric.name)
    if cell not in summaries and fault is None:
        fault = Fault("not_applicable", "score", f"{metric.name} says nothing about {factor or 'this data set'}")
    if fault is not None:
        return row | {"status": fault.status, "stage": fault.stage, "reason": fault.reason}
    curve, summary = summaries[cell]
    scalars = {"log_snr_50": summary.log_snr_50, "width": summary.width} if metric.onset else {}
    reference = _reference(outcome, factor, metric.name, summaries)
    if reference is not None:
        oracle_curve, oracle = reference
        if metric.onset:
            scalars["gap"] = gaps[cell] = difference(summary.log_snr_50, oracle.log_snr_50)
        if metric.onset or metric.excess:
            scalars["area"] = area_between(
                summary, oracle, curve.log_snr, oracle_curve.log_snr, signed=metric.excess
            )
    row["scalars"] |= {name: _estimate(value) for name, value in scalars.items()}
    row["scalar_notes"] = {name: value.note for name, value in scalars.items() if value.note}
    passes = {need.protocol: outcome.passes[need.protocol] for need in metric.needs}
    mine = [c for c in outcome.curves[metric.name] if c.factor == factor]
    row |= {
        "status": "ok",
        "stage": "",
        "reason": "",
        "n_items": summary.n_items,
        "draws": len(curve.items) // summary.n_items,
        "flags": [f"{c.variant}: {flag}" if c.variant else flag for c in mine for flag in c.flags],
        "curves": [_curve(plan, outcome, c, summary if c is curve else None, metric.onset) for c in mine],
        "forward_passes": sum(passes.values()),
        "extra": facts | _plain(dict(curve.extra)) | _sampling(plan, curve, folders),
    }
    return row


def _sampling(plan: Plan, curve: Curve, folders: Sequence[Path]) -> dict[str, Any]:
    """The measured bias of the sampler behind a curve, if it says which and somebody measured it."""
    if "method" not in curve.extra:
        return {}
    bias = known_sampler_bias(plan.metrics, curve.extra["method"], curve.extra["spacing"], *folders)
    return {"sampler_bias": bias}


def _curve(plan: Plan, outcome: Outcome, curve: Curve, summary: Summary | None, onset: bool) -> dict[str, Any]:
    summary = summary or _summary(plan, curve)
    clocked = curve.axis == "log_snr"
    native = outcome.native_time(curve.log_snr) if clocked else None
    # what a loss has in place of the row's log_snr_50 and width
    own = {"onset": _estimate(summary.log_snr_50), "width": _estimate(summary.width)}
    return ({} if clocked or not onset else own) | {
        "variant": curve.variant,
        "axis": curve.axis,
        "beside": curve.beside,
        "unit": curve.unit,
        "floor": curve.floor,
        "ceiling": curve.ceiling,
        "tap": curve.tap,
        "log_snr": _numbers(curve.log_snr),
        "value": _numbers(summary.value),
        # a theory has no sampling error
        "low": None if curve.beside is not None else _numbers(summary.low),
        "high": None if curve.beside is not None else _numbers(summary.high),
        "native_time": None if native is None else _numbers(native),
    }


def _consistency(
    plan: Plan, outcome: Outcome, summaries: dict[Cell, tuple[Curve, Summary]]
) -> tuple[dict[tuple[str, str], list[str]], list[dict[str, Any]]]:
    """What the metrics say about each other: flags by (metric, factor), and one entry per check.

    See `benchsuite.consistency` for the identities and `benchsuite.route_agreement` for the flags.
    """
    unit = outcome.unit
    curves = {
        (metric, curve.variant, curve.factor): summaries[_cell(outcome, curve.factor, metric)]
        if not curve.variant
        else (curve, _summary(plan, curve))
        for metric, found in outcome.curves.items()
        for curve in found
        if curve.variant in ("", "agreement", "one-shot")
    }
    ideal = {
        (metric, "", factor): oracle
        for metric, variant, factor in curves
        if not variant and (oracle := _reference(outcome, factor, metric, summaries)) is not None
    }
    bounds = [metric.name for metric in plan.metrics if metric.lower_bound]
    agreements = route_agreement.agreements(curves, outcome.entropy, bounds, ideal)
    flags: dict[tuple[str, str], list[str]] = {}
    for agreement in agreements:
        for metric, said in agreement.flags.items():
            flags.setdefault((metric, agreement.check.factor), []).extend(said)
    entries = []
    for check in [*consistency.check(curves, outcome.entropy), *(agreement.check for agreement in agreements)]:
        estimate = _estimate(check.deviation)
        assert estimate is not None
        entries.append(
            {"label": unit.label, "dataset": outcome.dataset, "split": unit.split, "factor": check.factor}
            | {"check": check.name, "unit": check.unit, **estimate}
            | {"worst": check.worst, "at_log_snr": check.at_log_snr, "failed": list(check.failed)}
        )
    return flags, entries


def _emergence(plan: Plan, outcome: Outcome, summaries: dict[Cell, tuple[Curve, Summary]]) -> list[dict[str, Any]]:
    """The order of the factors by every route, where there are several, against that of the oracle."""
    unit = outcome.unit
    entries: list[dict[str, Any]] = []
    for metric in plan.metrics_of(unit):
        cells = {factor.name: _cell(outcome, factor.name, metric.name) for factor in outcome.factors}
        onsets = {name: summaries[cell][1].log_snr_50 for name, cell in cells.items() if cell in summaries}
        if not metric.onset or len(onsets) < 2:
            continue
        theirs = {name: _reference(outcome, name, metric.name, summaries) for name in onsets}
        known = {name: oracle[1].log_snr_50 for name, oracle in theirs.items() if oracle is not None}
        found = emergence(onsets, known or None, unit.reference or "")
        order = [
            {"factor": place.factor, "tied": place.tied, "log_snr_50": place.log_snr_50.value}
            | _ends(place.log_snr_50)
            for place in found.order
        ]
        entries.append(
            {
                **{"label": unit.label, "dataset": outcome.dataset, "split": unit.split, "metric": metric.name},
                "order": order,
                "tau": _estimate(found.tau) if found.tau else None,
                "compared": found.compared,
                "reference": unit.reference if known else None,
                "left_out": dict(found.left_out),
            }
        )
    return entries


def _ranking(
    plan: Plan,
    outcomes: Sequence[Outcome],
    gaps: dict[Cell, Estimate],
    verdicts: Mapping[str, Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """Ranks per (data set, factor) by the mean |oracle gap| over all routes; complete models only.

    A metric that failed its calibration, or was never calibrated, is no route to rank by.
    """
    ranking = []
    boards: dict[tuple[str, str], list[tuple[str, Estimate, list[str]]]] = {}
    fit = [m.name for m in plan.metrics if m.onset and verdicts.get(m.name, {}).get("passed")]
    ranked = [outcome for outcome in outcomes if not outcome.unit.oracle]
    for outcome in ranked:
        # one board, one set of routes: all that any model of the data set was asked for
        rivals = [other.unit for other in ranked if other.dataset == outcome.dataset]
        asked = {metric.name for unit in rivals for metric in plan.metrics_of(unit)}
        routes = [route for route in fit if route in asked]
        for factor in outcome.factors:
            found = [gaps.get(_cell(outcome, factor.name, route)) for route in routes]
            complete = [gap for gap in found if gap is not None and gap.value is not None]
            if not routes or len(complete) < len(routes):
                continue  # no rank on incomplete rows
            score = Estimate(
                float(np.mean([abs(gap.value) for gap in complete if gap.value is not None])),
                np.mean([np.abs(gap.replicates) for gap in complete], axis=0),
            )
            boards.setdefault((outcome.dataset, factor.name), []).append((outcome.unit.label, score, routes))
    for (dataset, factor_name), entries in boards.items():
        for (label, score, routes), rank in zip(entries, rank_with_ties([e[1] for e in entries]), strict=True):
            estimate = _estimate(score)
            assert estimate is not None
            ranking.append(
                {"dataset": dataset, "factor": factor_name, "label": label, "rank": rank}
                | {"score": estimate["value"], "low": estimate["low"], "high": estimate["high"], "routes": routes}
            )
    return ranking


def _reference(
    outcome: Outcome, factor: str, metric: str, summaries: dict[Cell, tuple[Curve, Summary]]
) -> tuple[Curve, Summary] | None:
    unit = outcome.unit
    if unit.reference is None:
        return None
    return summaries.get((unit.reference, _reference_split(outcome), outcome.dataset, factor, metric))


def _reference_split(outcome: Outcome) -> str:
    """Where the oracle is compared to: a data set that is not enumerated after all has none but its population."""
    return outcome.unit.reference_split if outcome.facts.get("enumerated", True) else "train"


def _factors(outcome: Outcome, metric: Metric) -> list[str]:
    """One cell per factor; one without factor if the metric is about none, or if they never became known."""
    found = [f.name for f in outcome.factors] if metric.per_factor else []
    found += [c.factor for c in outcome.curves.get(metric.name, ()) if c.factor not in found]
    return list(dict.fromkeys(found)) or [""]


def _cell(outcome: Outcome, factor: str, metric: str) -> Cell:
    return (outcome.unit.label, outcome.unit.split, outcome.dataset, factor, metric)


def _summary(plan: Plan, curve: Curve) -> Summary:
    return summarise(curve, replicates=plan.settings.bootstrap, seed=plan.settings.seed)


def _estimate(estimate: Estimate) -> dict[str, float | None] | None:
    if estimate.value is None:
        return None
    return {"value": estimate.value, **_ends(estimate)}


def _ends(estimate: Estimate) -> dict[str, float | None]:
    low, high = estimate.interval() or (None, None)
    return {"low": low, "high": high}


def _numbers(values: FloatArray) -> list[float | None]:
    return [float(v) if math.isfinite(v) else None for v in np.asarray(values, dtype=float)]


def _plain(value: Any) -> Any:
    """Dataclasses, mappings and numpy scalars as JSON-able values."""
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
