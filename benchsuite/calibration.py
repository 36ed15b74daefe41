"""Calibration: every metric against models whose answers are known, and every sampler's bias.

A case is an exact model on items drawn from it. The truth of a metric is what it says (`Metric.truth`) about the
exact posterior, averaged over many fresh items; the estimate is the engine's published curve. Repeated seeds give
bias, standard error and the coverage of the published intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch

from benchsuite import specs
from benchsuite.api import measure
from benchsuite.contracts import ExactModel, FloatArray, Metric
from benchsuite.discovery import Catalog, discover
from benchsuite.errors import UsageError
from benchsuite.noise import sigma_from_log_snr
from benchsuite.protocols.settings import ForkSettings, SweepSettings, TrajectorySettings, UTurnSettings
from benchsuite.randomness import stream_key
from benchsuite.request import Settings
from benchsuite.sampler_bias import SamplerBias, sampler_bias
from benchsuite.samplers import STOCHASTIC
from benchsuite.statistics import first_crossing

#: settings of a calibration run: those of `measure`, with fewer levels where curves are smooth
SETTINGS = Settings(
    probe_items=2000,
    bootstrap=400,
    batch=8192,
    sweep=SweepSettings(draws=2, tap_stride=8),
    u_turn=UTurnSettings(low=-6.0, high=6.0, every=1.0, steps_per_level=4, draws=2),
    fork=ForkSettings(),
    # ancestral steps are of first order: at the default of 8 the bias of filters along paths is twice as large
    trajectory=TrajectorySettings(steps_per_level=16),
)
#: items behind every true value
TRUTH_ITEMS = 8000
#: a 95 % interval must cover the truth at least this often, pooled over runs and beyond two standard errors
COVERAGE = 0.90


@dataclass(frozen=True)
class Finding:
    """One metric on one case at one size."""

    metric: str
    version: str
    case: str
    factor: str
    n: int
    seeds: int
    bias: float  #: largest |mean error| over levels, in the metric's unit
    at_log_snr: float
    standard_error: float  #: of the mean error, at the level where seeds differ most
    coverage: float  #: fraction of (seed, level) whose interval holds the truth, levels where it moves
    onset_error: float | None  #: largest |error| of log_snr_50
    onset_coverage: float | None


@dataclass(frozen=True)
class Verdict:
    """What the findings say about one metric."""

    metric: str
    version: str
    passed: bool
    tolerance: float
    unit: str
    bias: float  #: largest over the cases, beyond two standard errors
    coverage: float
    reason: str


def cases(catalog: Catalog) -> list[str]:
    """Specs of the exact models to calibrate on, as their classes name them."""
    found = []
    for name, cls in sorted(catalog.models.items()):
        if issubclass(cls, ExactModel) and cls.own_data:
            found += [f"{name}:{options}" if options else name for options in cls.cases]
    return found


def true_curve(
    model: ExactModel, metric: Metric, factor: str, log_snr: FloatArray, posteriors: Any
) -> FloatArray | None:
    """The metric's truth at every level (T,), or None if the posterior does not determine it."""
    prior = model.prior()[factor].double().numpy()
    values = [metric.truth(posteriors(level)[factor], prior) for level in log_snr]
    return None if any(v is None for v in values) else np.array(values, dtype=float)


