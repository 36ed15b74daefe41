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

from benchsuite.errors import UsageError
from benchsuite.json_reading import JsonObject, plain

SCHEMA_VERSION = 2
#: Versions that are read. 1 knew no orders of emergence and no routes that fail; else it is the same.
READABLE_VERSIONS = (1, 2)
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
    """A curve over log-SNR; `variant` "" is the published one, a name marks a diagnostic beside it.

    A diagnostic may have another `axis`: a loss from 0 (nothing) to 1 (everything lost), on which ``log_snr``
    holds its levels, and `onset` and `width` are what log_snr_50 and width are on the clock.
    """

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
    axis: str = "log_snr"
    beside: str | None = None  #: variant in whose panel a theory is drawn; None = its own panel
    onset: Estimate | None = None
    width: Estimate | None = None

    @property
    def clocked(self) -> bool:
        """Whether its levels are log-SNR."""
        return self.axis == "log_snr"

    @property
    def half(self) -> float:
        """The level that defines log_snr_50: half way from floor to ceiling (H/2 for information)."""
        return (self.floor + self.ceiling) / 2


@dataclass(frozen=True)
class Row:
    """One cell of a run; `split` "test" is held out, "train" an oracle's own population.

    `factor` is "" when the metric is about no factor, or the cell failed before its factors were known.
    """

    cell_id: str
    label: str
    model: str
    family: str
    paper: str
    oracle: bool
    space: str
    reference: str | None  #: label of the oracle it is compared to
    reference_split: str  #: and the split on which that was measured
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
    scalars: Mapping[str, Estimate | None]  #: has every name in SCALARS, and what else the row states
    scalar_notes: Mapping[str, str]
    flags: tuple[str, ...]
    curves: tuple[CurvePoints, ...]
    readout_accuracy: float | None  #: of the frozen judge on this factor, held out, in [0, 1]
    forward_passes: int | None
    model_fingerprint: str
    dataset_fingerprint: str
    extra: Mapping[str, Any]
    lower_bound: bool = False  #: the curve is at most what the other routes lead to

    @property
    def ok(self) -> bool:
        """Whether the cell has values."""
        return self.status == "ok"

    @property
    def published(self) -> CurvePoints | None:
        """The curve that the scalars come from, if there is one."""
        return self.curve("")

    def curve(self, variant: str) -> CurvePoints | None:
        """The curve of a variant; "" is the published one."""
        return next((curve for curve in self.curves if curve.variant == variant), None)

    def theory(self, variant: str) -> CurvePoints | None:
        """What is expected of the curve of a variant."""
        return next((curve for curve in self.curves if curve.beside == variant), None)

    def onset_of(self, curve: CurvePoints) -> Estimate | None:
        """Where one of its curves is half way: the published one's is a scalar of the row."""
        return self.scalars["log_snr_50"] if curve.variant == "" else curve.onset


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
class Check:
    """How far one identity between metrics is missed by a model; 0 for a perfect one."""

    label: str
    dataset: str
    split: str
    factor: str
    check: str  #: the identity, in words
    unit: str
    deviation: Estimate
    failed: tuple[str, ...] = ()  #: metrics that fail a check which has a limit


@dataclass(frozen=True)
class Place:
    """A factor in an order of emergence; `tied` = it cannot be told apart from the one before it."""

    factor: str
    log_snr_50: Estimate
    tied: bool


@dataclass(frozen=True)
class Emergence:
    """The order in which a model fixes the factors of a data set by one route, the earliest first."""

    label: str
    dataset: str
    split: str
    metric: str
    order: tuple[Place, ...]
    tau: Estimate | None  #: Kendall's tau-b with the order of `reference`, in [-1, 1]
    compared: int | None  #: number of factors that tau is taken over
    reference: str | None  #: label of the oracle it is compared to
    left_out: Mapping[str, str]  #: factors without an onset here or there, and why


@dataclass(frozen=True)
class Verdict:
    """What calibration on exact models says about a metric."""

    passed: bool
    bias: float | None  #: largest over the cases, beyond two standard errors, in `unit`
    tolerance: float | None
    coverage: float | None  #: share of the 95 % intervals that hold the truth
    unit: str
    reason: str


@dataclass(frozen=True)
class Results:
    """A checked results document."""

    provenance: Mapping[str, Any]
    settings: Mapping[str, Any]
    rows: tuple[Row, ...]
    ranking: tuple[Rank, ...]
    emergence: tuple[Emergence, ...]
    consistency: tuple[Check, ...]
    calibration: Mapping[str, Verdict | None]  #: by metric; None = never calibrated, absent = not stated


