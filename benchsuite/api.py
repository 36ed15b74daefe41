"""The Python surface: `measure` poses a case from Python and returns what the command line would."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchsuite import provenance, specs
from benchsuite.assemble import assemble
from benchsuite.contracts import Dataset, DiffusionModel, FloatArray, Metric
from benchsuite.discovery import Catalog, discover
from benchsuite.errors import UsageError
from benchsuite.plan import Plan, Unit, unite
from benchsuite.protocols.settings import FilterSettings, SweepSettings, UTurnSettings
from benchsuite.request import Settings
from benchsuite.runner import Outcome, Reporter, run
from benchsuite.store import Store

#: A case posed from Python is usually small and exact: more draws and more probe items than a suite takes.
DEFAULTS = Settings(
    probe_items=4000,
    batch=8192,
    sweep=SweepSettings(draws=4),
    label_filter=FilterSettings(draws=2),
    u_turn=UTurnSettings(draws=4, steps_per_level=4),
)


@dataclass(frozen=True)
class MeasuredCurve:
    """One curve with its intervals and scalars."""

    log_snr: FloatArray  #: (T,) ascending
    value: FloatArray  #: (T,), in the curve's unit
    low: FloatArray  #: (T,) 95 % interval
    high: FloatArray  #: (T,)
    log_snr_50: float | None  #: where the curve is half way from floor to ceiling
    width: float | None  #: from 10 % to 90 % of the way
    unit: str
    floor: float
    ceiling: float


@dataclass(frozen=True)
class Report:
    """What `measure` found."""

    document: dict[str, Any] = field(repr=False)  #: the results document, see `benchsuite.results`

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The JSON rows."""
        rows: list[dict[str, Any]] = self.document["rows"]
        return rows

    def curve(
        self, metric: str, factor: str | None = None, variant: str = "", split: str | None = None
    ) -> MeasuredCurve:
        """The curve of `metric` for `factor` (may be left out if there is only one).

        Raises:
            KeyError: no such curve, or its cell failed; says why.
        """
        rows = [row for row in self.rows if row["metric"] == metric and factor in (None, row["factor"])]
        rows = [row for row in rows if split in (None, row["split"])]
        if not rows:
            known = sorted({(row["metric"], row["factor"]) for row in self.rows})
            raise KeyError(f"no curve {metric!r} for factor {factor!r}; measured: {known}")
        if len({(row["factor"], row["split"]) for row in rows}) > 1:
            raise KeyError(f"{metric!r} has several curves; name factor and split")
        row = rows[0]
        if row["status"] != "ok":
            raise KeyError(f"{metric!r} is {row['status']}: {row['reason']}")
        for found in row["curves"]:
            if found["variant"] == variant:
                scalars = row["scalars"] if not variant else {"log_snr_50": None, "width": None}
                return MeasuredCurve(
                    log_snr=_array(found["log_snr"]),
                    value=_array(found["value"]),
                    low=_array(found["low"]),
                    high=_array(found["high"]),
                    log_snr_50=_value(scalars["log_snr_50"]),
                    width=_value(scalars["width"]),
                    unit=found["unit"],
                    floor=found["floor"],
                    ceiling=found["ceiling"],
                )
        raise KeyError(f"{metric!r} has no variant {variant!r}; it has {[c['variant'] for c in row['curves']]}")


def measure(
    model: DiffusionModel | str,
    dataset: Dataset | str | None = None,
    metrics: Sequence[Metric | str] = ("mutual-information", "class-retention", "linear-probe"),
    *,
    grid: Sequence[float] | None = None,
    n: int = 1000,
    seed: int = 0,
    settings: Settings | None = None,
    device: str = "auto",
    store: str | Path | None = None,
    catalog: Catalog | None = None,
) -> Report:
    """Measure one model and return the same curves, scalars and rows as the command line.

    Args:
        model: a model object or spec.
        dataset: a data set object or spec; None measures an exact model on items drawn from it.
        metrics: metric objects or specs.
        grid: log-SNR levels of the noise sweep and of the label filter: (low, high, nodes), or any longer list of
            equidistant levels.
        n: number of evaluated items, at most what the split holds.
        seed: base seed of items (if drawn), noise and bootstrap.
        settings: everything else (default: `DEFAULTS`); `n`, `seed` and `grid` are put on top.
        device: "auto", "cpu", "cuda" or "cuda:0".
        store: directory that keeps records and curves for another call; None keeps nothing.
        catalog: plugins to resolve specs with; by default the installed ones.

    Raises:
        UsageError: unknown name, a grid that is not equidistant, or a model without data.
    """
    catalog = catalog or discover()
    base = settings or DEFAULTS
    base = replace(base, items=n, oracle_items=n, seed=seed)
    if grid is not None:
        sweep = _sweep(base, grid)
        base = replace(base, sweep=sweep, label_filter=_on(sweep, base.label_filter))
    make, cls, label = _maker(model, catalog)
    built = [
        m if isinstance(m, Metric) else specs.build(catalog.get("metrics", specs.split_spec(m)[0]), "metric", m)
        for m in metrics
    ]
    datasets: dict[str, Callable[[], Dataset]] = {}
    name = ""
    if dataset is not None:
        name = dataset if isinstance(dataset, str) else dataset.name
        datasets[name] = _dataset_maker(dataset, catalog)
    elif not cls.own_data:
        raise UsageError(f"model {label!r} is not its own data set; give `dataset`")
    split = "train" if cls.oracle else "test"
    unit = Unit(label, label, cls, make, name, split, oracle=cls.exact)
    plan = Plan((unit,), tuple(built), unite(built), datasets, base)
    document, _ = carry_out(plan, catalog, resolve_device(device), Store(Path(store)) if store else None)
    return Report(document)


