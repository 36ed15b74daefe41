"""From a request to units of work: which model meets which split of which data set, and for which metrics.

Nothing is loaded here. A *unit* is one model on one split; its *cells* are unit × metric × factor, each of which
ends as exactly one row.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from benchsuite import specs
from benchsuite.contracts import Dataset, DiffusionModel, Metric, ProtocolOptions
from benchsuite.discovery import Catalog
from benchsuite.errors import UsageError, unknown
from benchsuite.protocols.settings import (
    ChannelSettings,
    FilterSettings,
    ForkSettings,
    SweepSettings,
    TrajectorySettings,
    UTurnSettings,
)

D = TypeVar("D")
DEFAULT_SUITE = "digits"
DTYPES = ("float32", "float64", "float16", "bfloat16")


@dataclass(frozen=True)
class Settings:
    """Everything a run's numbers depend on besides models, data sets and metrics.

    `batch` changes only speed, and `block` only what is lost when a run is killed.
    """

    seed: int = 0
    items: int = 400  #: evaluated items of a split, at most
    #: items of its population that an oracle is evaluated on, at most; all of them leave no sampling of items
    oracle_items: int = 1200
    probe_items: int = 800  #: items a probe is trained on, at most; a quarter as many choose tap and ridge
    oracle: bool = True  #: run the oracle of every data set beside the models, and measure their distance from it
    bootstrap: int = 1000  #: resamples behind every interval
    dtype: str = "float32"
    batch: int = 1024  #: largest number of rows in one forward pass
    block: int = 512  #: items whose U-turns are stored together: what a killed run loses at most
    sweep: SweepSettings = field(default_factory=SweepSettings)
    u_turn: UTurnSettings = field(default_factory=UTurnSettings)
    fork: ForkSettings = field(default_factory=ForkSettings)
    label_filter: FilterSettings = field(default_factory=FilterSettings)
    trajectory: TrajectorySettings = field(default_factory=TrajectorySettings)
    channels: ChannelSettings = field(default_factory=ChannelSettings)

    def __post_init__(self) -> None:
        least_two = ("items", "oracle_items")
        for name in (*least_two, "probe_items", "bootstrap", "batch", "block"):
            least = 2 if name in least_two else 1
            if getattr(self, name) < least:
                raise UsageError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.dtype not in DTYPES:
            raise UsageError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")


@dataclass(frozen=True)
class Group:
    """Specs that belong together: every model meets every data set and is scored with every metric."""

    models: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    settings: Settings | None = None  #: None = those of the request, or of another group that names the same model


@dataclass(frozen=True)
class Request:
    """What the user asked for, as specs: one product of models, data sets and metrics, or a union of several."""

    models: tuple[str, ...]
    datasets: tuple[str, ...]
    metrics: tuple[str, ...]
    settings: Settings = field(default_factory=Settings)
    suite: str | None = None
    cells: tuple[
        Group, ...
    ] = ()  #: if there are any, the plan is their union and the three lists above are not used

    #: what a suite leaves to the user, (list, example) each: weights and images have no place in a suite
    examples: tuple[tuple[str, str], ...] = ()

    def hint(self, key: str) -> str:
        """What the suite says that `key` may be, for messages."""
        found = dict(self.examples).get(key)
        return f"; suite {self.suite} leaves them to you, for example {found}" if found else ""

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups that the plan is the union of."""
        return self.cells or (Group(self.models, self.datasets, self.metrics),)

    def asking_for(
        self, models: Sequence[str] = (), datasets: Sequence[str] = (), metrics: Sequence[str] = ()
    ) -> Request:
        """The same request with the lists that are not empty in place of its own, in every group.

        Settings of a group are meant for the models and data sets that it names, and go with them.
        """
        given = {"models": tuple(models), "datasets": tuple(datasets), "metrics": tuple(metrics)}
        changes: dict[str, Any] = {key: value for key, value in given.items() if value}
        keeps = not (models or datasets)
        cells = dict.fromkeys(
            replace(group, settings=group.settings if keeps else None, **changes) for group in self.cells
        )
        return replace(self, cells=tuple(cells), **changes)

    def with_settings(self, table: Mapping[str, Any], where: str) -> Request:
        """The same request with the settings in `table`, in every group: see `read_settings`."""
        cells = (
            group
            if group.settings is None
            else replace(group, settings=read_settings(group.settings, table, where))
            for group in self.cells
        )
        return replace(self, settings=read_settings(self.settings, table, where), cells=tuple(cells))


@dataclass(frozen=True)
class Unit:
    """One model on one split of one data set."""

    label: str  #: how the model is called in the results
    spec: str
    cls: type[DiffusionModel]
    make_model: Callable[[], DiffusionModel]
    dataset: str  #: data set spec, the key of `Plan.datasets`; "" if the model is its own data set
    split: str  #: "test" (held out), or "train" for an oracle's own population
    oracle: bool = False
    reference: str | None = None  #: label of the oracle that this unit is compared to
    make_codec: Callable[[], DiffusionModel] | None = None  #: whose latents an oracle works in
    space: str = "pixels"
    metrics: tuple[str, ...] | None = None  #: names of the plan's metrics that it is scored with; None = all
    settings: Settings | None = None  #: None = the plan's


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
            units[key] = replace(unit, metrics=scored_with, settings=own.pop() if own else None)
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
    for dataset in _distinct(group.datasets):
        enumerated = _class(catalog, "datasets", dataset).enumerated
        units += _units_on(dataset, on_data, oracles, enumerated)
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
) -> list[Unit]:
    """Trained models on held-out items, and every oracle they need on its population and on held-out items.

    The items of an enumerated data set are all in the population: there an oracle is only run on that.
    """
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
        trained.append(Unit(spec, spec, cls, make, dataset, "test", reference=reference, space=space))
    for spec, cls in asked.items():
        if cls.oracle:
            references.setdefault(spec, replace(_oracle_unit(spec, cls, dataset, None, "pixels"), spec=spec))
    populations = sorted(references.values(), key=lambda unit: unit.space != "pixels")
    # images outside the population are shown once, in pixels; a latent oracle only serves as a reference
    pixels = [unit for unit in populations if unit.make_codec is None and not enumerated]
    held_out = [replace(unit, split="test") for unit in pixels]
    return [*populations, *held_out, *trained]


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


