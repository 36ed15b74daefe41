"""The results document: what a run leaves and every report reads. One JSON object, checked when it is read.

Rows are the cells of a run, one per (model, data set, split, factor, metric). Numbers that are missing or not
finite are null in JSON and None (scalars) or NaN (points of a curve) here. Keys that this version does not
know are kept in the document and ignored by the reports.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchsuite.errors import UsageError

SCHEMA_VERSION = 1
FILE_NAME = "leaderboard.json"
STATUSES = ("ok", "not_applicable", "not_installed", "failed", "oom", "timeout")
SCALARS = ("log_snr_50", "width", "gap", "area")


@dataclass(frozen=True)
class Estimate:
    """A number with its bootstrap interval, in the unit of the scalar."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class CurvePoints:
    """A curve over log-SNR; `variant` "" is the published one, a name marks a diagnostic beside it."""

    variant: str
    unit: str
    floor: float
    ceiling: float
    tap: str | None
    log_snr: tuple[float, ...]  #: (T,), strictly ascending, finite
    value: tuple[float, ...]  #: (T,), NaN where there is none; likewise below
    low: tuple[float, ...] | None
    high: tuple[float, ...] | None
    native_time: tuple[float, ...] | None  #: t/T of the model, 1 = noise

    @property
    def half(self) -> float:
        """The level that defines log_snr_50: half way from floor to ceiling (H/2 for information)."""
        return (self.floor + self.ceiling) / 2


@dataclass(frozen=True)
class Row:
    """One cell of a run; `split` "test" is held out, "train" an oracle's own population.

    `factor` is "" when the cell failed before its factors were known.
    """

    cell_id: str
    label: str
    model: str
    family: str
    paper: str
    oracle: bool
    space: str
    reference: str | None  #: label of the oracle it is compared to
    dataset: str
    split: str
    factor: str
    metric: str
    metric_version: str
    metric_paper: str
    unit: str
    status: str  #: one of STATUSES
    stage: str
    reason: str
    n_items: int | None
    draws: int | None
    entropy: float | None  #: H(factor), nats
    scalars: Mapping[str, Estimate | None]  #: has every name in SCALARS
    scalar_notes: Mapping[str, str]
    flags: tuple[str, ...]
    curves: tuple[CurvePoints, ...]
    readout_accuracy: float | None  #: of the frozen judge on this factor, held out, in [0, 1]
    forward_passes: int | None
    model_fingerprint: str
    dataset_fingerprint: str
    extra: Mapping[str, Any]

    @property
    def ok(self) -> bool:
        """Whether the cell has values."""
        return self.status == "ok"

    @property
    def published(self) -> CurvePoints | None:
        """The curve that the scalars come from, if there is one."""
        return next((curve for curve in self.curves if curve.variant == ""), None)


@dataclass(frozen=True)
class Rank:
    """Place of a model on one board: `score` is the mean |oracle gap| of log_snr_50 over `routes`."""

    dataset: str
    factor: str
    label: str
    rank: int
    score: Estimate
    routes: tuple[str, ...]


@dataclass(frozen=True)
class Results:
    """A checked results document."""

    provenance: Mapping[str, Any]
    settings: Mapping[str, Any]
    rows: tuple[Row, ...]
    ranking: tuple[Rank, ...]


def load_results(path: str | Path) -> dict[str, Any]:
    """Read and check the results document at `path` (a file, or a directory with a leaderboard.json).

    Raises:
        UsageError: no such file, not JSON, another schema version, or not a results document; says where.
    """
    path = Path(path)
    path = path / FILE_NAME if path.is_dir() else path
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"no results at {path}; `benchsuite run --out DIR` writes DIR/{FILE_NAME}") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UsageError(f"{path} is not a JSON document: {error}") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    parse_results(document, where=str(path))
    plain_document: dict[str, Any] = plain(document)
    return plain_document


def parse_results(document: Any, where: str = "results") -> Results:
    """Check a results document and give it types; `where` opens the error messages.

    Raises:
        UsageError: naming the place in the document and the value found there.
    """
    top = _Object(plain(document), where)
    if "schema_version" not in top.value or "rows" not in top.value:
        raise UsageError(f"{where} is not a benchsuite results document: it has no schema_version and rows")
    version = top.value["schema_version"]
    if version != SCHEMA_VERSION:
        writer = (top.value.get("provenance") or {}).get("benchsuite", "unknown")
        raise UsageError(
            f"{where} has schema version {version!r}, this benchsuite reads {SCHEMA_VERSION}; "
            f"read it with the release that wrote it ({writer})"
        )
    rows = tuple(_row(item) for item in top.items("rows"))
    seen: set[tuple[str, ...]] = set()
    for index, row in enumerate(rows):
        key = (row.label, row.dataset, row.split, row.factor, row.metric)
        if key in seen:
            raise UsageError(f"{where}.rows[{index}] repeats the cell {' × '.join(key)}")
        seen.add(key)
    ranking = tuple(_rank(item) for item in top.items("ranking"))
    known = {(row.label, row.dataset) for row in rows}
    for index, entry in enumerate(ranking):
        if (entry.label, entry.dataset) not in known:
            raise UsageError(f"{where}.ranking[{index}] ranks {entry.label!r}, which has no row")
    return Results(top.mapping("provenance"), top.mapping("settings"), rows, ranking)


