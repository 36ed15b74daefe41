"""Carry out a plan: units → records → curves → rows. A failure is a row, and the other cells go on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from benchsuite.bench import Bench, check_fit
from benchsuite.blocks import Blocks, StoredBlocks
from benchsuite.contracts import Curve, Dataset, ExactModel, Factor, Metric, ProtocolOptions, Record
from benchsuite.errors import BenchsuiteError, MissingDataError, NotApplicableError
from benchsuite.own_data import OwnData
from benchsuite.plan import Plan, Unit
from benchsuite.provenance import class_identity
from benchsuite.store import Store, key_of

#: what a plugin may throw without stopping the others
FAULTS = (Exception, SystemExit)
#: forward passes of a protocol whose duration is worth an estimate, and seconds worth telling
MANY, LONG = 100_000, 1800.0
#: packages that are installed under another name than they are imported by
PIP_NAMES = {"sklearn": "scikit-learn", "PIL": "pillow", "cv2": "opencv-python", "skimage": "scikit-image"}


class Reporter:
    """What a run tells its audience; this one keeps quiet."""

    def start(self, unit: Unit, dataset: str) -> None:
        """A unit begins."""

    def protocol(self, name: str, passes: int, stored: bool) -> Callable[[int], None]:
        """A protocol of so many forward passes begins (or is found in the store); returns a row counter."""
        return lambda rows: None

    def long(self, name: str, passes: int, seconds: float, block: int) -> None:
        """A protocol of so many forward passes is going to take hours; U-turns are kept per `block` of items."""

    def finish(self, outcome: Outcome) -> None:
        """A unit is done."""


@dataclass
class Fault:
    """Why a cell has no value."""

    status: str
    stage: str
    reason: str


@dataclass
class Outcome:
    """What became of one unit."""

    unit: Unit
    dataset: str  #: data set spec, or "own data"
    factors: tuple[Factor, ...] = ()
    entropy: dict[str, float] = field(default_factory=dict)
    curves: dict[str, list[Curve]] = field(default_factory=dict)  #: by metric name
    faults: dict[str, Fault] = field(default_factory=dict)  #: by metric name
    facts: dict[str, Any] = field(default_factory=dict)  #: JSON-able, the same for all rows of the unit
    native_time: Callable[[Any], Any] = lambda log_snr: None
    passes: dict[str, int] = field(default_factory=dict)  #: forward passes by protocol
    stored_seconds: float = 0.0  #: what the records found in the store once took


def run(plan: Plan, store: Store | None, device: str, reporter: Reporter | None = None) -> list[Outcome]:
    """Run every unit of the plan.

    Args:
        store: where records and curves are kept; None keeps nothing.
        device: torch device string.
    """
    reporter = reporter or Reporter()
    runner = _Runner(plan, store, device, reporter)
    outcomes = []
    for unit in plan.units:
        reporter.start(unit, unit.dataset or "own data")
        outcome = runner.unit(unit)
        reporter.finish(outcome)
        outcomes.append(outcome)
    return outcomes


def count_passes(plan: Plan, device: str) -> list[tuple[Unit, dict[str, int] | Fault]]:
    """Forward passes of every unit by protocol, or why it cannot run. Loads models and data, runs nothing."""
    runner = _Runner(plan, None, device, Reporter())
    counted: list[tuple[Unit, dict[str, int] | Fault]] = []
    for unit in plan.units:
        try:
            bench = runner.prepare(unit, Outcome(unit, unit.dataset))
            passes = {name: bench.count(need) for name, need in plan.needs_of(unit).items() if bench.can(need)}
        except _Stopped as stopped:
            counted.append((unit, stopped.fault))
        except FAULTS as error:
            counted.append((unit, fault_of(error, "count")))
        else:
            counted.append((unit, passes))
    return counted


class _Stopped(Exception):
    def __init__(self, fault: Fault) -> None:
        self.fault = fault


class _Runner:
    def __init__(self, plan: Plan, store: Store | None, device: str, reporter: Reporter) -> None:
        self.plan, self.store, self.device, self.reporter = plan, store, device, reporter
        self._datasets: dict[str, Dataset | BaseException] = {}

    def unit(self, unit: Unit) -> Outcome:
        """One unit, whatever happens to it."""
        outcome = Outcome(unit, unit.dataset or "own data")
        try:
            with torch.no_grad():
                bench = self.prepare(unit, outcome)
                needs = self.plan.needs_of(unit)
                records = {name: self._record(bench, need, outcome) for name, need in needs.items()}
        except _Stopped as stopped:
            outcome.faults = {metric.name: stopped.fault for metric in self.plan.metrics_of(unit)}
            return outcome
        for metric in self.plan.metrics_of(unit):
            broken = [records[n.protocol] for n in metric.needs if isinstance(records[n.protocol], Fault)]
            if broken:
                fault = broken[0]
                assert isinstance(fault, Fault)
                outcome.faults[metric.name] = fault
                continue
            try:
                outcome.curves[metric.name] = self._score(metric, records)
            except FAULTS as error:
                outcome.faults[metric.name] = fault_of(error, "score")
        return outcome

    def prepare(self, unit: Unit, outcome: Outcome) -> Bench:
        """Load data set and model and check that they fit.

        Raises:
            _Stopped: with the fault.
        """
        settings = self.plan.settings_of(unit)
        stage = "model"
        try:
            model = unit.make_model()
            if unit.dataset:
                stage = "data"
                dataset = self._dataset(unit.dataset)
                stage = "model"
                codec = None
                if unit.make_codec is not None:
                    codec = unit.make_codec()
                    codec.bind(dataset)
                    codec.load(self.device, settings.dtype)
                model.bind(dataset, codec)
                model.load(self.device, settings.dtype)
            else:
                model.load(self.device, settings.dtype)
                assert isinstance(model, ExactModel)
                quarter = max(settings.probe_items // 4, 1)
                sizes = {"train": settings.probe_items, "val": quarter, "test": settings.items}
                dataset = OwnData(model, sizes, settings.seed)
                dataset.load()
            outcome.factors = dataset.factors
            stage = "fit"
            check_fit(model, dataset)
            bench = Bench.build(model, dataset, unit, settings, self.device)
            outcome.entropy, outcome.native_time = bench.entropy, model.native_time
            model.native_time(np.array([0.0]))  # a clock that fails should fail here, where it becomes a row
            outcome.facts = bench.facts()
        except FAULTS as error:
            fault = fault_of(error, stage)
            if unit.optional and isinstance(error, MissingDataError):
                fault.status = "not_applicable"
            raise _Stopped(fault) from error
        return bench

    def _dataset(self, spec: str) -> Dataset:
        if spec not in self._datasets:
            try:
                dataset = self.plan.datasets[spec]()
                dataset.load()
                self._datasets[spec] = dataset
            except FAULTS as error:
                self._datasets[spec] = error  # it is no better for the next model
        found = self._datasets[spec]
        if isinstance(found, BaseException):
            raise found
        return found

    def _record(self, bench: Bench, need: ProtocolOptions, outcome: Outcome) -> Record | Fault:
        try:
            if lacking := bench.lacks(need):
                raise NotApplicableError(lacking)
            passes = bench.count(need)
            origin = bench.origin(need)
            key = key_of(origin)
            stored = self.store.record(key) if self.store else None
            advance = self.reporter.protocol(need.protocol, passes, stored is not None)
            blocks = StoredBlocks(self.store, origin, bench.settings.block) if self.store else Blocks()
            if stored is None and passes >= MANY and (seconds := passes * bench.seconds_per_pass()) >= LONG:
                self.reporter.long(need.protocol, passes, seconds, bench.settings.block)
            record = stored or bench.run(need, advance, blocks)
            if stored is None and self.store:
                self.store.put_record(key, record, origin)
                blocks.discard()
        except FAULTS as error:
            return fault_of(error, need.protocol)
        outcome.passes[need.protocol] = record.meta["forward_passes"]
        outcome.stored_seconds += record.meta["seconds"] if stored is not None else blocks.seconds
        record.meta["key"] = key
        for array in record.arrays.values():
            array.flags.writeable = False  # metrics only read
        return record

    def _score(self, metric: Metric, records: Mapping[str, Any]) -> list[Curve]:
        needed = {need.protocol: records[need.protocol] for need in metric.needs}
        origin = {
            "op": "score",
            "metric": metric.name,
            "options": _options(metric),
            "code": class_identity(type(metric)),
            "records": {name: record.meta["key"] for name, record in needed.items()},
        }
        key = key_of(origin)
        curves = self.store.curves(key) if self.store else None
        if curves is None:
            curves = metric.compute(needed)
            check_curves(metric, curves)
            if self.store:
                self.store.put_curves(key, curves, origin)
        return curves


def fault_of(error: BaseException, stage: str) -> Fault:
    """Status, stage and one-line reason of an exception."""
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, NotApplicableError):
        return Fault("not_applicable", stage, reason)
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        return Fault("not_installed", stage, f"{reason}; try: pip install {PIP_NAMES.get(package, package)}")
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return Fault("oom", stage, reason)
    if not isinstance(error, BenchsuiteError):
        reason = f"{type(error).__name__}: {reason}"
    return Fault("failed", stage, reason)


def check_curves(metric: Metric, curves: list[Curve]) -> None:
    """Refuse curves that cannot be summarised, while it is still known whose they are.

    Raises:
        BenchsuiteError: naming the metric and the values.
    """
    seen = set()
    for curve in curves:
        what = f"{metric.name} returned for {curve.factor!r} ({curve.variant or 'published'})"
        if (curve.factor, curve.variant) in seen:
            raise BenchsuiteError(f"{what} more than one curve")
        seen.add((curve.factor, curve.variant))
        levels, rows = np.shape(curve.log_snr), np.shape(curve.per_item)
        if len(levels) != 1 or levels[0] < 2 or not (np.diff(curve.log_snr) > 0).all():
            raise BenchsuiteError(f"{what} log_snr {levels} that is not two or more ascending levels")
        if rows != (len(curve.items), *levels) or not curve.items:
            raise BenchsuiteError(f"{what} per_item {rows} for {len(curve.items)} items and {levels[0]} levels")
        try:
            json.dumps(dict(curve.extra))
        except TypeError as error:
            raise BenchsuiteError(f"{what} extra facts that are not JSON: {error}") from None


def _options(metric: Metric) -> dict[str, Any]:
    """What a metric was built with; objects without a value of their own count as ever different."""
    return {k: v if isinstance(v, str | int | float | bool | None) else repr(v) for k, v in vars(metric).items()}