def carry_out(
    plan: Plan,
    catalog: Catalog,
    device: str,
    store: Store | None,
    reporter: Reporter | None = None,
    calibrations: Sequence[Path] = (),
) -> tuple[dict[str, Any], list[Outcome]]:
    """Run a plan and assemble the results document; `calibrations` are folders that may hold the user's own."""
    # before anything runs: whoever commits or edits meanwhile does not change the code that is loaded
    facts = provenance.describe(catalog, device, plan.settings.dtype, plan.settings.seed)
    started, clock = datetime.now(UTC), time.perf_counter()
    outcomes = run(plan, store, device, reporter)
    # the computing behind the results, whenever it was done
    seconds = time.perf_counter() - clock + sum(outcome.stored_seconds for outcome in outcomes)
    facts |= {"started": started.isoformat(timespec="seconds"), "seconds": round(seconds, 1)}
    return assemble(plan, outcomes, facts, *calibrations), outcomes


def resolve_device(device: str) -> str:
    """ "auto" → the first GPU or the CPU; anything else is checked.

    Raises:
        UsageError: not a device, or one that is not there.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device)
    except RuntimeError:
        raise UsageError(f"unknown device {device!r}; use auto, cpu, cuda or cuda:N") from None
    if kind.type not in ("cpu", "cuda"):
        raise UsageError(f"unknown device {device!r}; use auto, cpu, cuda or cuda:N")
    count = torch.cuda.device_count() if kind.type == "cuda" else 1
    if (kind.index or 0) >= count:
        raise UsageError(f"device {device!r} is not there: {count} CUDA devices found; use --device cpu")
    return device


def _maker(
    model: DiffusionModel | str, catalog: Catalog
) -> tuple[Callable[[], DiffusionModel], type[DiffusionModel], str]:
    if isinstance(model, str):
        cls = catalog.get("models", specs.split_spec(model)[0])
        return lambda: specs.build(cls, "model", model), cls, model
    return lambda: model, type(model), model.name


def _dataset_maker(dataset: Dataset | str, catalog: Catalog) -> Callable[[], Dataset]:
    if isinstance(dataset, str):
        cls = catalog.get("datasets", specs.split_spec(dataset)[0])
        return lambda: specs.build(cls, "data set", dataset)
    return lambda: dataset


def _on(sweep: SweepSettings, filtering: FilterSettings) -> FilterSettings:
    """The label filter with the levels of `sweep` and, between them, steps of 0.25 log-SNR or less."""
    spacing = (sweep.high - sweep.low) / (sweep.nodes - 1)
    steps = max(1, math.ceil(spacing / 0.25 - 1e-9))
    return replace(filtering, low=sweep.low, high=sweep.high, nodes=sweep.nodes, steps_per_level=steps)


def _sweep(base: Settings, grid: Sequence[float]) -> Any:
    if len(grid) == 3 and float(grid[2]).is_integer():
        return replace(base.sweep, low=float(grid[0]), high=float(grid[1]), nodes=int(grid[2]))
    levels = np.sort(np.asarray(grid, dtype=float))
    if len(levels) < 4 or not np.allclose(np.diff(levels, 2), 0, atol=1e-6):
        raise UsageError(f"grid must be (low, high, nodes) or equidistant levels, got {list(grid)}")
    return replace(base.sweep, low=float(levels[0]), high=float(levels[-1]), nodes=len(levels))


def _value(scalar: dict[str, float] | None) -> float | None:
    return None if scalar is None else scalar["value"]


def _array(values: Sequence[float | None]) -> FloatArray:
    return np.array([np.nan if v is None else v for v in values], dtype=float)