class Posteriors:
    """Exact posteriors of `TRUTH_ITEMS` fresh items of a model, level by level, computed when asked for."""

    def __init__(self, model: ExactModel, n: int = TRUTH_ITEMS) -> None:
        self.model = model
        generator = torch.Generator().manual_seed(stream_key("calibration", "truth"))
        self.x0, _ = model.sample(n, generator)
        # the other half of every pair sees the opposite noise, which cancels odd terms
        noise = torch.randn(self.x0[: (n + 1) // 2].shape, generator=generator, dtype=torch.float64)
        self.noise = torch.cat([noise, -noise])[:n]
        self._known: dict[float, dict[str, FloatArray]] = {}

    def __call__(self, log_snr: float) -> dict[str, FloatArray]:
        """{factor: (n, K)} float64 at one level."""
        key = round(float(log_snr), 9)
        if key not in self._known:
            sigma = float(sigma_from_log_snr(log_snr))
            x = self.x0.double() + sigma * self.noise
            with torch.no_grad():
                found = self.model.posterior(x, x.new_full((len(x),), sigma))
            self._known[key] = {name: p.double().numpy() for name, p in found.items()}
        return self._known[key]


def calibrate(
    catalog: Catalog,
    metrics: Sequence[Metric],
    case_specs: Sequence[str],
    sizes: Mapping[int, int],
    track: Callable[..., Any],
    base: Settings = SETTINGS,
    workers: int = 1,
) -> list[Finding]:
    """Run metrics on cases.

    Args:
        sizes: {number of items: number of seeds}.
        track: progress over an iterable.
        base: settings of the runs; seeds and sizes are put on top.
        workers: processes to share the runs, one thread each; 1 runs them here.

    Returns:
        One finding per metric, case, factor and size; metrics without a truth yield none.
    """
    models = {case: _load(catalog, case) for case in case_specs}
    jobs = [
        (case, metrics, n, replace(base, seed=seed))
        for case in case_specs
        for n, seeds in sizes.items()
        for seed in range(seeds)
    ]
    done: dict[tuple[str, int], list[list[dict[str, Any]]]] = {}
    with _pool(workers, catalog) as run:
        for job, rows in zip(jobs, track(run(_rows, jobs), "calibrating", len(jobs)), strict=True):
            done.setdefault((job[0], job[2]), []).append(rows)
    findings: list[Finding] = []
    for case, model in models.items():
        posteriors = Posteriors(model)
        for n in sizes:
            findings += _findings(done[case, n], metrics, posteriors, case, n)
    return findings


def sampler_biases(
    catalog: Catalog, case_specs: Sequence[str], track: Callable[..., Any], workers: int = 1
) -> list[SamplerBias]:
    """Bias of the reverse SDE steppers on the cases, see `benchsuite.sampler_bias`."""
    jobs = [(case, method) for case in case_specs for method in STOCHASTIC]
    with _pool(workers, catalog) as run:
        return [bias for found in track(run(_biases, jobs), "sampler bias", len(jobs)) for bias in found]


@contextmanager
def _pool(workers: int, catalog: Catalog) -> Iterator[Callable[..., Iterable[Any]]]:
    """A `map` whose function also gets the catalog: in this process, or in several that discover their own."""
    if workers <= 1:
        yield lambda function, jobs: (function(catalog, *job) for job in jobs)
        return
    # spawned, not forked: torch's threads do not survive a fork
    with ProcessPoolExecutor(workers, get_context("spawn"), _single_thread) as pool:
        yield lambda function, jobs: pool.map(_in_worker, [function] * len(jobs), jobs)


def _single_thread() -> None:
    torch.set_num_threads(1)


def _in_worker(function: Callable[..., Any], job: tuple[Any, ...]) -> Any:
    return function(discover(), *job)


def _rows(
    catalog: Catalog, case: str, metrics: Sequence[Metric], n: int, settings: Settings
) -> list[dict[str, Any]]:
    # items are drawn from another stream than the truth's
    report = measure(
        case, None, metrics, n=n, seed=1000 + settings.seed, settings=settings, device="cpu", catalog=catalog
    )
    return report.rows


def _biases(catalog: Catalog, case: str, method: str) -> list[SamplerBias]:
    return sampler_bias(_load(catalog, case), case, n=1500, spacings=(1.0, 0.5, 0.25), methods=[method])


def verdicts(findings: Sequence[Finding], metrics: Sequence[Metric]) -> list[Verdict]:
    """Judge every metric against its own stated tolerance."""
    judged = []
    for metric in metrics:
        mine = [f for f in findings if f.metric == metric.name]
        if not mine:
            reason = "states no truth" if metric.truth.__func__ is Metric.truth else "no case applies"  # type: ignore[attr-defined]
            judged.append(
                Verdict(
                    metric.name,
                    metric.version,
                    False,
                    metric.tolerance,
                    metric.unit,
                    float("nan"),
                    float("nan"),
                    reason,
                )
            )
            continue
        # the largest size decides: a bias that shrinks with n is sampling, one that stays is a defect
        largest = [f for f in mine if f.n == max(g.n for g in mine)]
        worst = max(largest, key=lambda f: f.bias - 2 * f.standard_error)
        bias = max(worst.bias - 2 * worst.standard_error, 0.0)
        runs = sum(f.seeds for f in mine)  # levels of one run are not independent
        coverage = float(np.average([f.coverage for f in mine], weights=[f.seeds for f in mine]))
        doubt = 2 * float(np.sqrt(COVERAGE * (1 - COVERAGE) / runs))
        reasons = []
        if bias > metric.tolerance:
            reasons.append(
                f"bias {worst.bias:.3f} {metric.unit} at log-SNR {worst.at_log_snr:.1f} of {worst.case} "
                f"({worst.factor}) exceeds the tolerance {metric.tolerance:g}"
            )
        if coverage + doubt < COVERAGE and not metric.lower_bound:
            reasons.append(f"95 % intervals cover the truth in {coverage:.0%}")
        judged.append(
            Verdict(
                metric.name,
                metric.version,
                not reasons,
                metric.tolerance,
                metric.unit,
                bias,
                coverage,
                "; ".join(reasons),
            )
        )
    return judged


def _load(catalog: Catalog, case: str) -> ExactModel:
    model = specs.build(catalog.get("models", specs.split_spec(case)[0]), "model", case)
    if not isinstance(model, ExactModel) or not model.own_data:
        raise UsageError(f"model {case!r} is not an exact model with data of its own; calibration needs one")
    model.load("cpu", "float32")
    return model


def _findings(
    runs: Sequence[Sequence[dict[str, Any]]], metrics: Sequence[Metric], posteriors: Posteriors, case: str, n: int
) -> Iterator[Finding]:
    for metric in metrics:
        for factor in posteriors.model.factors:
            rows = [
                row for run in runs for row in run if row["metric"] == metric.name and row["factor"] == factor.name
            ]
            bad = next((row for row in rows if row["status"] == "failed"), None)
            if bad is not None:
                yield _failed(metric, case, factor.name, n, len(rows))
                continue
            if not rows or any(row["status"] != "ok" for row in rows):
                continue
            curves = [next(c for c in row["curves"] if not c["variant"]) for row in rows]
            log_snr = np.array(curves[0]["log_snr"])
            truth = true_curve(posteriors.model, metric, factor.name, log_snr, posteriors)
            if truth is not None:
                yield _compare(metric, case, factor.name, n, rows, curves, log_snr, truth)


def _compare(
    metric: Metric,
    case: str,
    factor: str,
    n: int,
    rows: Sequence[dict[str, Any]],
    curves: Sequence[dict[str, Any]],
    log_snr: FloatArray,
    truth: FloatArray,
) -> Finding:
    value, low, high = (np.array([c[name] for c in curves], dtype=float) for name in ("value", "low", "high"))
    error = value - truth
    mean = error.mean(axis=0)
    spread = error.std(axis=0, ddof=1) if len(rows) > 1 else np.full(len(truth), np.nan)
    at = int(np.abs(mean).argmax())
    span = truth.max() - truth.min()
    moving = (truth > truth.min() + 0.05 * span) & (truth < truth.max() - 0.05 * span) & (span > 1e-3)
    moving = moving if moving.any() else np.ones(len(truth), dtype=bool)
    # a hair's breadth for the truth's own sampling error
    inside = (low - 0.002 <= truth) & (truth <= high + 0.002)
    onsets = [row["scalars"]["log_snr_50"] for row in rows]
    true_onset = _crossing(log_snr, truth, curves[0])
    onset_error = onset_coverage = None
    if true_onset is not None and all(onsets):
        onset_error = float(np.abs([o["value"] - true_onset for o in onsets]).max())
        covered = [o["low"] is not None and o["low"] - 0.01 <= true_onset <= o["high"] + 0.01 for o in onsets]
        onset_coverage = float(np.mean(covered))
    return Finding(
        metric.name,
        metric.version,
        case,
        factor,
        n,
        len(rows),
        float(np.abs(mean[at])),
        float(log_snr[at]),
        float(np.nanmax(spread) / np.sqrt(len(rows))),
        float(inside[:, moving].mean()),
        onset_error,
        onset_coverage,
    )


def _failed(metric: Metric, case: str, factor: str, n: int, seeds: int) -> Finding:
    """A metric that crashes on a case has infinite bias."""
    infinity = float("inf")
    return Finding(metric.name, metric.version, case, factor, n, seeds, infinity, 0.0, 0.0, 0.0, None, None)


def _crossing(log_snr: FloatArray, truth: FloatArray, curve: Mapping[str, Any]) -> float | None:
    sign = 1.0 if curve["ceiling"] >= curve["floor"] else -1.0
    half = sign * (curve["floor"] + curve["ceiling"]) / 2
    found = float(first_crossing(sign * truth[None], log_snr, half)[0])
    return found if np.isfinite(found) else None