def plain(value: Any) -> Any:
    """JSON-able copy of `value`: numpy becomes Python, tuples become lists, non-finite floats become None."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    raise TypeError(f"a results document cannot hold {value!r} of type {type(value).__name__}")


# ------------------------------------------------------------------------------------------- reading


class _Object:
    """A JSON object that knows where it stands, so that each complaint names the place and the value."""

    def __init__(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise UsageError(f"{where} must be an object, found {_brief(value)}")
        self.value, self.where = value, where

    def _bad(self, key: str, wanted: str) -> UsageError:
        found = _brief(self.value[key]) if key in self.value else "nothing"
        return UsageError(f"{self.where}.{key} must be {wanted}, found {found}")

    def text(self, key: str, default: str | None = None) -> str:
        """A string; null or absent gives `default`, None = required."""
        value = self.value.get(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            raise self._bad(key, "a string")
        return value

    def flag(self, key: str) -> bool:
        value = self.value.get(key)
        if not isinstance(value, bool):
            raise self._bad(key, "true or false")
        return value

    def number(self, key: str) -> float | None:
        value = self.value.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._bad(key, "a number or null")
        return float(value)

    def count(self, key: str) -> int | None:
        value = self.value.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self._bad(key, "a whole number >= 0 or null")
        return value

    def mapping(self, key: str) -> dict[str, Any]:
        value = self.value.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self._bad(key, "an object")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.value.get(key) or []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._bad(key, "a list of strings")
        return tuple(value)

    def points(self, key: str, length: int | None = None) -> tuple[float, ...] | None:
        """A list of numbers, null => NaN; `length` is what it must have."""
        value = self.value.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or any(
            isinstance(item, bool | str) or not isinstance(item, int | float | None) for item in value
        ):
            raise self._bad(key, "a list of numbers")
        if length is not None and len(value) != length:
            raise UsageError(f"{self.where}.{key} has {len(value)} entries, log_snr has {length}")
        return tuple(math.nan if item is None else float(item) for item in value)

    def items(self, key: str) -> list[_Object]:
        value = self.value.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self._bad(key, "a list")
        return [_Object(item, f"{self.where}.{key}[{index}]") for index, item in enumerate(value)]

    def estimate(self, key: str) -> Estimate | None:
        """{"value", "low", "high"}, or None when there is no value."""
        if self.value.get(key) is None:
            return None
        item = _Object(self.value[key], f"{self.where}.{key}")
        value = item.number("value")
        return None if value is None else Estimate(value, item.number("low"), item.number("high"))


def _row(row: _Object) -> Row:
    status = row.text("status")
    if status not in STATUSES:
        raise UsageError(f"{row.where}.status must be one of {', '.join(STATUSES)}, found {status!r}")
    factor = row.text("factor", "")
    if status == "ok" and not factor:
        raise UsageError(f"{row.where}.factor must name the factor of an ok row, found {factor!r}")
    scalars = _Object(row.mapping("scalars"), f"{row.where}.scalars")
    notes = _Object(row.mapping("scalar_notes"), f"{row.where}.scalar_notes")
    accuracy = _Object(row.mapping("readout_accuracy"), f"{row.where}.readout_accuracy")
    return Row(
        cell_id=row.text("cell_id", ""),
        label=row.text("label"),
        model=row.text("model"),
        family=row.text("family", ""),
        paper=row.text("paper", ""),
        oracle=row.flag("oracle"),
        space=row.text("space", ""),
        reference=row.text("reference", "") or None,
        dataset=row.text("dataset"),
        split=row.text("split", "test"),
        factor=factor,
        metric=row.text("metric"),
        metric_version=row.text("metric_version", ""),
        metric_paper=row.text("metric_paper", ""),
        unit=row.text("unit", ""),
        status=status,
        stage=row.text("stage", ""),
        reason=row.text("reason", ""),
        n_items=row.count("n_items"),
        draws=row.count("draws"),
        entropy=row.number("entropy"),
        scalars={name: scalars.estimate(name) for name in SCALARS},
        scalar_notes={name: notes.text(name) for name in notes.value},
        flags=row.texts("flags"),
        curves=tuple(_curve(item) for item in row.items("curves")),
        readout_accuracy=accuracy.number(factor) if factor else None,
        forward_passes=row.count("forward_passes"),
        model_fingerprint=row.text("model_fingerprint", ""),
        dataset_fingerprint=row.text("dataset_fingerprint", ""),
        extra=row.mapping("extra"),
    )


def _curve(curve: _Object) -> CurvePoints:
    log_snr = curve.points("log_snr")
    if not log_snr or not all(a < b for a, b in zip(log_snr, (*log_snr[1:], math.inf), strict=True)):
        raise UsageError(f"{curve.where}.log_snr must be a non-empty list of ascending finite numbers")
    value = curve.points("value", len(log_snr))
    floor, ceiling = curve.number("floor"), curve.number("ceiling")
    if value is None or floor is None or ceiling is None:
        raise UsageError(f"{curve.where} must have value, floor and ceiling")
    return CurvePoints(
        variant=curve.text("variant", ""),
        unit=curve.text("unit", ""),
        floor=floor,
        ceiling=ceiling,
        tap=curve.text("tap", "") or None,
        log_snr=log_snr,
        value=value,
        low=curve.points("low", len(log_snr)),
        high=curve.points("high", len(log_snr)),
        native_time=curve.points("native_time", len(log_snr)),
    )


def _rank(entry: _Object) -> Rank:
    rank, score = entry.count("rank"), entry.number("score")
    if not rank or score is None:
        raise UsageError(f"{entry.where} must have a rank >= 1 and a score")
    return Rank(
        dataset=entry.text("dataset"),
        factor=entry.text("factor"),
        label=entry.text("label"),
        rank=rank,
        score=Estimate(score, entry.number("low"), entry.number("high")),
        routes=entry.texts("routes"),
    )


def _brief(value: Any) -> str:
    text = json.dumps(value, default=repr)
    return text if len(text) <= 60 else f"{text[:57]}…"
