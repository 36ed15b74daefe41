"""`check_metric`: the conformance checks of a metric."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from benchsuite.contracts import Metric
from benchsuite.testing.metric_case import MetricCase
from benchsuite.testing.metric_contract import CONTRACT
from benchsuite.testing.metric_science import SCIENCE
from benchsuite.testing.results import CheckResult

METRIC = CONTRACT | SCIENCE
#: {name: promise} of everything that `check_metric` runs
METRIC_CHECKS = METRIC.promises


def check_metric(
    metric: Metric,
    *,
    only: Iterable[str] | None = None,
    expected_failed: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
    alternatives: Mapping[str, Any] | None = None,
) -> list[CheckResult]:
    """Hold a metric to its contract, to controls, and to the truth of a small case.

    Args:
        only: names of the checks to run; all of `METRIC_CHECKS` by default.
        expected_failed: {check: reason} of known failures. Strict: one that passes is not ok either.
        options: keyword arguments that `metric` was built with, if any.
        alternatives: {option: another value} for options that are neither numbers nor flags.

    Returns:
        One result per check, in order.

    Raises:
        UsageError: an unknown check.
    """
    case = MetricCase(metric, options or {}, alternatives or {})
    return METRIC.run(metric.name, case, only, expected_failed)
