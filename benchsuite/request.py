"""What the user asked for: specs of models, data sets and metrics, and the settings that numbers depend on."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, TypeVar

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
    #: held-out items a probe is tested on, at most, if more than `items`; one pass each, only where taps are kept
    probe_tests: int = 0
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
        if self.probe_tests < 0:
            raise UsageError(f"probe_tests must not be negative, got {self.probe_tests}")
        if self.dtype not in DTYPES:
            raise UsageError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")


@dataclass(frozen=True)
class Group:
    """Specs that belong together: every model meets every data set and is scored with every metric."""

    models: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    settings: Settings | None = None  #: None = those of the request, or of another group that names the same model
    optional: bool = False  #: where the data are not there, that is a remark and no failure


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

        Settings of a group are meant for the models and data sets that it names, and go with them; so does leave
        to be without data.
        """
        given = {"models": tuple(models), "datasets": tuple(datasets), "metrics": tuple(metrics)}
        changes: dict[str, Any] = {key: value for key, value in given.items() if value}
        own: dict[str, Any] = {"settings": None, "optional": False} if models or datasets else {}
        cells = dict.fromkeys(replace(group, **own, **changes) for group in self.cells)
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
