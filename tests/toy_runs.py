"""Running plans of toys: metrics that are quick, a model that counts, faults to plant."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from benchsuite_metrics.class_retention import ClassRetention
from benchsuite_metrics.linear_probe import LinearProbe
from benchsuite_metrics.mutual_information import MutualInformation
from toys import ToyData, ToyModel, catalog_of, request

from benchsuite import (
    Curve,
    Metric,
    NoiseSweep,
    Record,
)
from benchsuite.api import carry_out
from benchsuite.plan import Plan, make_plan
from benchsuite.results import parse_results
from benchsuite.runner import Reporter
from benchsuite.store import Store

Row = dict[str, Any]


class TapMean(Metric):
    """Stands in for the probe, which needs the same taps but half a second of fitting."""

    name = "tap-mean"
    unit = "1"
    bounds = (0.0, 1.0)
    needs = (NoiseSweep(taps=True),)

    def compute(self, records: Mapping[str, Record]) -> list[Curve]:
        record = records["noise_sweep"]
        test = record["tap_role"] == "test"
        values = record["tap/mid"][:, test].mean(axis=2).T.astype(float)
        return [Curve("class", record["tap_log_snr"], values, tuple(record["tap_items"][test]), "1")]


ROUTES = ("mutual-information", "class-retention", "tap-mean")
METRICS = (MutualInformation, ClassRetention, LinearProbe, TapMean)


class Counted(ToyModel):
    """Counts the rows that any instance was ever asked for."""

    name = "counted"
    asked: ClassVar[int] = 0

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, labels: torch.Tensor | None = None) -> torch.Tensor:
        type(self).asked += len(x)
        return super().denoise(x, sigma, labels)


def plan_of(
    *classes: type[Any], models: Any = None, metrics: Any = ROUTES, datasets: Any = None, **changes: Any
) -> Plan:
    """A plan on these model and data set classes and the three routes."""
    catalog = catalog_of(*classes, *METRICS, *([] if datasets else [ToyData]))
    return make_plan(
        request(models or list(catalog.models), datasets or ["toy-data"], metrics, **changes), catalog
    )


def document(plan: Plan, store: Store | None = None, reporter: Reporter | None = None) -> dict[str, Any]:
    """Run a plan; the document must be strict JSON and readable by whoever reads results."""
    found, _ = carry_out(plan, catalog_of(), "cpu", store, reporter)
    parse_results(json.loads(json.dumps(found, allow_nan=False)))
    return found


def rows_of(found: Mapping[str, Any], label: str) -> list[Row]:
    return [row for row in found["rows"] if row["label"] == label]


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*arguments: Any, **options: Any) -> Any:
        raise error

    return fail


def ranged(low: float, high: float) -> Callable[..., None]:
    def build(self: ToyModel) -> None:
        ToyModel.__init__(self)
        self.sigma_range = (low, high)

    return build
