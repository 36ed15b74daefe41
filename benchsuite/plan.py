"""From a request to units of work: which model meets which split of which data set, and for which metrics.

Nothing is loaded here. A *unit* is one model on one split; its *cells* are unit × metric × factor, each of which
ends as exactly one row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from benchsuite import specs
from benchsuite.contracts import Dataset, DiffusionModel, Metric, ProtocolOptions
from benchsuite.discovery import Catalog
from benchsuite.errors import UsageError
from benchsuite.request import Group, Request, Settings

D = TypeVar("D")


@dataclass(frozen=True)
class Unit:
    """One model on one split of one data set."""

    label: str  #: how the model is called in the results
    spec: str
    cls: type[DiffusionModel]
    make_model: Callable[[], DiffusionModel]
    dataset: str  #: data set spec, the key of `Plan.datasets`; "" if the model is its own data set
    split: str  #: "test" (what models are measured on), or "train" for an oracle's own population
    oracle: bool = False
    reference: str | None = None  #: label of the oracle that this unit is compared to
    reference_split: str = "train"  #: and the split that it is compared on
    make_codec: Callable[[], DiffusionModel] | None = None  #: whose latents an oracle works in
    space: str = "pixels"
    metrics: tuple[str, ...] | None = None  #: names of the plan's metrics that it is scored with; None = all
    settings: Settings | None = None  #: None = the plan's
    optional: bool = False  #: see `Group`


@dataclass(frozen=True)
class Plan:
    """Units in order, the metrics to score them with, and what those need."""

    units: tuple[Unit, ...]
    metrics: tuple[Metric, ...]
    needs: Mapping[str, ProtocolOptions]  #: protocol name -> united request of all metrics
    datasets: Mapping[str, Callable[[], Dataset]]
    settings: Settings

    def metrics_of(self, unit: Unit) -> tuple[Metric, ...]:
        """What `unit` is scored with."""
        return tuple(metric for metric in self.metrics if unit.metrics is None or metric.name in unit.metrics)

    def settings_of(self, unit: Unit) -> Settings:
        """What the protocols of `unit` run with."""
        return unit.settings or self.settings

    def needs_of(self, unit: Unit) -> dict[str, ProtocolOptions]:
        """What the metrics of `unit` need, by protocol."""
        return unite(self.metrics_of(unit))


def make_plan(request: Request, catalog: Catalog) -> Plan:
    """Resolve names and options.

    Raises:
        UsageError: unknown name or option, one metric with two sets of options, or nothing to do.
    """
    metrics: dict[str, Metric] = {}
    datasets: dict[str, Callable[[], Dataset]] = {}
    units: dict[tuple[str, str, str], Unit] = {}
    for group in request.groups:
        for spec in group.metrics:
            if spec not in metrics:
                metrics[spec] = specs.build(_class(catalog, "metrics", spec), "metric", spec)
        for spec in group.datasets:
            if spec not in datasets:
                datasets[spec] = _factory(_class(catalog, "datasets", spec), "data set", spec)
        scored = tuple(dict.fromkeys(metrics[spec].name for spec in group.metrics))
        for unit in _units(group, catalog, request):
            key = (unit.label, unit.dataset, unit.split)
            known = units.get(key)  # a unit of two groups is measured once
            before = (known.metrics if known else None) or ()
            own = {s for s in (known.settings if known else None, group.settings) if s}
            if len(own) > 1:
                raise UsageError(f"two cells ask for {unit.label} with different settings")
            scored_with = tuple(dict.fromkeys(before + scored))
            optional = group.optional and (known is None or known.optional)
            settings = own.pop() if own else None
            units[key] = replace(unit, metrics=scored_with, settings=settings, optional=optional)
    for name in (names := [metric.name for metric in metrics.values()]):
        if names.count(name) > 1:
            raise UsageError(f"metric {name!r} is asked for twice with different options; run them one by one")
    built = tuple(metrics.values())
    return Plan(tuple(units.values()), built, unite(built), datasets, request.settings)


def _units(group: Group, catalog: Catalog, request: Request) -> list[Unit]:
    """The units of one group, without their metrics."""
    if not group.metrics:
        raise UsageError("no metric asked for; name at least one with --metrics")
    models = [(spec, _class(catalog, "models", spec)) for spec in _distinct(group.models)]
    if not models:
        raise UsageError(f"no model asked for; name at least one with --models{request.hint('models')}")
    oracles = [cls for cls in catalog.models.values() if cls.oracle and request.settings.oracle]
    units: list[Unit] = []
    for spec, cls in models:
        if cls.own_data:
            units.append(Unit(spec, spec, cls, _factory(cls, "model", spec), "", "test", oracle=True))
    on_data = [(spec, cls) for spec, cls in models if not cls.own_data]
    if on_data and not group.datasets:
        hint = request.hint("datasets")
        raise UsageError(f"model {on_data[0][0]!r} needs a data set; name one with --datasets{hint}")
    scored = [_class(catalog, "metrics", spec) for spec in group.metrics]
    compared = any(metric.onset or metric.excess for metric in scored)
    for dataset in _distinct(group.datasets):
        enumerated = _class(catalog, "datasets", dataset).enumerated
        units += _units_on(dataset, on_data, oracles, enumerated, compared)
    return units


def unite(metrics: Sequence[Metric]) -> dict[str, ProtocolOptions]:
    """The union of what metrics need, by protocol."""
    needs: dict[str, ProtocolOptions] = {}
    for metric in metrics:
        for need in metric.needs:
            known = needs.get(need.protocol)
            needs[need.protocol] = need if known is None else known.union(need)
    return needs


def _units_on(
    dataset: str,
    models: Sequence[tuple[str, type[DiffusionModel]]],
    oracles: Sequence[type[DiffusionModel]],
    enumerated: bool,
    compared: bool,
) -> list[Unit]:
    """Trained models on held-out items, and every oracle they need on its population and on held-out items.

    The items of an enumerated data set are all in the population: the oracle is the truth on them too. Models are
    compared to it there, item by item, which spares the gap the luck of the items.
    """
    paired = enumerated and compared
    asked = dict(models)
    references: dict[str, Unit] = {}
    trained = []
    for spec, cls in models:
        if cls.oracle:
            continue
        make = _factory(cls, "model", spec)
        space = f"latents of {spec}" if cls.space == "latents" else "pixels"
        reference = None
        for oracle in oracles[:1]:
            codec = make if cls.space == "latents" else None
            reference = oracle.name if codec is None else f"{oracle.name} [{spec}]"
            references.setdefault(reference, _oracle_unit(reference, oracle, dataset, codec, space))
        unit = Unit(spec, spec, cls, make, dataset, "test", reference=reference, space=space)
        trained.append(replace(unit, reference_split="test" if paired else "train"))
    for spec, cls in asked.items():
        if cls.oracle:
            references.setdefault(spec, replace(_oracle_unit(spec, cls, dataset, None, "pixels"), spec=spec))
    populations = sorted(references.values(), key=lambda unit: unit.space != "pixels")
    pixels = [unit for unit in populations if unit.make_codec is None]
    if paired:
        compared_to = {unit.reference for unit in trained}
        beside = [unit for unit in populations if unit.label in compared_to]
        populations = pixels  # a latent oracle only serves as a reference
    else:
        beside = [] if enumerated else pixels  # images outside the population are shown once
    return [*populations, *(replace(unit, split="test") for unit in beside), *trained]


def _oracle_unit(
    label: str,
    cls: type[DiffusionModel],
    dataset: str,
    codec: Callable[[], DiffusionModel] | None,
    space: str,
) -> Unit:
    spec = label if codec is None else cls.name
    make = _factory(cls, "model", spec)
    return Unit(label, spec, cls, make, dataset, "train", oracle=True, make_codec=codec, space=space)


def _class(catalog: Catalog, kind: str, spec: str) -> type[Any]:
    return catalog.get(kind, specs.split_spec(spec)[0])


def _factory(cls: type[D], kind: str, spec: str) -> Callable[[], D]:
    """A constructor call with the spec's options, which are checked now and built later."""
    specs.parse_options(cls, kind, *specs.split_spec(spec))
    return lambda: specs.build(cls, kind, spec)


def _distinct(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(names))