def load_results(path: str | Path) -> dict[str, Any]:
    """Read and check the results document at `path` (a file, or a directory with a leaderboard.json).

    Raises:
        UsageError: no such file, not JSON, another schema version, or not a results document; says where.
    """
    path = Path(path) / FILE_NAME if Path(path).is_dir() else Path(path)
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
    top = JsonObject(plain(document), where)
    if "schema_version" not in top.value or "rows" not in top.value:
        raise UsageError(f"{where} is not a benchsuite results document: it has no schema_version and rows")
    version = top.value["schema_version"]
    if version not in READABLE_VERSIONS:
        writer = (top.value.get("provenance") or {}).get("benchsuite", "unknown")
        raise UsageError(
            f"{where} has schema version {version!r}, this benchsuite reads {READABLE_VERSIONS[0]} to "
            f"{READABLE_VERSIONS[-1]}; read it with the release that wrote it ({writer})"
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
    orders = tuple(_emergence(item) for item in top.items("emergence"))
    checks = tuple(check for item in top.items("consistency") if (check := _check(item)))
    verdicts = JsonObject(top.mapping("calibration"), f"{where}.calibration")
    calibration = {name: _verdict(verdicts, name) for name in verdicts.value}
    return Results(top.mapping("provenance"), top.mapping("settings"), rows, ranking, orders, checks, calibration)


# ------------------------------------------------------------------------------------------- reading


def _row(row: JsonObject) -> Row:
    status = row.text("status")
    if status not in STATUSES:
        raise UsageError(f"{row.where}.status must be one of {', '.join(STATUSES)}, found {status!r}")
    factor = row.text("factor", "")
    scalars = JsonObject(row.mapping("scalars"), f"{row.where}.scalars")
    notes = JsonObject(row.mapping("scalar_notes"), f"{row.where}.scalar_notes")
    accuracy = JsonObject(row.mapping("readout_accuracy"), f"{row.where}.readout_accuracy")
    return Row(
        cell_id=row.text("cell_id", ""),
        label=row.text("label"),
        model=row.text("model"),
        family=row.text("family", ""),
        paper=row.text("paper", ""),
        oracle=row.flag("oracle"),
        space=row.text("space", ""),
        reference=row.text("reference", "") or None,
        reference_split=row.text("reference_split", "") or "train",
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
        scalars={name: _scalar(scalars, name) for name in dict.fromkeys([*SCALARS, *scalars.value])},
        scalar_notes={name: notes.text(name) for name in notes.value},
        flags=row.texts("flags"),
        curves=tuple(_curve(item) for item in row.items("curves")),
        readout_accuracy=accuracy.number(factor) if factor else None,
        forward_passes=row.count("forward_passes"),
        model_fingerprint=row.text("model_fingerprint", ""),
        dataset_fingerprint=row.text("dataset_fingerprint", ""),
        extra=row.mapping("extra"),
        lower_bound=row.flag("lower_bound") if "lower_bound" in row.value else False,
    )


def _scalar(scalars: JsonObject, name: str) -> Estimate | None:
    if scalars.value.get(name) is None:
        return None
    return _estimate(JsonObject(scalars.value[name], f"{scalars.where}.{name}"), "value")


def _estimate(item: JsonObject, key: str) -> Estimate | None:
    """The number under `key` with the low and high beside it, or None when there is no number."""
    value = item.number(key)
    return None if value is None else Estimate(value, item.number("low"), item.number("high"))


def _curve(curve: JsonObject) -> CurvePoints:
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
        axis=curve.text("axis", "log_snr"),
        beside=None if curve.value.get("beside") is None else curve.text("beside"),
        onset=_scalar(curve, "onset"),
        width=_scalar(curve, "width"),
    )


def _rank(entry: JsonObject) -> Rank:
    rank, score = entry.count("rank"), _estimate(entry, "score")
    if not rank or score is None:
        raise UsageError(f"{entry.where} must have a rank >= 1 and a score")
    return Rank(
        dataset=entry.text("dataset"),
        factor=entry.text("factor"),
        label=entry.text("label"),
        rank=rank,
        score=score,
        routes=entry.texts("routes"),
    )


def _check(entry: JsonObject) -> Check | None:
    deviation = _estimate(entry, "value")
    if deviation is None:
        return None
    return Check(
        label=entry.text("label"),
        dataset=entry.text("dataset"),
        split=entry.text("split"),
        factor=entry.text("factor"),
        check=entry.text("check"),
        unit=entry.text("unit", ""),
        deviation=deviation,
        failed=entry.texts("failed"),
    )


def _emergence(entry: JsonObject) -> Emergence:
    left_out = JsonObject(entry.mapping("left_out"), f"{entry.where}.left_out")
    return Emergence(
        label=entry.text("label"),
        dataset=entry.text("dataset"),
        split=entry.text("split"),
        metric=entry.text("metric"),
        order=tuple(_place(item) for item in entry.items("order")),
        tau=_scalar(entry, "tau"),
        compared=entry.count("compared"),
        reference=entry.text("reference", "") or None,
        left_out={name: left_out.text(name) for name in left_out.value},
    )


def _place(item: JsonObject) -> Place:
    onset = _estimate(item, "log_snr_50")
    if onset is None:
        raise UsageError(f"{item.where} must have a log_snr_50; a factor without one belongs to left_out")
    return Place(item.text("factor"), onset, item.flag("tied"))


def _verdict(verdicts: JsonObject, metric: str) -> Verdict | None:
    if verdicts.value[metric] is None:
        return None
    item = JsonObject(verdicts.value[metric], f"{verdicts.where}.{metric}")
    return Verdict(
        passed=item.flag("passed"),
        bias=item.number("bias"),
        tolerance=item.number("tolerance"),
        coverage=item.number("coverage"),
        unit=item.text("unit", ""),
        reason=item.text("reason", ""),
    )