# ----------------------------------------------------------------------------------------- suites

_LISTS = ("models", "datasets", "metrics")


def suite_names() -> list[str]:
    """Names of the suites that ship with the engine."""
    names = (path.name for path in files("benchsuite.suites").iterdir())
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


def load_suite(name: str) -> Request:
    """Read a suite by name, or from a TOML file.

    The file has ``models``, ``datasets`` and ``metrics``, every one of which meets every other; or tables
    ``[[cells]]`` with lists of their own, whose union is run, for models that belong on different data; tables in
    them, such as ``[cells.u_turn]``, change ``[settings]`` for their models. A list may be left to the user, with
    an example of it in ``[examples]``.

    Raises:
        UsageError: no such suite or file, not TOML, or an unknown key.
    """
    path = Path(name)
    if name.endswith(".toml") or path.is_file():
        if not path.is_file():
            raise UsageError(f"no suite file {name}")
        text = path.read_text(encoding="utf-8")
    elif name in suite_names():
        text = (files("benchsuite.suites") / f"{name}.toml").read_text(encoding="utf-8")
    else:
        raise unknown("suite", name, suite_names())
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"suite {name}: not TOML: {error}") from None
    known = {"summary", *_LISTS, "settings", "cells", "examples"}
    for key in table:
        if key not in known:
            raise unknown(f"key of suite {name}:", key, known)
    lists = _read_lists(table, f"suite {name}")
    settings = read_settings(Settings(), table.get("settings", {}), f"suite {name}: settings")
    cells = _read_cells(table.get("cells", []), lists, settings, name)
    examples = _read_examples(table.get("examples", {}), name)
    return Request(settings=settings, suite=name, cells=cells, examples=examples, **lists)


def _read_cells(
    tables: Any, lists: Mapping[str, tuple[str, ...]], settings: Settings, name: str
) -> tuple[Group, ...]:
    """The suite's ``[[cells]]``: groups that take what they leave out from the top of the file."""
    if not (isinstance(tables, list) and all(isinstance(table, Mapping) for table in tables)):
        raise UsageError(f"suite {name}: cells must be tables, [[cells]]; got {tables!r}")
    groups = []
    protocols = [f.name for f in fields(settings) if is_dataclass(getattr(settings, f.name))]
    for number, table in enumerate(tables, 1):
        where = f"suite {name}: cells {number}"
        for key in table:
            if key not in _LISTS and key not in protocols:
                raise unknown(f"key of {where}:", key, [*_LISTS, *protocols])
        own = _read_lists(table, where)
        changes = {key: value for key, value in table.items() if key in protocols}
        models, datasets, metrics = (own[key] or lists[key] for key in _LISTS)
        group_settings = read_settings(settings, changes, where) if changes else None
        groups.append(Group(models, datasets, metrics, group_settings))
    return tuple(groups)


def _read_examples(table: Any, name: str) -> tuple[tuple[str, str], ...]:
    where = f"suite {name}: examples"
    if not isinstance(table, Mapping):
        raise UsageError(f"{where} must be a table, got {table!r}")
    for key, value in table.items():
        if key not in _LISTS:
            raise unknown(f"key of {where}:", key, _LISTS)
        if not isinstance(value, str):
            raise UsageError(f"{where}.{key} must be a string, got {value!r}")
    return tuple(table.items())


def _read_lists(table: Mapping[str, Any], where: str) -> dict[str, tuple[str, ...]]:
    lists = {}
    for key in _LISTS:
        value = table.get(key, [])
        if not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            raise UsageError(f"{where}: {key} must be a list of strings, got {value!r}")
        lists[key] = tuple(value)
    return lists


def read_settings(base: D, table: Mapping[str, Any], where: str) -> D:
    """`base`, a settings dataclass, with the values in `table`; nested tables for nested settings.

    Raises:
        UsageError: unknown key or a value of the wrong type.
    """
    if not isinstance(table, Mapping):
        raise UsageError(f"{where} must be a table, got {table!r}")
    assert is_dataclass(base)
    assert not isinstance(base, type)
    known = {f.name for f in fields(base)}
    changes: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            raise unknown(f"key of {where}:", key, known)
        current = getattr(base, key)
        if is_dataclass(current):
            value = read_settings(current, value, f"{where}.{key}")
        elif isinstance(current, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        elif type(value) is not type(current):
            raise UsageError(f"{where}.{key} must be {type(current).__name__}, got {value!r}")
        changes[key] = value
    result: D = replace(base, **changes)
    return result


def settings_table(assignments: Sequence[str]) -> dict[str, Any]:
    """``["sweep.nodes=129", "items=50"]`` → {"sweep": {"nodes": 129}, "items": 50}, values as in TOML.

    Raises:
        UsageError: not of the form key=value.
    """
    table: dict[str, Any] = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f"--set takes key=value, such as sweep.nodes=129; got {text!r}")
        try:
            parsed = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            parsed = value  # a bare word is a string
        *path, last = key.split(".")
        inner = table
        for name in path:
            inner = inner.setdefault(name, {})
            if not isinstance(inner, dict):
                raise UsageError(f"--set {text!r}: {name!r} is set to a value already")
        inner[last] = parsed
    return table
